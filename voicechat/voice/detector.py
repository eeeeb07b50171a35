"""Voice detection for all sessions of the process: audio in, probabilities out, all on
the event loop.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple, TypeAlias

from voicechat.voice.listener import Listener, Scores, StreamFrames, score
from voicechat.voice.silero import FRAME_BYTES, FRAME_MS, MOST_FRAMES, MOST_STREAMS, VoiceModel
from voicechat.voice.turn_model import TurnJudge

GATHER_MS = 15
"""How long a frame waits for frames of other sessions, unless they fill a model call
earlier. A stream may set another time (`DetectorStream.gather_ms`). One frame takes 15
us in a call for 4 frames, 10 us for 8, 7.5 us for 24.

No reply is delayed by it: the frames that decide where speech begins and ends do not
wait, and the time between them is counted from the arrival of the audio.
"""
CALL_FRAMES = 8
"""The fixed cost of a model call, in frames."""
PASS_FRAMES = 384
"""The most frames, with `CALL_FRAMES` added for each call, that are judged without a
pause while the detector is behind: at most 5 ms. Otherwise the event loop runs its
other callbacks after each model call.
"""
AT_ONCE_FRAMES = 4
"""Audio of at most 4 frames (128 ms) goes to the gate as it comes, which takes 10 us
per frame.
"""
MAX_PENDING_MS = 60_000
"""The most audio of one stream that may wait. A caller that reads sockets stops reading
earlier (`DetectorStream.pending_ms`).
"""
_MAX_PENDING_BYTES = MAX_PENDING_MS * FRAME_BYTES // FRAME_MS
LATE_MS = 100
"""When a frame has waited this long, there are more frames than can be judged. Then the
streams in which the user's turn is open go first, then those that are being answered,
then the silent ones.
"""
LEAST_STREAMS = 8
"""In that case each round still judges this many streams of each lower rank, in turn,
or more if there is time. Their audio is kept: their turns begin later, which costs less
than a delay of every turn.
"""
ROUND_FRAMES = PASS_FRAMES // 2
"""Streams of lower rank fill a round up to this many frames."""


class FrameScore(NamedTuple):
    """The probability of speech in the 32 ms that end at ``audio_ms`` of the stream."""

    audio_ms: int
    probability: float


class Tick(NamedTuple):
    """One round of work, for metrics. Overload first increases ``lag_ms``, then
    ``lost_ms``.
    """

    frames: int
    modelled: int
    """Frames that passed the gate and were judged by the model."""
    duration_ms: float
    lag_ms: float
    """The longest time that a frame had waited when the round began."""
    lost_ms: int
    """Audio that was dropped without a judgement since the last round."""


OnScore: TypeAlias = Callable[[FrameScore], None]
OnTick: TypeAlias = Callable[[Tick], None]
Step: TypeAlias = Callable[[], "Step | None"]
"""A part of a round with one model call at most. It returns the next part that is due
now.
"""


class DetectorStream:
    """The stream of one session. Created by `VoiceDetector.open_stream`; used on the
    event loop only.
    """

    __slots__ = (
        "_admitted",
        "_audio_ms",
        "_begins_ms",
        "_busy",
        "_closed",
        "_detector",
        "_gap",
        "_listener",
        "_on_score",
        "_pending",
        "gather_ms",
        "loop",
        "preferred_until_s",
        "turn_open",
    )

    def __init__(self, detector: "VoiceDetector", on_score: OnScore) -> None:
        self.loop = asyncio.get_running_loop()
        self._detector = detector
        self._on_score = on_score
        self._pending = bytearray()
        self._audio_ms = 0
        self._begins_ms = 0
        """Frames that end at or before this time are not reported any more."""
        self._gap = False
        self._closed = False
        self._listener = Listener()
        self._admitted: bytes | None = None
        """The frame that waits for the model because its gate is open."""
        self._busy = False
        """Whether frames of the stream wait or are being judged: then new frames wait,
        too.
        """
        self.preferred_until_s = 0.0
        """Until this time of the loop's clock a turn is in progress: the frames go
        before those of silent streams when there are more than can be judged.
        """
        self.gather_ms = GATHER_MS
        """How long the next frame may wait for frames of other streams. 0: other parts
        wait for what it decides.
        """
        self.turn_open = False
        """Whether the end of the user's turn is awaited: then the frames go before all
        others when there are more than can be judged.
        """

    @property
    def pending_ms(self) -> int:
        """Milliseconds of audio that were pushed and are not judged yet."""
        waiting_ms = len(self._pending) * FRAME_MS // FRAME_BYTES
        return waiting_ms if self._admitted is None else waiting_ms + FRAME_MS

    def push(self, pcm: bytes) -> None:
        """Take audio of any length, s16le mono 16 kHz. Beyond `MAX_PENDING_MS` the
        oldest audio is dropped; times still advance by its length.

        A frame at which the gate is closed, and before which none waits, is reported
        within this call: most frames are silence and need no round. Audio of more than
        ``AT_ONCE_FRAMES`` waits for a round, so that no call takes long.
        """
        if self._closed:
            return
        self._pending += pcm
        pending_bytes = len(self._pending)
        if pending_bytes < FRAME_BYTES:
            return
        if not self._busy and pending_bytes < (AT_ONCE_FRAMES + 1) * FRAME_BYTES:
            # The callback may clear the pending audio, so its length is read each time.
            # The frame is cut inline, as ``take_frame`` does, because this runs for
            # each frame of each microphone.
            while len(self._pending) >= FRAME_BYTES:
                frame = bytes(self._pending[:FRAME_BYTES])
                del self._pending[:FRAME_BYTES]
                self._audio_ms += FRAME_MS
                gap, self._gap = self._gap, False
                if self._listener.admits(frame, after_gap=gap):
                    self._admitted = frame
                    self._busy = True
                    self._detector.wake(self)
                    return
                self._tell(0.0, self._audio_ms)
            return
        if pending_bytes > _MAX_PENDING_BYTES:
            lost_frames = -(-(self.pending_ms - MAX_PENDING_MS) // FRAME_MS)
            del self._pending[: lost_frames * FRAME_BYTES]
            self._audio_ms += lost_frames * FRAME_MS
            self._gap = True
            self._detector.count_lost(lost_frames * FRAME_MS)
        self._busy = True
        self._detector.wake(self)

    def note_gap(self, at_ms: int) -> None:
        """Audio is missing: the audio that follows begins at ``at_ms`` and does not
        continue the earlier audio.

        Audio that is not judged yet is dropped. Times never decrease.
        """
        self._pending.clear()
        self._admitted = None
        self._detector.forget(self)
        self._begins_ms = self._audio_ms = at_ms
        self._gap = True

    def close(self) -> None:
        """Close the stream: nothing more is reported, not even a frame that is being
        judged.
        """
        self._closed = True
        self._pending.clear()
        self._admitted = None
        self._detector.forget(self)
        self._on_score = lambda _: None  # the callback would keep its session alive

    def take_frames(self) -> tuple[StreamFrames, int]:
        """Remove the oldest whole frames, at most `MOST_FRAMES`, and return them with
        the time at which the last of them ends.
        """
        self._busy = True
        frames: list[bytes] = []
        admitted, self._admitted = self._admitted, None
        if admitted is not None:
            frames.append(admitted)
        while len(frames) < MOST_FRAMES and len(self._pending) >= FRAME_BYTES:
            frames.append(bytes(self._pending[:FRAME_BYTES]))
            del self._pending[:FRAME_BYTES]
            self._audio_ms += FRAME_MS
        gap, self._gap = self._gap, False
        taken = StreamFrames(self._listener, tuple(frames), gap, admitted is not None)
        return taken, self._audio_ms

    @property
    def has_frame(self) -> bool:
        """Whether another whole frame waits."""
        return len(self._pending) >= FRAME_BYTES

    def report(self, probabilities: list[float], end_ms: int) -> None:
        """Report the results of the frames that ``take_frames`` returned. The last of
        them ends at ``end_ms``.
        """
        # Until the last result is reported, new audio must wait.
        audio_ms = end_ms - FRAME_MS * len(probabilities)
        for probability in probabilities:
            audio_ms += FRAME_MS
            if audio_ms == end_ms:
                self._busy = self.has_frame
            self._tell(probability, audio_ms)

    def _tell(self, probability: float, audio_ms: int) -> None:
        """Call the session's callback, unless the stream is closed."""
        if self._closed or audio_ms <= self._begins_ms:
            return
        try:
            self._on_score(FrameScore(audio_ms, probability))
        except Exception as error:  # noqa: BLE001 - a bug of one session harms no other
            context = {"message": "a stream's callback failed", "exception": error}
            self.loop.call_exception_handler(context)


