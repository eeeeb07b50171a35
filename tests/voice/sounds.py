"""Speech, rooms and noise for the tests of this folder: float samples at 16 kHz, full
scale 32768.
"""

import shutil
from functools import cache
from tempfile import TemporaryDirectory
from typing import TypeAlias

import numpy as np
from espeakng_loader import get_data_path, get_library_path
from numpy.typing import NDArray

from voicechat.audio.resample import Resampler
from voicechat.providers.espeak_library import EspeakLibrary, Prosody

RATE_HZ = 16_000
RATE_WPM = 175
Samples: TypeAlias = NDArray[np.float64]

REPLY = (
    "The weather today is mostly sunny, with a light wind from the west. In the evening it will "
    "be cooler, so take a "
    "jacket with you. Tomorrow brings rain in the morning."
)
OBJECTION = "wait, that is not at all what I asked you about"


def fresh_library() -> EspeakLibrary:
    """Open a copy of espeak, whose globals are its own.

    espeak goes on where it stopped, in the middle of a wave and of the voice's flutter,
    so that its samples depend on all that the process has ever asked of it.
    """
    with TemporaryDirectory() as folder:
        return EspeakLibrary(shutil.copy(get_library_path(), folder), get_data_path())


@cache
def speak(text: str, voice: str = "en-us") -> Samples:
    """Synthesise ``text``: the same samples whatever has been spoken before."""
    library = fresh_library()
    chunks: list[bytes] = []

    def take(pcm: bytes) -> bool:
        chunks.append(pcm)
        return True

    library.speak(text, voice, Prosody(RATE_WPM), take)
    resampler = Resampler(library.rate_hz, RATE_HZ)
    pcm = resampler.push_audio(b"".join(chunks)) + resampler.finish_stream()
    samples = np.frombuffer(pcm, "<i2").astype(np.float64)
    samples.flags.writeable = False  # the next test gets the same array
    return samples


def silence(length_ms: int) -> Samples:
    return np.zeros(length_ms * RATE_HZ // 1000)


def noise(length_ms: int, level_db: float, seed: int = 0) -> Samples:
    """White noise, ``level_db`` below full scale."""
    samples = np.random.default_rng(seed).standard_normal(length_ms * RATE_HZ // 1000)
    return samples * 32768 * 10 ** (level_db / 20)


def in_a_room(samples: Samples, seed: int = 0) -> Samples:
    """Add a room: 200 ms of reverberation, 6 dB below the direct sound."""
    times_s = np.arange(RATE_HZ * 150 // 1000) / RATE_HZ
    response = np.random.default_rng(seed).standard_normal(len(times_s)) * np.exp(
        -6.9 * times_s / 0.2
    )
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
