"""The detector on a real loop: its time is real, and so is the thread of a model that
has one.
"""

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from functools import cache

import pytest

from tests.voice.sounds import OBJECTION, speak, to_pcm
from voicechat.voice.detector import (
    AT_ONCE_FRAMES,
    CALL_FRAMES,
    GATHER_MS,
    LATE_MS,
    LEAST_STREAMS,
    MAX_PENDING_MS,
    PASS_FRAMES,
    ROUND_FRAMES,
    FrameScore,
    Tick,
    VoiceDetector,
)
from voicechat.voice.listener import Listener, StreamFrames, score
from voicechat.voice.silero import (
    FRAME_BYTES,
    FRAME_MS,
    MOST_FRAMES,
    MOST_STREAMS,
    SileroModel,
    VoiceModel,
    find_model,
)
from voicechat.voice.silero_network import open_silero

pytestmark = pytest.mark.real_time


@cache
def model(*, in_thread: bool = False) -> VoiceModel:
    return SileroModel(find_model()) if in_thread else open_silero(find_model())


@cache
def speech() -> bytes:
    pcm = to_pcm(speak(OBJECTION))
    return pcm[: len(pcm) // FRAME_BYTES * FRAME_BYTES]


LONG_MS = 100_000
"""A time to gather that does not pass in a test, however busy the machine is."""


@asynccontextmanager
async def running(
    on_tick: Callable[[Tick], None] | None = None, *, judge: VoiceModel | None = None
) -> AsyncGenerator[VoiceDetector]:
    detector = VoiceDetector(judge or model(), on_tick)
    async with asyncio.TaskGroup() as group:
        work = group.create_task(detector.run())
        yield detector
        work.cancel()


class Notes:
    """Collects what one ear heard and says when it is all there."""

    def __init__(self, frames: int) -> None:
        self.heard: list[FrameScore] = []
        self.complete = asyncio.Event()
        self._frames = frames

    def take(self, heard: FrameScore) -> None:
        self.heard.append(heard)
        if len(self.heard) == self._frames:
            self.complete.set()


@pytest.mark.parametrize("in_thread", [False, True])
async def test_hears_what_the_model_hears_however_the_audio_is_cut(in_thread: bool) -> None:
    frames = len(speech()) // FRAME_BYTES
    notes = Notes(frames)
    async with running(judge=model(in_thread=in_thread)) as detector, asyncio.timeout(120):
        ear = detector.open_stream(notes.take)
        for at in range(0, len(speech()), 640):
            ear.push(speech()[at : at + 640])
        await notes.complete.wait()
    listener = Listener()
    expected = [
        score(
            model(in_thread=in_thread), [StreamFrames(listener, (speech()[at : at + FRAME_BYTES],))]
        ).probabilities[0][0]
        for at in range(0, len(speech()), FRAME_BYTES)
    ]
    assert [heard.probability for heard in notes.heard] == pytest.approx(expected, abs=1e-4)
    assert [heard.audio_ms for heard in notes.heard] == [
        FRAME_MS * (index + 1) for index in range(frames)
    ]


async def test_ears_share_the_model_calls() -> None:
    ticks: list[Tick] = []
    notes = [Notes(10) for _ in range(20)]
    async with running(ticks.append) as detector, asyncio.timeout(120):
        for note in notes:
            stream = detector.open_stream(note.take)
            stream.preferred_until_s = math.inf  # whatever else this machine does
            stream.push(speech()[: 10 * FRAME_BYTES])
        await asyncio.gather(*(note.complete.wait() for note in notes))
    assert [tick.frames for tick in ticks] == [20 * MOST_FRAMES] * (10 // MOST_FRAMES)
    assert all(tick.duration_ms > 0 and tick.lag_ms >= 0 and tick.lost_ms == 0 for tick in ticks)


async def test_the_rest_of_the_process_has_its_turn_within_a_round(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """More ears than one call serves: what the first of them asks for happens before
    the last of them hears.
    """
    # Whatever else this machine does: a round that is late is judged in one go.
    monkeypatch.setattr("voicechat.voice.detector.LATE_MS", math.inf)
    order: list[str] = []
    last = asyncio.Event()

    def first(_: FrameScore) -> None:
        asyncio.get_running_loop().call_soon(order.append, "the rest")

    def note(_: FrameScore) -> None:
        order.append("last")
        last.set()

    ticks: list[Tick] = []
    async with running(ticks.append) as detector, asyncio.timeout(120):
        for on_score in (first, *[lambda _: None] * (2 * MOST_STREAMS - 2), note):
            detector.open_stream(on_score).push(speech()[:FRAME_BYTES])
        await last.wait()
    assert order == ["the rest", "last"]


async def test_what_comes_during_a_round_gathers_for_the_next() -> None:
    ticks: asyncio.Queue[Tick] = asyncio.Queue()
    async with running(ticks.put_nowait) as detector, asyncio.timeout(120):
        later = detector.open_stream(lambda _: None)
        detector.open_stream(lambda _: later.push(speech()[:FRAME_BYTES])).push(
            speech()[:FRAME_BYTES]
        )
        assert (await ticks.get()).frames == 1
        assert (await ticks.get()).lag_ms >= GATHER_MS * 0.9


async def test_silence_is_reported_within_the_call_that_brings_it() -> None:
    """Before speech, after it, and whether or not anybody judges; what comes behind
    speech that waits is reported after it.
    """
    ticks: list[Tick] = []
    notes, hush = Notes(3 + 40), bytes(FRAME_BYTES)
    detector = VoiceDetector(model(), ticks.append)
    ear = detector.open_stream(notes.take)
    ear.push(hush * 2 + hush[:640])
    assert [heard.audio_ms for heard in notes.heard] == [32, 64]
    ear.push(hush[640:])
    assert [heard.audio_ms for heard in notes.heard] == [32, 64, 96]
    async with asyncio.timeout(120), asyncio.TaskGroup() as group:
        work = group.create_task(detector.run())
        for at in range(20):
            ear.push(speech()[at * FRAME_BYTES : (at + 1) * FRAME_BYTES])
        for _ in range(20):
            ear.push(hush)
        assert len(notes.heard) < 3 + 40
        await notes.complete.wait()
        work.cancel()
    assert [heard.audio_ms for heard in notes.heard] == [32 * (at + 1) for at in range(43)]
    assert all(tick.frames == tick.modelled == MOST_FRAMES for tick in ticks[:5])
    assert notes.heard[-1].probability == 0


async def test_more_silence_than_is_judged_at_once_waits_for_a_round() -> None:
    ticks: asyncio.Queue[Tick] = asyncio.Queue()
    notes = Notes(AT_ONCE_FRAMES + 1)
    async with running(ticks.put_nowait) as detector, asyncio.timeout(120):
        detector.open_stream(notes.take).push(bytes(FRAME_BYTES) * (AT_ONCE_FRAMES + 1))
        assert notes.heard == []
        await notes.complete.wait()
        assert (await ticks.get()).modelled == 0


@pytest.mark.parametrize("urgent", [True, False])
async def test_an_urgent_frame_begins_a_round_and_takes_those_along_that_wait(urgent: bool) -> None:
    """Without it they wait for each other."""
    order: list[str] = []
    done = asyncio.Event()
    async with running() as detector, asyncio.timeout(120):
        await asyncio.sleep(0)  # it begins to work
        first = detector.open_stream(lambda _: order.append("first"))
        second = detector.open_stream(lambda _: done.set())
        first.gather_ms = LONG_MS if urgent else GATHER_MS
        second.gather_ms = 0 if urgent else GATHER_MS
        for stream in (first, second):
            stream.push(speech()[8 * FRAME_BYTES : 9 * FRAME_BYTES])
        asyncio.get_running_loop().call_soon(order.append, "gathering")
        await done.wait()
    assert order == (["first", "gathering"] if urgent else ["gathering", "first"])


async def test_a_round_begins_when_its_frames_fill_a_model_call() -> None:
    ticks: asyncio.Queue[Tick] = asyncio.Queue()
    order: list[str] = []
    async with running(ticks.put_nowait) as detector, asyncio.timeout(120):
        await asyncio.sleep(0)  # it begins to work
        for _ in range(MOST_STREAMS):
            stream = detector.open_stream(lambda _: order.append("judged"))
            stream.gather_ms = LONG_MS
            stream.push(speech()[8 * FRAME_BYTES : 9 * FRAME_BYTES])
        asyncio.get_running_loop().call_soon(order.append, "gathering")
        assert (await ticks.get()).frames == MOST_STREAMS
    assert order.index("gathering") == MOST_STREAMS


async def test_an_ear_that_left_hears_nothing_and_harms_nobody() -> None:
    gone, there = Notes(1), Notes(20)
    async with running() as detector, asyncio.timeout(120):
        leaver, stayer = detector.open_stream(gone.take), detector.open_stream(there.take)
        leaver.push(speech())
        stayer.push(speech()[: 20 * FRAME_BYTES])
        leaver.close()
        leaver.push(speech())
        await there.complete.wait()
    assert gone.heard == []


async def test_a_callback_that_leaves_hears_no_more() -> None:
    others = Notes(30)
    heard: list[FrameScore] = []
    async with running() as detector, asyncio.timeout(120):

        def leave(once: FrameScore) -> None:
            heard.append(once)
            ear.close()

        ear = detector.open_stream(leave)
        ear.push(speech()[: 30 * FRAME_BYTES])
        detector.open_stream(others.take).push(speech()[: 30 * FRAME_BYTES])
        await others.complete.wait()
    assert len(heard) == 1


async def test_a_callback_that_raises_stops_no_other_ear() -> None:
    faults: list[object] = []
    asyncio.get_running_loop().set_exception_handler(
        lambda _, context: faults.append(context["exception"])
    )
    notes = Notes(5)

    def fail(_: FrameScore) -> None:
        raise ValueError("a bug of one session")

    async with running() as detector, asyncio.timeout(120):
        detector.open_stream(fail).push(speech()[:FRAME_BYTES])
        detector.open_stream(notes.take).push(speech()[: 5 * FRAME_BYTES])
        await notes.complete.wait()
    assert [type(fault) for fault in faults] == [ValueError]


async def test_a_flood_loses_its_oldest_audio_and_keeps_its_time() -> None:
    ticks: asyncio.Queue[Tick] = asyncio.Queue()
    notes = Notes(1)
    detector = VoiceDetector(model(), ticks.put_nowait)
    ear = detector.open_stream(notes.take)
    ear.push(bytes(FRAME_BYTES) * (MAX_PENDING_MS // FRAME_MS + 10))
    assert MAX_PENDING_MS - FRAME_MS < ear.pending_ms <= MAX_PENDING_MS
    async with asyncio.timeout(120), asyncio.TaskGroup() as group:
        work = group.create_task(detector.run())
        tick = await ticks.get()
        work.cancel()
    assert tick.lost_ms == 10 * FRAME_MS
    assert notes.heard[0].audio_ms == 11 * FRAME_MS


async def test_when_there_is_too_much_open_turns_go_first_and_silent_streams_last() -> None:
    """A process that was held up for longer than frames should wait."""
    order: list[str] = []
    frames, silent, answered = 2 * MOST_FRAMES, ROUND_FRAMES, 20
    all_heard = asyncio.Event()

    def note(name: str) -> Callable[[FrameScore], None]:
        def take(_: FrameScore) -> None:
            order.append(name)
            if len(order) == (silent + answered + 1) * frames:
                all_heard.set()

        return take

    async with running() as detector, asyncio.timeout(120):
        for _ in range(silent):
            detector.open_stream(note("silent")).push(speech()[: frames * FRAME_BYTES])
        for _ in range(answered):
            stream = detector.open_stream(note("answered"))
            stream.preferred_until_s = math.inf
            stream.push(speech()[: frames * FRAME_BYTES])
        talker = detector.open_stream(note("open"))
        talker.preferred_until_s = math.inf
        talker.turn_open = True
        talker.push(speech()[: frames * FRAME_BYTES])
        time.sleep(2 * LATE_MS / 1000)  # noqa: ASYNC251 - this is what holds it up
        await all_heard.wait()
    first = ["open", *["answered"] * answered, "silent"]
    rounds = order[::MOST_FRAMES]  # the frames of a stream follow each other
    assert rounds[: answered + 2] == first
    second = rounds.index("open", 1)
    assert LEAST_STREAMS < second - answered <= ROUND_FRAMES, "some of the silent in between"


async def test_however_many_turns_are_open_a_few_of_the_other_streams_are_judged() -> None:
    detector = VoiceDetector(model())
    streams = [detector.open_stream(lambda _: None) for _ in range(ROUND_FRAMES + 100)]
    for number, stream in enumerate(streams):
        stream.push(speech()[:FRAME_BYTES])
        stream.turn_open = number >= 100
        if number >= 50:
            stream.preferred_until_s = math.inf
    chosen = detector._preferred(asyncio.get_running_loop().time())
    answered = streams[50 : 50 + LEAST_STREAMS]
    assert chosen == [*streams[100:], *answered, *streams[:LEAST_STREAMS]], "the oldest first"


async def test_a_stream_that_is_far_behind_catches_up_in_few_passes() -> None:
    """One that was read late has seconds to be judged: not one frame a pass."""
    frames, passes = 90, 0
    notes = Notes(frames)
    async with running() as detector, asyncio.timeout(120):
        stream = detector.open_stream(notes.take)
        stream.push((speech() * 10)[: frames * FRAME_BYTES])
        time.sleep(2 * LATE_MS / 1000)  # noqa: ASYNC251 - this is what holds it up
        while not notes.complete.is_set():
            passes += bool(notes.heard)
            await asyncio.sleep(0)
    assert passes <= 2 * frames * (CALL_FRAMES + 1) / PASS_FRAMES + 2
