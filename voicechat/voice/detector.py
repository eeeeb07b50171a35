"""Voice detection for every session of the process: audio in, probabilities out, all on
the event loop.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple, TypeAlias

from voicechat.voice.listener import Listener, Scores, StreamFrame, score
from voicechat.voice.silero import FRAME_BYTES, FRAME_MS, MOST_STREAMS, VoiceModel
from voicechat.voice.turn_model import TurnJudge

GATHER_MS = 15
"""How long the first frame waits for those of other sessions, unless so many come that
they fill a model call, or one of them is urgent (`DetectorStream.urgent`). A row of a
call for 4 streams takes 27 us, for 9 20 us, for 20 12 us; with 120 open microphones
15 ms gather about 25.

No reply comes later for it: the frames that decide where speech begins and ends are
urgent, and the time in between is counted from when the audio came.
"""
CALL_FRAMES = 8
"""A model call costs as much time as 8 of its frames, which take 12 us each."""
PASS_FRAMES = 384
"""Frames, those for the calls included, that are judged in one go while behind: at most
5 ms. Otherwise one model call is made before the rest of the process has its
turn.
"""
AT_ONCE_FRAMES = 4
"""Audio of at most 4 frames (128 ms) is shown to the gate as it comes, which takes
10 us for each frame.
"""
MAX_PENDING_MS = 60_000
"""Audio of one stream that may wait. A caller who reads sockets stops reading before
(`DetectorStream.pending_ms`)."""
_MAX_PENDING_BYTES = MAX_PENDING_MS * FRAME_BYTES // FRAME_MS
LATE_MS = 100
"""When a frame has waited for this long, there is more to judge than can be. Streams
whose user's turn is open then go first, then those that are being answered, then those
that have been silent.
"""
LEAST_STREAMS = 8
"""So many of the streams of each lower rank are judged in each round then, in turn, or
more if there is time for them. Their audio is kept: their turns begin later, which
costs less than that everybody's turn is late.
"""
ROUND_FRAMES = PASS_FRAMES // 2
"""Up to so many frames a round is filled with streams of lower rank."""


class FrameScore(NamedTuple):
    """The probability of speech in the 32 ms that end at ``audio_ms`` of the stream's
    audio.
    """

    audio_ms: int
    probability: float


class Tick(NamedTuple):
    """One round of work, for metrics. Overload shows as ``lag_ms`` that grows, then as
    ``lost_ms``.
    """

    frames: int
    modelled: int
    """Frames that passed the gate and took the model."""
    duration_ms: float
    lag_ms: float
    """How long the frame that waited longest had waited when the round began."""
    lost_ms: int
    """Audio that was thrown away unheard since the last round."""


OnScore: TypeAlias = Callable[[FrameScore], None]
OnTick: TypeAlias = Callable[[Tick], None]
Step: TypeAlias = Callable[[], "Step | None"]
"""A part of a round, one model call at most; it returns the next one that is due now.
"""


class DetectorStream:
    """One session's way in. Made by `VoiceDetector.open_stream`; used on the event loop
    only.
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
        "loop",
        "preferred_until_s",
        "turn_open",
        "urgent",
    )

    def __init__(self, detector: "VoiceDetector", on_score: OnScore) -> None:
        self.loop = asyncio.get_running_loop()
        self._detector = detector
        self._on_score = on_score
        self._pending = bytearray()
        self._audio_ms = 0
        self._begins_ms = 0
        """What ends at or before this is not reported any more."""
        self._gap = False
        self._closed = False
        self._listener = Listener()
        self._admitted: tuple[StreamFrame, int] | None = None
        """A frame, and where it ends, that waits for the model: its gate is open."""
        self._busy = False
        """Frames of it wait, or one is being judged: those that come now wait too."""
        self.preferred_until_s = 0.0
        """Until then, by the loop's clock, a turn is under way: the frames go before
        those of silent streams when there are more than can be judged.
        """
        self.urgent = False
        """Its next frame decides something that others wait for: it begins a round."""
        self.turn_open = False
        """The end of the user's turn is awaited: its frames go before all others when
        there are more than can be judged.
        """

    @property
    def pending_ms(self) -> int:
        """Audio that has been pushed and not been judged yet."""
        waiting_ms = len(self._pending) * FRAME_MS // FRAME_BYTES
        return waiting_ms if self._admitted is None else waiting_ms + FRAME_MS

    def push(self, pcm: bytes) -> None:
        """Take audio of any length, s16le mono 16 kHz. Past `MAX_PENDING_MS` the oldest
        is lost; its time passes.

        A frame at which the gate is closed, and before which none waits, is reported
        within this call: most frames are of silence, and need no round. Audio of more
        than ``AT_ONCE_FRAMES`` waits for a round, so that no call takes long.
        """
        if self._closed:
            return
        self._pending += pcm
        pending_bytes = len(self._pending)
        if pending_bytes < FRAME_BYTES:
            return
        if not self._busy and pending_bytes < (AT_ONCE_FRAMES + 1) * FRAME_BYTES:
            # What is told may clear what waits: its length is asked each time. The
            # frame is cut as in ``take_frame``, without a call: this is done for each
            # frame of each microphone.
            while len(self._pending) >= FRAME_BYTES:
                frame = bytes(self._pending[:FRAME_BYTES])
                del self._pending[:FRAME_BYTES]
                self._audio_ms += FRAME_MS
                gap, self._gap = self._gap, False
                if self._listener.admits(frame, after_gap=gap):
                    admitted = StreamFrame(self._listener, frame, admitted=True)
                    self._admitted = (admitted, self._audio_ms)
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
        """Audio is missing: what follows begins at ``at_ms``, and does not continue
        what came before.

        What has not been judged yet is not judged any more. Times never go back.
        """
        self._pending.clear()
        self._admitted = None
        self._detector.forget(self)
        self._begins_ms = self._audio_ms = at_ms
        self._gap = True

    def close(self) -> None:
        """Leave: nothing is reported any more, not even what is being judged."""
        self._closed = True
        self._pending.clear()
        self._admitted = None
        self._detector.forget(self)
        self._on_score = lambda _: None  # it would keep whom it told

    def take_frame(self) -> tuple[StreamFrame, int]:
        """Give the oldest whole frame up to be judged, and the time at which it
        ends.
        """
        self._busy = True
        if self._admitted is not None:
            admitted, self._admitted = self._admitted, None
            return admitted
        frame = bytes(self._pending[:FRAME_BYTES])
        del self._pending[:FRAME_BYTES]
        self._audio_ms += FRAME_MS
        gap, self._gap = self._gap, False
        return StreamFrame(self._listener, frame, gap), self._audio_ms

    @property
    def has_frame(self) -> bool:
        """Whether another whole frame waits."""
        return len(self._pending) >= FRAME_BYTES

    def report(self, probability: float, audio_ms: int) -> None:
        """A frame that ``take_frame`` gave has been judged: tell the session."""
        self._busy = self.has_frame
        self._tell(probability, audio_ms)

    def _tell(self, probability: float, audio_ms: int) -> None:
        """Tell the session, unless it has left meanwhile."""
        if self._closed or audio_ms <= self._begins_ms:
            return
        try:
            self._on_score(FrameScore(audio_ms, probability))
        except Exception as error:  # noqa: BLE001 - a bug of one session harms no other
            context = {"message": "a stream's callback failed", "exception": error}
            self.loop.call_exception_handler(context)


