"""Tones of a keypad in the audio of a call are no voice: they neither interrupt a reply
nor end up as words. The voice detection is the real one.
"""

import asyncio
import base64
import wave
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.hands_free.stage import InlineDetector
from tests.phones.far_end import FarEnd
from voicechat.audio import g711
from voicechat.dialects.base import Connection
from voicechat.dialects.media_streams.endpoint import MediaStreamsEndpoint
from voicechat.session.agent import Agent
from voicechat.testing.harness import ScriptedHarness
from voicechat.testing.scripted import ScriptedModel

RATE_HZ = 8_000
AGENT = Agent(greeting="A long greeting, which goes on and on for a while. " * 3)
LOW_HZ = (697, 770, 852, 941)
HIGH_HZ = (1209, 1336, 1477, 1633)


def key_tone(number: int, length_ms: int, amplitude: float = 0.15) -> NDArray[np.float64]:
    """One of the sixteen tones (ITU-T Q.23), with silence as long behind it."""
    t = np.arange(RATE_HZ * length_ms // 1000) / RATE_HZ
    low, high = LOW_HZ[number // 4], HIGH_HZ[number % 4]
    tone = amplitude * (np.sin(2 * np.pi * low * t) + np.sin(2 * np.pi * high * t))
    return np.concatenate([tone, np.zeros_like(tone)])


def keys(length_ms: int) -> NDArray[np.float64]:
    return np.concatenate([key_tone(number, length_ms) for number in range(16)])


def voice(recordings: Path) -> NDArray[np.float64]:
    with wave.open(str(recordings / "vad-8k.wav")) as file:
        return np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32767


async def interrupted_by(sound: NDArray[np.float64]) -> bool:
    """Whether that sound, heard during a greeting, silences it."""
    opening = MediaStreamsEndpoint("twilio").open(Connection(agent=AGENT))
    far_end = FarEnd(delay_s=0.02)
    stage = ScriptedHarness(
        dialect=opening.dialect,
        settings=opening.settings,
        agent=AGENT,
        socket=far_end,
        detector=InlineDetector(),
        model=ScriptedModel(),
    )
    line = g711.encoded(np.rint(sound * 32767).astype("<i2").tobytes(), g711.MU_LAW_CODES)
    async with stage:
        far_end.begin()
        await asyncio.sleep(0.5)
        for start in range(0, len(line), 160):
            payload = base64.b64encode(line[start : start + 160]).decode()
            far_end.say(event="media", media={"track": "inbound", "payload": payload})
            await asyncio.sleep(0.02)
    return bool(far_end.heard)


@pytest.mark.parametrize("length_ms", [80, pytest.param(300, marks=pytest.mark.long)])
async def test_key_tones_do_not_interrupt(length_ms: int) -> None:
    assert not await interrupted_by(keys(length_ms))


async def test_a_voice_does(recordings: Path) -> None:
    assert await interrupted_by(voice(recordings))
