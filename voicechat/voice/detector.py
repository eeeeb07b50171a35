"""Voice detection for every session of the process: audio in, probabilities out, all on the event loop."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeAlias

from voicechat.voice.listener import Listener, Scores, Turn, score
from voicechat.voice.silero import FRAME_BYTES, FRAME_MS, MOST_STREAMS, VoiceModel
from voicechat.voice.turn_model import TurnJudge

GATHER_MS = 5
"""How long the first whole frame waits for those of other sessions: sessions share a model call, and a lonely one
loses no more than this. With 10 ms a frame costs a twentieth less at 60 to 200 sessions; answers come 3 ms later."""
MAX_PENDING_MS = 60_000
"""Audio of one ear that may wait. A caller who reads sockets stops reading before (`Ear.pending_ms`)."""
MAX_PENDING_BYTES = MAX_PENDING_MS * FRAME_BYTES // FRAME_MS


@dataclass(frozen=True, slots=True)
class Heard:
    """The probability of speech in the 32 ms that end at ``audio_ms`` of the ear's audio."""

    audio_ms: int
    probability: float


@dataclass(frozen=True, slots=True)
class Tick:
    """One round of work, for metrics. Overload shows as ``lag_ms`` that grows, then as ``lost_ms``."""

    frames: int
    modelled: int
    """Frames that passed the gate and took the model."""
    duration_ms: float
    lag_ms: float
    """How long the frame that waited longest had waited when the round began."""
    lost_ms: int
    """Audio that was thrown away unheard since the last round."""


OnHeard: TypeAlias = Callable[[Heard], None]
OnTick: TypeAlias = Callable[[Tick], None]