class VoiceDetector:
    """Judges the frames of all streams together: one model call for one frame of each
    stream that has one.

    Results come in the order of the audio, on the event loop; a stream's callback that
    raises reaches the loop's exception handler and harms no other stream.
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
        closed with the detector. ``background_db``: so much fainter than the user's is
        a voice in the background, for who uses the detector; 0: none is.
        """
        self.turn_judge = turn_judge
        self.background_db = background_db
        self._model = model
        self._thread = ThreadPoolExecutor(1, "voice-detection") if model.in_thread else None
        self._on_tick = on_tick
        self._ready: dict[DetectorStream, float] = {}
        """Streams that have a whole frame, and since when."""
        self._loop: asyncio.AbstractEventLoop | None = None
        """While it works."""
        self._failed: asyncio.Future[None] | None = None
        self._next: asyncio.Handle | None = None
        """The next round, or the next part of this one."""
        self._round: _Round | None = None
        self._behind = False
        """A frame of the newest round had waited for ``LATE_MS``, or more than one
        frame of a stream waits.
        """
        self._pass_frames = 0
        """What has been judged in this go; see ``PASS_FRAMES``."""
        self._lost_ms = 0

    def open_stream(self, on_score: OnScore) -> DetectorStream:
        """Open a stream; ``on_score`` is called on the event loop for every 32 ms of
        its audio.
        """
        return DetectorStream(self, on_score)

    async def run(self) -> None:
        """Work until cancelled, which drops the results of the frames that are being
        judged.

        A model that has a thread ends its call there, in a few milliseconds. Raises
        `ProviderError` when the model fails: then no voice can be detected at all.
        """
        self._loop = asyncio.get_running_loop()
        self._failed = self._loop.create_future()
        if self._ready:
            self._gather()
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
        """A stream has a whole frame."""
        if stream in self._ready:
            return
        self._ready[stream] = stream.loop.time()
        if self._round is None:
            at_once = stream.urgent or len(self._ready) >= MOST_STREAMS
            if at_once or self._next is None:
                self._gather(at_once=at_once)

    def forget(self, stream: DetectorStream) -> None:
        """A stream has left."""
        self._ready.pop(stream, None)

    def count_lost(self, lost_ms: int) -> None:
        """A stream's audio was thrown away unheard."""
        self._lost_ms += lost_ms

    def _gather(self, *, at_once: bool = False) -> None:
        """Begin a round soon, with the frames that come until then."""
        if self._loop is None:
            return
        if self._next is not None:
            self._next.cancel()
        if at_once:
            self._next = self._loop.call_soon(self._take_steps, self._begin_round)
        else:
            self._next = self._loop.call_later(
                GATHER_MS / 1000, self._take_steps, self._begin_round
            )

    def _take_steps(self, step: Step) -> None:
        """Take one step; while behind as many as ``PASS_FRAMES`` allows. The rest
        follows after the rest of the process has had its turn.
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
        if not self._ready:  # whoever had a frame has left
            return None
        began_s = self._loop.time()
        lag_s = began_s - min(self._ready.values())
        late = lag_s >= LATE_MS / 1000
        streams = self._preferred(began_s) if late else list(self._ready)
        self._round = _Round(streams, began_s, lag_s)
        for stream in streams:
            since_s = self._ready.pop(stream)
            if stream.has_frame:  # it came a frame's length after the one before it
                self._ready[stream] = min(since_s + FRAME_MS / 1000, began_s)
                self._round.goes_on = True
        self._behind = late or self._round.goes_on
        return self._judge(self._round, 0)

    def _preferred(self, now_s: float) -> list[DetectorStream]:
        """The streams of a round when not all can be judged: those of open turns, then
        those with a turn under way, then the silent ones, as many as there is time for.

        A few of each kind are judged at least, those that have waited longest.
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
        """Judge the next frames of a round, as many as one model call takes."""
        assert self._loop is not None
        frames = work.frames[first : first + MOST_STREAMS]
        self._pass_frames += CALL_FRAMES + len(frames)
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
        """Tell the sessions; the rest of the round follows."""
        assert self._loop is not None
        work.modelled += scores.modelled
        for number, probability in enumerate(scores.probabilities, first):
            work.streams[number].report(probability, work.ends_ms[number])
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
            self._on_tick(
                Tick(len(work.frames), work.modelled, duration_ms, work.lag_s * 1000, lost_ms)
            )
        # Frames that came during the round gather for the next; what one round could
        # not take goes on at once.
        if work.goes_on:
            return self._begin_round
        if self._ready:
            full = len(self._ready) >= MOST_STREAMS
            self._gather(at_once=full or any(stream.urgent for stream in self._ready))
        return None


class _Round:
    """One frame of each stream that has one."""

    __slots__ = ("began_s", "ends_ms", "frames", "goes_on", "lag_s", "modelled", "streams")

    def __init__(self, streams: list[DetectorStream], began_s: float, lag_s: float) -> None:
        self.streams = streams
        self.began_s = began_s
        self.lag_s = lag_s
        self.modelled = 0
        self.goes_on = False
        """Some of the streams have more frames."""
        self.frames: list[StreamFrame] = []
        self.ends_ms: list[int] = []
        """Where each of the frames ends."""
        for stream in streams:
            frame, end_ms = stream.take_frame()
            self.frames.append(frame)
            self.ends_ms.append(end_ms)
