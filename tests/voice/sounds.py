"""Speech, rooms and noise for the tests of this folder: float samples at 16 kHz, full scale 32768."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from voicechat.audio.resample import Resampler
from voicechat.providers.espeak import open_synthesizer
from voicechat.providers.interfaces import VoiceOptions

RATE_HZ = 16_000
Samples: TypeAlias = NDArray[np.float64]

REPLY = (
    "The weather today is mostly sunny, with a light wind from the west. In the evening it will be cooler, so take a "
    "jacket with you. Tomorrow brings rain in the morning."
)
OBJECTION = "wait, that is not at all what I asked you about"


@cache
def speak(text: str, voice: str = "en-us") -> Samples:
    """Synthesise ``text``."""
    # Its own thread: the caller may stand in a running loop, or in one whose time is virtual.
    with ThreadPoolExecutor(1) as thread:
        pcm = thread.submit(asyncio.run, _synthesise(text, voice)).result()
    return np.frombuffer(pcm, "<i2").astype(np.float64)


async def _synthesise(text: str, voice: str) -> bytes:
    synthesizer = open_synthesizer(voice=voice)
    try:
        chunks = [chunk async for chunk in synthesizer.synthesize(text, VoiceOptions())]
    finally:
        await synthesizer.aclose()
    resampler = Resampler(chunks[0].rate_hz, RATE_HZ)
    return resampler.push(b"".join(chunk.pcm for chunk in chunks)) + resampler.finish()


def silence(length_ms: int) -> Samples:
    return np.zeros(length_ms * RATE_HZ // 1000)


def noise(length_ms: int, level_db: float, seed: int = 0) -> Samples:
    """White noise, ``level_db`` below full scale."""
    samples = np.random.default_rng(seed).standard_normal(length_ms * RATE_HZ // 1000)
    return samples * 32768 * 10 ** (level_db / 20)


def in_a_room(samples: Samples, seed: int = 0) -> Samples:
    """Add a room: 200 ms of reverberation, 6 dB below the direct sound."""
    times_s = np.arange(RATE_HZ * 150 // 1000) / RATE_HZ
    response = np.random.default_rng(seed).standard_normal(len(times_s)) * np.exp(-6.9 * times_s / 0.2)
    response[:32] = 0
    response *= 10 ** (-6 / 20) / np.sqrt((response**2).sum())
    response[0] = 1
    reverberant: Samples = np.convolve(samples, response)[: len(samples)]
    return reverberant


def loudness(samples: Samples) -> float:
    """Root mean square of what is not silence."""
    return float(np.sqrt((samples[np.abs(samples) > 200] ** 2).mean()))


def to_pcm(samples: Samples) -> bytes:
    return samples.clip(-32768, 32767).astype("<i2").tobytes()
