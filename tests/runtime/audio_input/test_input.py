"""Where audio goes: whatever the routes, however it is cut, each sample goes where the
route led when it arrived.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from voicechat.errors import FailureKind, ProviderError
from voicechat.providers.interfaces import RecognitionOptions
from voicechat.runtime.audio_input import AudioInput
from voicechat.runtime.tasks import SessionTasks
from voicechat.session.effects import OpenRecognition, Route, RouteAudio
from voicechat.session.events import AudioStarted, Event
from voicechat.session.limits import SessionLimits
from voicechat.session.vocabulary import InputSettings, Transcript, TurnDetection
from voicechat.testing.virtual_time import VirtualTimeLoop
from voicechat.voice.detector import OnScore

BYTES_PER_MS = 32
PCM = InputSettings(format="pcm", sample_rate_hz=16_000)
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

    async def recognize(
        self, audio: AsyncIterator[bytes], options: RecognitionOptions
    ) -> AsyncIterator[Transcript]:
        self.streams += 1
        heard = self.heard[self.streams] = bytearray()
        async for pcm in audio:
            heard += pcm
            if len(heard) >= self.fails_at_bytes:
                self.fails_at_bytes = 1 << 60
                raise ProviderError("recorder", FailureKind.CONNECTIVITY, "as the test says")
        yield Transcript("x", 0, len(heard) // BYTES_PER_MS)


class Room:
    """An audio input whose session does what the test says; its voice detection only
    keeps what it hears.
    """

    turn_judge = None

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
            expected[streams] += pcm
        if route == "listen":
            if gap:
                start_bytes = 2 * (at - step)
                vad_expected.append(pcm[-start_bytes % BYTES_PER_MS :])
            else:
                vad_expected[-1] += pcm
        gap = route != "listen"
    room.input.flush()
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
    assert [bytes(pcm) for pcm in room.vad.values() if pcm] == [pcm for pcm in vad_expected if pcm]
    await room.tasks.close(1)