class Ear:
    """One session's way in. Made by `VoiceDetector.register`; used on the event loop only."""

    def __init__(self, detector: "VoiceDetector", on_heard: OnHeard) -> None:
        self._detector = detector
        self._on_heard = on_heard
        self._pending = bytearray()
        self._audio_ms = 0
        self._begins_ms = 0
        """What ends at or before this is not reported any more."""
        self._gap = False
        self._closed = False
        self.listener = Listener()

    @property
    def pending_ms(self) -> int:
        """Audio that has been pushed and not been judged yet."""
        return len(self._pending) * FRAME_MS // FRAME_BYTES

    @property
    def has_frame(self) -> bool:
        """Whether a whole frame waits."""
        return len(self._pending) >= FRAME_BYTES and not self._closed

    def push(self, pcm: bytes) -> None:
        """Take audio of any length, s16le mono 16 kHz. Past `MAX_PENDING_MS` the oldest is lost; its time passes."""
        if self._closed:
            return
        self._pending += pcm
        pending_bytes = len(self._pending)
        if pending_bytes > MAX_PENDING_BYTES:
            lost_frames = -(-(self.pending_ms - MAX_PENDING_MS) // FRAME_MS)
            del self._pending[: lost_frames * FRAME_BYTES]
            self._audio_ms += lost_frames * FRAME_MS
            self._gap = True
            self._detector.count_lost(lost_frames * FRAME_MS)
        if pending_bytes >= FRAME_BYTES:
            self._detector.wake(self)

    def note_gap(self, at_ms: int) -> None:
        """Audio is missing: what follows begins at ``at_ms``, and does not continue what came before.

        What has not been judged yet is not judged any more. Times never go back.
        """
        self._pending.clear()
        self._detector.forget(self)
        self._begins_ms = self._audio_ms = at_ms
        self._gap = True

    def close(self) -> None:
        """Leave: nothing is reported any more, not even what is being judged."""
        self._closed = True
        self._pending.clear()
        self._detector.forget(self)
        self._on_heard = lambda _: None  # it would keep whom it told

    def take(self) -> Turn:
        """Give the oldest whole frame up to be judged."""
        frame = bytes(self._pending[:FRAME_BYTES])
        del self._pending[:FRAME_BYTES]
        gap, self._gap = self._gap, False
        self._audio_ms += FRAME_MS
        return Turn(self.listener, frame, gap)

    def report(self, probability: float, audio_ms: int) -> None:
        """Tell the session, unless it has left meanwhile."""
        if not self._closed and audio_ms > self._begins_ms:
            self._on_heard(Heard(audio_ms, probability))

    @property
    def taken_ms(self) -> int:
        """Where the frame that was taken last ends."""
        return self._audio_ms


class VoiceDetector:
    """Judges the frames of all ears together: one model call for one frame of each ear that has one.

    Results come in the order of the audio, on the event loop; an ear's callback that raises reaches the loop's
    exception handler and harms no other ear.
    """

    def __init__(
        self, model: VoiceModel, on_tick: OnTick | None = None, *, turn_judge: TurnJudge | None = None
    ) -> None:
        """``on_tick`` is called on the event loop after each round; ``turn_judge`` is closed with the detector."""
        self.turn_judge = turn_judge
        self._model = model
        self._thread = ThreadPoolExecutor(1, "voice-detection") if model.in_thread else None
        self._on_tick = on_tick
        self._ready: dict[Ear, None] = {}
        self._waiting_since_s = 0.0
        """When the first of them had a whole frame."""
        self._wake = asyncio.Event()
        self._lost_ms = 0

    def register(self, on_heard: OnHeard) -> Ear:
        """Open an ear; ``on_heard`` is called on the event loop for every 32 ms of its audio."""
        return Ear(self, on_heard)

    async def run(self) -> None:
        """Work until cancelled, which drops the results of the frames that are being judged.

        A model that has a thread ends its call there, in a few milliseconds. Raises `ProviderError` when the model
        fails: then no voice can be detected at all.
        """
        try:
            while True:
                await self._wake.wait()
                await asyncio.sleep(GATHER_MS / 1000)
                self._wake.clear()
                # Frames that come during a round gather for the next; only what one round could not take goes on.
                while self._ready and await self._round():
                    pass
        finally:
            if self._thread is not None:
                self._thread.shutdown(wait=False, cancel_futures=True)
            if self.turn_judge is not None:
                self.turn_judge.close()

    def wake(self, ear: Ear) -> None:
        """An ear has a whole frame."""
        if not self._ready:
            self._waiting_since_s = asyncio.get_running_loop().time()
            self._wake.set()
        self._ready[ear] = None

    def forget(self, ear: Ear) -> None:
        """An ear has left."""
        self._ready.pop(ear, None)

    def count_lost(self, lost_ms: int) -> None:
        """An ear's audio was thrown away unheard."""
        self._lost_ms += lost_ms

    async def _round(self) -> bool:
        """Judge one frame of each ear that has one; return whether some have more."""
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        lag_s = began_s - self._waiting_since_s
        ears = list(self._ready)
        turns = [ear.take() for ear in ears]
        heard = [(ear, ear.taken_ms) for ear in ears]
        self._ready = {ear: None for ear in ears if ear.has_frame}
        more = bool(self._ready)
        modelled = 0
        for first in range(0, len(ears), MOST_STREAMS):
            scores = await self._score(turns[first : first + MOST_STREAMS])
            self._report(heard[first : first + MOST_STREAMS], scores.probabilities)
            modelled += scores.modelled
            await asyncio.sleep(0)  # The rest of the process gets its turn.
        if self._on_tick is not None:
            lost_ms, self._lost_ms = self._lost_ms, 0
            duration_ms = (loop.time() - began_s) * 1000
            self._on_tick(Tick(len(heard), modelled, duration_ms, lag_s * 1000, lost_ms))
        return more

    async def _score(self, turns: list[Turn]) -> Scores:
        if self._thread is None:
            return score(self._model, turns)
        return await asyncio.get_running_loop().run_in_executor(self._thread, score, self._model, turns)

    @staticmethod
    def _report(heard: list[tuple[Ear, int]], probabilities: list[float]) -> None:
        for (ear, end_ms), probability in zip(heard, probabilities, strict=True):
            try:
                ear.report(probability, end_ms)
            except Exception as error:  # noqa: BLE001 - a bug of one session harms no other
                loop = asyncio.get_running_loop()
                loop.call_exception_handler({"message": "an ear's callback failed", "exception": error})