class VoiceDetector:
    """Judges the frames of all streams together: a model call takes the next frames, at
    most `MOST_FRAMES`, of each stream that has any.

    Results come in the order of the audio, on the event loop. An exception in a
    stream's callback goes to the loop's exception handler and affects no other stream.
    """

    def __init__(
        self,
        model: VoiceModel,
        on_tick: OnTick | None = None,
        *,
        turn_judge: TurnJudge | None = None,
        background_db: float = 0.0,
    ) -> None:
        """``on_tick`` is called on the event loop after each round; ``turn_judge`` is
        closed with the detector. ``background_db`` is for the detector's users: a voice
        that is this much quieter than the user's counts as background; 0: no voice
        does.
        """
        self.turn_judge = turn_judge
        self.background_db = background_db
        self._model = model
        self._thread = ThreadPoolExecutor(1, "voice-detection") if model.in_thread else None
        self._on_tick = on_tick
        self._ready: dict[DetectorStream, float] = {}
        """The streams that have a whole frame, and since when."""
        self._loop: asyncio.AbstractEventLoop | None = None
        """The loop, while ``run`` runs."""
        self._failed: asyncio.Future[None] | None = None
        self._next: asyncio.Handle | None = None
        """The next round, or the next part of the current one."""
        self._next_s = 0.0
        """Loop time at which the next round begins."""
        self._round: _Round | None = None
        self._behind = False
        """Whether a frame of the newest round had waited for ``LATE_MS``, or more than
        one frame of a stream waits.
        """
        self._pass_frames = 0
        """Frames that were judged without a pause; see ``PASS_FRAMES``."""
        self._lost_ms = 0

    def open_stream(self, on_score: OnScore) -> DetectorStream:
        """Open a stream; ``on_score`` is called on the event loop for every 32 ms of
        its audio.
        """
        return DetectorStream(self, on_score)

    async def run(self) -> None:
        """Judge frames until cancelled; cancelling drops the results of the frames in
        progress.

        A call of the model in a thread ends there, within a few milliseconds. Raises
        `ProviderError` when the model fails: then no voice can be detected at all.
        """
        self._loop = asyncio.get_running_loop()
        self._failed = self._loop.create_future()
        self._begin_next()
        try:
            await self._failed
        finally:
            self._loop = self._round = None
            if self._next is not None:
                self._next.cancel()
            if self._thread is not None:
                self._thread.shutdown(wait=False, cancel_futures=True)
            if self.turn_judge is not None:
                self.turn_judge.close()

    def wake(self, stream: DetectorStream) -> None:
        """Note that a stream has a whole frame."""
        if stream in self._ready:
            return
        now_s = stream.loop.time()
        # Time that the stream grants beyond the usual is no lag.
        self._ready[stream] = now_s + max(0, stream.gather_ms - GATHER_MS) / 1000
        if self._round is None:
            full = len(self._ready) >= MOST_STREAMS
            self._gather(now_s, 0 if full else stream.gather_ms)

    def forget(self, stream: DetectorStream) -> None:
        """Drop the waiting frame of a stream."""
        self._ready.pop(stream, None)

    def count_lost(self, lost_ms: int) -> None:
        """Count audio of a stream that was dropped without a judgement."""
        self._lost_ms += lost_ms

    def _gather(self, now_s: float, wait_ms: int) -> None:
        """Begin a round within ``wait_ms``, with the frames that arrive until then."""
        begin_s = now_s + wait_ms / 1000
        if self._loop is None or (self._next is not None and self._next_s <= begin_s):
            return
        if self._next is not None:
            self._next.cancel()
        self._next_s = begin_s
        if wait_ms:
            self._next = self._loop.call_at(begin_s, self._take_steps, self._begin_round)
        else:
            self._next = self._loop.call_soon(self._take_steps, self._begin_round)

    def _take_steps(self, step: Step) -> None:
        """Take one step, or, while behind, as many steps as ``PASS_FRAMES`` allows. The
        rest follows after the other callbacks of the event loop.
        """
        self._next = None
        self._pass_frames = 0
        following = step()
        while following is not None and self._behind and self._pass_frames < PASS_FRAMES:
            following = following()
        if following is not None and self._loop is not None:
            self._next = self._loop.call_soon(self._take_steps, following)

    def _begin_round(self) -> Step | None:
        assert self._loop is not None
        if not self._ready:  # every stream with a frame has closed
            return None
        began_s = self._loop.time()
        lag_s = began_s - min(self._ready.values())
        late = lag_s >= LATE_MS / 1000
        streams = self._preferred(began_s) if late else list(self._ready)
        self._round = _Round(streams, began_s, lag_s)
        for stream in streams:
            since_s = self._ready.pop(stream)
            if stream.has_frame:  # it came one frame after the other
                self._ready[stream] = min(since_s + MOST_FRAMES * FRAME_MS / 1000, began_s)
                self._round.goes_on = True
        self._behind = late or self._round.goes_on
        return self._judge(self._round, 0)

    def _preferred(self, now_s: float) -> list[DetectorStream]:
        """Return the streams of a round when not all can be judged: those with an open
        turn, then those with a turn in progress, then the silent ones, as many as there
        is time for.

        At least a few of each kind are included, those that have waited longest.
        """
        turn_open: list[DetectorStream] = []
        under_way: list[DetectorStream] = []
        silent: list[DetectorStream] = []
        for stream in self._ready:
            if stream.turn_open:
                turn_open.append(stream)
            elif stream.preferred_until_s > now_s:
                under_way.append(stream)
            else:
                silent.append(stream)
        chosen = turn_open
        for others in (under_way, silent):
            chosen += others[: max(LEAST_STREAMS, ROUND_FRAMES - len(chosen))]
        return chosen

    def _judge(self, work: "_Round", first: int) -> Step | None:
        """Judge the next streams of a round, as many as one model call takes."""
        assert self._loop is not None
        frames = work.frames[first : first + MOST_STREAMS]
        self._pass_frames += CALL_FRAMES + sum(len(taken.frames) for taken in frames)
        if self._thread is not None:
            judged = self._loop.run_in_executor(self._thread, score, self._model, frames)
            judged.add_done_callback(partial(self._on_judged, work, first))
            return None
        try:
            scores = score(self._model, frames)
        except Exception as error:  # noqa: BLE001 - whatever it is, there is no detection without the model
            self._fail(error)
            return None
        return self._report(work, first, scores)

    def _on_judged(self, work: "_Round", first: int, judged: asyncio.Future[Scores]) -> None:
        if self._loop is None or judged.cancelled():
            return
        error = judged.exception()
        if error is not None:
            self._fail(error)
        else:
            self._take_steps(partial(self._report, work, first, judged.result()))

    def _fail(self, error: BaseException) -> None:
        if self._failed is not None and not self._failed.done():
            self._failed.set_exception(error)

    def _report(self, work: "_Round", first: int, scores: Scores) -> Step | None:
        """Report the results to the sessions, and return the rest of the round."""
        assert self._loop is not None
        work.modelled += scores.modelled
        for number, probabilities in enumerate(scores.probabilities, first):
            work.streams[number].report(probabilities, work.ends_ms[number])
        first += MOST_STREAMS
        if first < len(work.frames):
            return partial(self._judge, work, first)
        return self._end_round(work)

    def _end_round(self, work: "_Round") -> Step | None:
        assert self._loop is not None
        self._round = None
        if self._on_tick is not None:
            lost_ms, self._lost_ms = self._lost_ms, 0
            duration_ms = (self._loop.time() - work.began_s) * 1000
            frames = sum(len(taken.frames) for taken in work.frames)
            self._on_tick(Tick(frames, work.modelled, duration_ms, work.lag_s * 1000, lost_ms))
        # Frames that came during the round wait for the next round. Frames that this
        # round could not take begin the next one at once.
        if work.goes_on:
            return self._begin_round
        self._begin_next()
        return None

    def _begin_next(self) -> None:
        """Begin the next round when the first of the waiting frames may wait no
        longer.
        """
        if self._ready and self._loop is not None:
            full = len(self._ready) >= MOST_STREAMS
            wait_ms = 0 if full else min(stream.gather_ms for stream in self._ready)
            self._gather(self._loop.time(), wait_ms)


class _Round:
    """The next frames of each stream that has one."""

    __slots__ = ("began_s", "ends_ms", "frames", "goes_on", "lag_s", "modelled", "streams")

    def __init__(self, streams: list[DetectorStream], began_s: float, lag_s: float) -> None:
        self.streams = streams
        self.began_s = began_s
        self.lag_s = lag_s
        self.modelled = 0
        self.goes_on = False
        """Whether some of the streams have more frames."""
        self.frames: list[StreamFrames] = []
        """By stream."""
        self.ends_ms: list[int] = []
        """The time at which the last frame of each stream ends."""
        for stream in streams:
            taken, end_ms = stream.take_frames()
            self.frames.append(taken)
            self.ends_ms.append(end_ms)
