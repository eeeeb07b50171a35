"""Where audio goes: whatever the routes, however it is cut, each sample goes where the
route led when it arrived.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voicechat.audio.decode import open_decoder
from voicechat.audio.formats import parse_input_format
from voicechat.errors import FailureKind, ProviderError
from voicechat.providers.interfaces import RecognitionOptions
from voicechat.runtime.audio_input import AudioInput
from voicechat.runtime.tasks import SessionTasks
from voicechat.session.effects import OpenRecognition, Route, RouteAudio
from voicechat.session.events import (
    AudioStarted,
    Event,
    RecognitionFailed,
    SpeechStarted,
    SpeechStopped,
    Transcribed,
)
from voicechat.session.limits import SessionLimits
from voicechat.session.types import InputSettings, Transcript, TurnDetection
from voicechat.testing.virtual_time import VirtualTimeLoop
from voicechat.voice.detector import FrameScore, OnScore

BYTES_PER_MS = 32
PCM = InputSettings(format="pcm", sample_rate_hz=16_000)
WAV = InputSettings(format="wav", sample_rate_hz=16_000)
MU_LAW = InputSettings(format="mulaw", sample_rate_hz=8_000)
LISTEN = RouteAudio(Route.LISTEN, PCM, detection=TurnDetection())
SKIP = RouteAudio(Route.SKIP, PCM)


def recognise(stream: int) -> RouteAudio:
    return RouteAudio(Route.RECOGNISE, PCM, stream)


@dataclass
class Recorder:
    """A recogniser that keeps what each stream hears; some fail when they have heard so
    much.
    """

    heard: dict[int, bytearray] = field(default_factory=dict)
    fails_at_bytes: int = 1 << 60
    streams: int = 0
    languages: list[str] = field(default_factory=list)
    """What each stream says of its language."""
    told: list[str] = field(default_factory=list)
    """What each stream was told of the language of the one before."""

    async def recognize(
        self, audio: AsyncIterator[bytes], options: RecognitionOptions
    ) -> AsyncIterator[Transcript]:
        self.streams += 1
        self.told.append(options.language)
        heard = self.heard[self.streams] = bytearray()
        async for pcm in audio:
            heard += pcm
            if len(heard) >= self.fails_at_bytes:
                self.fails_at_bytes = 1 << 60
                raise ProviderError("recorder", FailureKind.CONNECTIVITY, "as the test says")
        language = self.languages.pop(0) if self.languages else ""
        yield Transcript("x", 0, len(heard) // BYTES_PER_MS, language=language)


class Room:
    """An audio input whose session does what the test says; its voice detection only
    keeps what it hears.
    """

    gather_ms = 0
    preferred_until_s = 0.0
    turn_open = False

    turn_judge = None
    background_db = 0.0

    def __init__(self, **more: Any) -> None:
        self.loop = asyncio.get_running_loop()
        self.recorder = Recorder()
        self.events: list[Event] = []
        self.tasks = SessionTasks(on_fault=lambda: None)
        self.vad: dict[int, bytearray] = {}
        """What voice detection heard, by the time from which on without a gap."""
        self.first: list[Any] = []
        """Effects with which ``AudioStarted`` is answered."""
        self.input = AudioInput(
            self.recorder,
            limits=SessionLimits(),
            now_ms=lambda: round(self.loop.time() * 1000),
            post=self.post,
            tasks=self.tasks,
            detector=self,
            **more,
        )

    def post(self, event: Event) -> None:
        self.events.append(event)
        if isinstance(event, AudioStarted):
            for effect in self.first:
                self.perform(effect)

    def perform(self, effect: OpenRecognition | RouteAudio) -> None:
        if isinstance(effect, OpenRecognition):
            self.input.open(effect)
        else:
            self.input.route(effect)

    # --- as voice detection -----------------------------------------------------------

    def open_stream(self, on_score: OnScore) -> "Room":
        self.on_score = on_score
        return self

    def note_gap(self, at_ms: int) -> None:
        self.vad[at_ms] = self.hearing = bytearray()

    def push(self, pcm: bytes) -> None:
        self.hearing += pcm

    def close(self) -> None:
        """See ``Ear.close``."""


def numbered(samples: int, first: int) -> bytes:
    return (np.arange(first, first + samples) % 60_000).astype("<u2").tobytes()


STEPS = st.lists(
    st.one_of(
        st.integers(1, 3_000),  # so many samples, in one frame
        st.sampled_from(["recognise", "listen", "skip", "await"]),
    ),
    max_size=30,
)


@given(STEPS)
@settings(deadline=None)
def test_each_sample_goes_where_the_route_led_when_it_arrived(steps: list[int | str]) -> None:
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(any_routes(steps))


async def any_routes(steps: list[int | str]) -> None:
    room, at, route, streams = Room(), 0, "await", 0
    expected: dict[int, bytes] = {}
    begins_ms: dict[int, int] = {}
    gap = True
    vad_expected: list[bytes] = []
    for step in steps:
        if isinstance(step, str):
            route = step
            gap = gap or step != "listen"
            match step:
                case "recognise":
                    streams += 1
                    room.perform(OpenRecognition(streams, PCM))
                    room.perform(recognise(streams))
                    expected[streams] = b""
                case "listen":
                    room.perform(LISTEN)
                case "skip":
                    room.perform(SKIP)
                case _:
                    streams += 1
                    room.first = [OpenRecognition(streams, PCM), recognise(streams)]
                    expected[streams] = b""
                    room.perform(RouteAudio(Route.AWAIT, PCM))
            continue
        pcm = numbered(step, at)
        if route == "await":
            if not streams:
                streams = 1
                room.first = [OpenRecognition(1, PCM), recognise(1)]
                expected[1] = b""
            route = "recognise"
        room.input.push(pcm)
        at += step
        if route == "recognise":
            begins_ms.setdefault(streams, 2 * (at - step) // BYTES_PER_MS)
            expected[streams] += pcm
        if route == "listen":
            if gap:
                start_bytes = 2 * (at - step)
                vad_expected.append(pcm[-start_bytes % BYTES_PER_MS :])
            else:
                vad_expected[-1] += pcm
        gap = route != "listen"
    room.input.take_gathered()
    assert room.input._timeline.end_bytes == 2 * at
    for stream in expected:
        room.input.finish(stream)
    await asyncio.sleep(1)
    # Streams are opened in the order of their numbers, those only that some audio asked
    # for.
    opened = [
        stream for stream in sorted(expected) if expected[stream] or stream in room.recorder.heard
    ]
    heard = [bytes(room.recorder.heard[number]) for number in sorted(room.recorder.heard)]
    assert [pcm for pcm in heard if pcm] == [
        expected[stream] for stream in opened if expected[stream]
    ]
    told = [
        event for event in room.events if isinstance(event, Transcribed) and expected[event.stream]
    ]
    assert {event.stream: event.transcript.begin_ms for event in told} == begins_ms
    assert [bytes(pcm) for pcm in room.vad.values() if pcm] == [pcm for pcm in vad_expected if pcm]
    await room.tasks.close(1)


@given(
    st.lists(st.integers(1, 3_000), min_size=1, max_size=25),
    st.integers(1, 60_000),
    st.integers(0, 3),
    st.booleans(),
)
@settings(deadline=None)
def test_a_replacement_hears_all_that_its_predecessor_was_given_and_what_comes_then(
    pieces: list[int], fails_at_samples: int, replaced_after: int, listens: bool
) -> None:
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(a_replacement(pieces, fails_at_samples, replaced_after, listens=listens))


async def a_replacement(
    pieces: list[int], fails_at_samples: int, replaced_after: int, *, listens: bool
) -> None:
    """The recogniser fails at some time; the session lets another hear the audio a
    while later, as sessions do.
    """
    room, at = Room(), 0
    room.recorder.fails_at_bytes = 2 * fails_at_samples
    if listens:
        room.perform(LISTEN)
        room.perform(OpenRecognition(1, PCM, from_ms=0))
    else:
        room.perform(OpenRecognition(1, PCM))
        room.perform(recognise(1))
    stream, pieces_since_failure = 1, 0

    def replace() -> None:
        room.perform(OpenRecognition(2, PCM, replay_of=1))
        if not listens:
            room.perform(recognise(2))

    for samples in pieces:
        room.input.push(numbered(samples, at))
        at += samples
        await asyncio.sleep(0.01)
        if stream == 1 and any(isinstance(event, RecognitionFailed) for event in room.events):
            pieces_since_failure += 1
            if pieces_since_failure > replaced_after:
                stream = 2
                replace()
    room.input.finish(stream)
    await asyncio.sleep(1)
    if stream == 1 and any(isinstance(event, RecognitionFailed) for event in room.events):
        replace()
        room.input.finish(2)
        await asyncio.sleep(1)
    assert len([event for event in room.events if isinstance(event, Transcribed)]) == 1
    assert bytes(room.recorder.heard[room.recorder.streams]) == numbered(at, 0)
    await room.tasks.close(1)


@given(
    st.lists(st.integers(1, 2_000), min_size=1, max_size=30),
    st.integers(0, 400),
    st.integers(0, 29),
)
@settings(deadline=None)
def test_a_stream_that_is_opened_late_begins_with_the_sample_of_its_time(
    pieces: list[int], from_ms: int, opened_after: int
) -> None:
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(opened_late(pieces, from_ms, opened_after))


async def opened_late(pieces: list[int], from_ms: int, opened_after: int) -> None:
    room, at = Room(), 0
    room.perform(LISTEN)
    everything = b""
    begins_bytes = 0
    for number, samples in enumerate(pieces):
        room.input.push(numbered(samples, at))
        everything += numbered(samples, at)
        at += samples
        if number == min(opened_after, len(pieces) - 1):
            room.perform(OpenRecognition(1, PCM, from_ms=from_ms))
            begins_bytes = min(from_ms * BYTES_PER_MS, len(everything))
    room.input.finish(1)
    await asyncio.sleep(1)
    assert bytes(room.recorder.heard[1]) == everything[begins_bytes:]
    told = [event.transcript for event in room.events if isinstance(event, Transcribed)]
    assert [found.begin_ms for found in told] == [begins_bytes // BYTES_PER_MS]
    await room.tasks.close(1)


@given(
    st.lists(
        st.tuples(st.sampled_from([8_000, 16_000, 48_000]), st.integers(1, 4_000)),
        min_size=1,
        max_size=12,
    )
)
@settings(deadline=None)
def test_the_format_may_change_at_any_time_and_what_came_before_is_read_as_it_was_declared(
    pieces: list[tuple[int, int]],
) -> None:
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(changes_format(pieces))


async def changes_format(pieces: list[tuple[int, int]]) -> None:
    room = Room()
    room.perform(OpenRecognition(1, PCM))
    expected, decoder, rate_hz = b"", None, 0
    for number, (piece_hz, samples) in enumerate(pieces):
        declared = InputSettings(format="pcm", sample_rate_hz=piece_hz)
        room.perform(RouteAudio(Route.RECOGNISE, declared, 1))
        if piece_hz != rate_hz:
            expected += decoder.finish_turn() if decoder is not None else b""
            decoder, rate_hz = open_decoder(parse_input_format("pcm", piece_hz)), piece_hz
        frame = numbered(samples, 1_000 * number)
        assert decoder is not None
        expected += decoder.decode(frame)
        room.input.push(frame)
    room.input.finish(1)
    expected += decoder.finish_turn() if decoder is not None else b""
    await asyncio.sleep(1)
    assert bytes(room.recorder.heard[1]) == expected
    await room.tasks.close(1)


async def test_samples_are_gathered_until_voice_detection_has_a_use_for_them() -> None:
    """Two frames of 32 ms at once, and one while a beginning of speech may have come."""
    room = Room()
    room.perform(LISTEN)
    pieces_ms: list[int] = []
    for number in range(10):
        before = len(room.hearing)
        room.input.push(bytes(20 * BYTES_PER_MS))
        pieces_ms.append((len(room.hearing) - before) // BYTES_PER_MS)
        if number == 5:
            assert (pieces_ms, room.input.missing_ms()) == ([20, 0, 0, 60, 0, 0], 40)
            room.on_score(FrameScore(32, 0.9))
            assert len(room.hearing) == 120 * BYTES_PER_MS, "what was gathered completes a frame"
    assert pieces_ms[6:] == [20, 20, 0, 40]
    room.on_score(FrameScore(64, 0.0))
    for _ in range(4):
        room.input.push(bytes(20 * BYTES_PER_MS))
    assert len(room.hearing) == 260 * BYTES_PER_MS


@pytest.mark.parametrize("settings", [WAV, MU_LAW], ids=["wav", "mulaw"])
async def test_frames_are_joined_only_where_no_clip_can_begin(settings: InputSettings) -> None:
    """A frame that begins with a WAV header begins a clip. 20 ms of the samples of a
    telephone are 160 bytes.
    """
    room = Room()
    room.perform(replace(LISTEN, settings=settings))
    pieces_ms: list[int] = []
    for _ in range(4):
        before = room.input._timeline.end_bytes
        room.input.push(bytes([0xFF]) * (160 if settings is MU_LAW else 640))
        pieces_ms.append(round((room.input._timeline.end_bytes - before) / BYTES_PER_MS))
    assert pieces_ms == ([20, 20, 20, 20] if settings is WAV else [18, 0, 0, 60])


async def test_leaving_the_microphone_ends_speech_at_once() -> None:
    room = Room()
    room.perform(LISTEN)
    for number in range(4):
        room.input.push(bytes(32 * BYTES_PER_MS))
        room.on_score(FrameScore(32 * (number + 1), 0.9))
    room.perform(SKIP)
    room.input.push(bytes(500 * BYTES_PER_MS))
    started, stopped = room.events
    assert isinstance(started, SpeechStarted)
    assert stopped == SpeechStopped(128, 0)
    room.perform(LISTEN)
    room.input.push(bytes(64 * BYTES_PER_MS))
    assert list(room.vad)[-1] == 628, "the time that was skipped has passed"
    room.input.close()
    await room.tasks.close(1)


async def test_while_too_much_waits_to_be_recognised_no_audio_is_missing() -> None:
    """The socket is not read then, which is not the client's silence."""
    room = Room()
    room.perform(LISTEN)
    room.perform(OpenRecognition(1, PCM, from_ms=0))
    for number in range(4):
        room.input.push(bytes(32 * BYTES_PER_MS))
        room.on_score(FrameScore(32 * (number + 1), 0.9))
    room.input.full = True
    await asyncio.sleep(10)
    assert [type(event) for event in room.events] == [SpeechStarted]
    room.input.full = False
    await asyncio.sleep(2)
    assert [type(event) for event in room.events] == [SpeechStarted, SpeechStopped]
    await room.tasks.close(1)


async def test_a_stream_is_told_the_language_of_what_was_said_before() -> None:
    room = Room()
    room.recorder.languages = ["zh", "", "en"]
    for stream in (1, 2, 3, 4):
        room.perform(OpenRecognition(stream, PCM))
        room.perform(recognise(stream))
        room.input.push(bytes(320))
        room.input.finish(stream)
        await asyncio.sleep(1)
    # The second stream did not say its language.
    assert room.recorder.told == ["", "zh", "zh", "en"]
    await room.tasks.close(1)


async def test_audio_after_the_end_of_a_session_is_not_even_decoded() -> None:
    room = Room()
    room.perform(LISTEN)
    room.perform(RouteAudio(Route.DROP, PCM))
    room.input.push(bytes(320))
    room.input.report()
    assert room.events == []
    await room.tasks.close(1)
