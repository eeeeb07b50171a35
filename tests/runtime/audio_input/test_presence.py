"""No frame of audio reaches the session, and yet it knows that its client is there."""

import asyncio
from typing import Self

import pytest

from voicechat.session.commands import Alive
from voicechat.session.effects import Effect
from voicechat.session.events import (
    AudioArrived,
    AudioStarted,
    Event,
    SpeechStarted,
    SpeechStopped,
)
from voicechat.session.limits import SessionLimits
from voicechat.session.notices import TurnCommitted
from voicechat.session.session import Session
from voicechat.session.types import InputSettings, Settings, TurnDetection
from voicechat.testing.harness import ConversationHarness
from voicechat.voice.detector import FrameScore, OnScore

BYTES_PER_MS = 32


class Noting(Session):
    """Remembers what happened."""

    def __init__(self, settings: Settings, limits: SessionLimits) -> None:
        super().__init__(settings, limits)
        self.seen: list[Event] = []

    def receive(self, event: Event, now_ms: int) -> list[Effect]:
        self.seen.append(event)
        return super().receive(event, now_ms)


class ToldDetector:
    """Says what the test says, and keeps the audio that it is given."""

    gather_ms = 0
    preferred_until_s = 0.0
    turn_open = False

    turn_judge = None
    background_db = 0.0

    def __init__(self) -> None:
        self.pcm = b""

    def open_stream(self, on_score: OnScore) -> Self:
        self.hear = on_score
        return self

    def push(self, pcm: bytes) -> None:
        self.pcm += pcm

    def note_gap(self, at_ms: int) -> None:
        """See ``DetectorStream.note_gap``."""

    def close(self) -> None:
        """See ``DetectorStream.close``."""


class Room(ConversationHarness):
    """A hands-free conversation with a ``ToldDetector``."""

    def __init__(self, limits: SessionLimits | None = None) -> None:
        recorded = InputSettings(format="pcm", sample_rate_hz=16_000, silence_allowed=True)
        limits = limits or SessionLimits()
        self.session = Noting(Settings(input=recorded, turn_detection=TurnDetection()), limits)
        self.ear = ToldDetector()
        super().__init__(machine=self.session, limits=limits, detector=self.ear)

    async def speaks(self, *lengths_ms: int) -> bytes:
        """Send frames as long as these, of which no two bytes in a row are the same;
        give all of them.
        """
        sent = b""
        for length_ms in lengths_ms:
            frame = bytes((len(sent) + at) % 251 for at in range(length_ms * BYTES_PER_MS))
            self.send_frame(frame)
            await asyncio.sleep(length_ms / 1000)
            sent += frame
        return sent


async def test_speech_is_as_long_ago_as_all_the_audio_says() -> None:
    async with Room() as room:
        await asyncio.sleep(1)
        sent = await room.speaks(40, 40, 10)
        for end_ms in (32, 64):
            room.ear.hear(FrameScore(end_ms, 1.0))
        (started,) = [event for event in room.session.seen if isinstance(event, SpeechStarted)]
        assert started.ago_ms == 90 + 10, "the last frame came 10 ms ago"
        assert room.ear.pcm == sent


async def test_a_late_judgement_makes_no_silence_shorter() -> None:
    """What a frame waits for the voice model after it came is part of the silence."""
    for waited_s in (0.0, 0.015):
        async with Room() as room:
            await room.speaks(*[20] * 15)
            for end_ms in range(32, 161, 32):
                room.ear.hear(FrameScore(end_ms, 1.0))
            await asyncio.sleep(waited_s)
            for end_ms in range(192, 289, 32):
                room.ear.hear(FrameScore(end_ms, 0.0))
            (stopped,) = [event for event in room.session.seen if isinstance(event, SpeechStopped)]
            age_ms = 20 + round(waited_s * 1000)
            assert stopped.ago_ms == 300 - stopped.at_ms + age_ms


async def test_the_session_is_told_of_audio_once_and_then_before_whatever_else_happens() -> None:
    async with Room() as room:
        await room.speaks(*[20] * 50)
        told = [
            event for event in room.session.seen if isinstance(event, AudioStarted | AudioArrived)
        ]
        assert told == [AudioStarted()], "no frame reaches the session"
        room.send(Alive())
        await asyncio.sleep(0.001)
        assert room.session.seen[-2:] == [AudioArrived(980), Alive()]
        await asyncio.sleep(59)
        await room.speaks(20)
        assert room.socket.closed_with is None


async def test_a_client_that_sends_nothing_but_audio_is_there_until_a_minute_after_its_last_frame() -> (
    None
):
    async with Room(limits=SessionLimits(ping_ms=3_600_000)) as room:
        for _ in range(5):
            await room.speaks(100)
            await asyncio.sleep(50)
        assert room.socket.closed_with is None
        await asyncio.sleep(10)
        assert room.socket.closed_with is not None


@pytest.mark.parametrize("late", [True, False])
async def test_a_turn_waits_for_audio_that_a_late_loop_may_not_have_read(late: bool) -> None:
    """When none comes for a second, none was sent."""
    async with Room() as room:
        await asyncio.sleep(1)
        await room.speaks(*[40] * 25)
        for end_ms in range(32, 1_000, 32):
            room.ear.hear(FrameScore(end_ms, 1.0 if end_ms <= 800 else 0.0))
        if late:
            for _ in range(20):
                room.reads.lateness.add_lag(0.0, 1.0)
        await asyncio.sleep(0.35)
        room.send(Alive())
        assert bool(room.of(TurnCommitted)) is not late
        await asyncio.sleep(1)
        room.send(Alive())
        await room.notice(TurnCommitted)
