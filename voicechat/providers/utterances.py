"""Dictation for recognisers that know only whole utterances: cut at pauses, and asked
again while one goes on.

While somebody speaks, the utterance so far is recognised from its beginning every
second or so, and what two passes agree on is shown (`LocalAgreement`). When the voice has
stopped for a moment it is recognised as if it were complete; if nothing more is said,
that is the final result, and it is there as soon as the pause is long enough.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from voicechat.audio.pause_detection import PAUSE_MS
from voicechat.errors import FailureKind, ProviderError
from voicechat.providers.interfaces import PCM_RATE_HZ
from voicechat.providers.local_agreement import LocalAgreement
from voicechat.providers.timed_words import text_of
from voicechat.providers.utterance_segmentation import SpeechSegment, UtteranceSegmenter
from voicechat.session.vocabulary import Transcript, Word

Decode: TypeAlias = Callable[[bytes, bool], Awaitable[Sequence[Word]]]
"""Recognises one utterance (s16le mono 16 kHz): words with times from its beginning,
none when nothing was understood.

The flag says that the utterance is complete, as far as can be known: the result may
become final. A call is cancelled as soon as its result is not wanted any more. There is
one at a time for each stream. Raises `ProviderError`.
"""

PARTIAL_EVERY_MS = 1_000
MAX_UTTERANCE_MS = 28_000
"""Speech without a pause is cut here: Whisper and its like hear 30 seconds at once."""
SLOWING = 8
"""A partial pass waits for new audio of an eighth of the utterance at least, so that
all of them together hear no more than nine times the audio (a geometric series),
however long it is.
"""
EARLY_QUIET_MS = 200
"""Silence after which an utterance may be complete; longer than the stop of a consonant
(below 150 ms).
"""
EARLY_PASSES = 4
"""Of one utterance: so many times its speaker may hesitate; then the pause is waited
for.
"""
WAITING_UTTERANCES = 3
"""The one that is being recognised, one behind it and the one that goes on: more audio
has to wait.
"""

_PIECE_BYTES = PCM_RATE_HZ // 5 * 2
"""200 ms: listened to at a stretch, less than 0.2 ms on the event loop (0.5 where an
utterance is cut).
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """When utterances end and how often they are looked at."""

    pause_ms: int = PAUSE_MS
    """Silence that ends an utterance."""
    partial_every_ms: int = PARTIAL_EVERY_MS
    """New audio after which an utterance is recognised again; 0: only when it is
    complete.
    """
    max_utterance_ms: int = MAX_UTTERANCE_MS


async def recognize_utterances(
    audio: AsyncIterator[bytes], decode: Decode, schedule: Schedule | None = None
) -> AsyncGenerator[Transcript, None]:
    """Recognise a stream of s16le mono 16 kHz audio; see
    ``SpeechRecognizer.recognize``.

    A partial text is always the beginning of the next one; the final one may differ
    from it. Raises what ``decode`` and ``audio`` raise, but a pass before the last that
    is refused for its rate (RATE_LIMIT) is only tried again later. Cancelling cancels
    ``decode``. Holds no more than `WAITING_UTTERANCES`.
    """
    schedule = schedule or Schedule()
    stream = _AudioSegments(schedule)
    # A TaskGroup may not be held over a yield (PEP 789); this task ends with the
    # generator, below.
    listening = asyncio.get_running_loop().create_task(stream.listen(audio))
    try:
        while (utterance := await stream.utterance()) is not None:
            passes = _Passes(stream, utterance, decode, schedule)
            while await passes.make_next():
                if (partial := passes.news()) is not None:
                    yield partial
            if not await stream.completed(utterance):
                break  # the audio failed: what listens raises it
            if (final := await passes.final()) is not None:
                yield final
            stream.drop(utterance)
        await listening
    finally:
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)


class _Passes:
    """The passes over one utterance."""

    def __init__(
        self, stream: "_AudioSegments", utterance: SpeechSegment, decode: Decode, schedule: Schedule
    ) -> None:
        self._stream = stream
        self._utterance = utterance
        self._decode = decode
        self._every_ms = schedule.partial_every_ms
        self._due_ms = schedule.partial_every_ms
        self._early_left = EARLY_PASSES
        self._early_ms = 0
        """How much audio the last pass that might have been the final one was given."""
        self._early: Sequence[Word] | None = None
        self._agreement = LocalAgreement()
        self._agreed: Sequence[Word] = ()
        self._shown = 0
        self._began_s = asyncio.get_running_loop().time()
        self._began_ms = utterance.heard_ms

    async def make_next(self) -> bool:
        """Wait for a reason to look at the utterance, and do; False when it, or the
        audio, ends before.
        """
        if not self._every_ms or not await self._stream.wait_until(self._utterance, self._wait_s):
            return False
        heard_ms = self._utterance.heard_ms
        early = self._may_be_complete
        if early:
            self._early_left -= 1
            self._early, self._early_ms = None, heard_ms
        self._due_ms = heard_ms + max(self._every_ms, heard_ms // SLOWING)
        try:
            words = await self._stream.unless_outdated(self._decode, self._utterance, early)
        except ProviderError as error:
            if error.kind is not FailureKind.RATE_LIMIT:
                raise
            self._every_ms *= 2  # a partial result is a courtesy, and not worth the stream
            return True
        if words is not None:
            self._agreed = self._agreement.push_pass(words)
            if early:
                self._early = words
        return True

    def news(self) -> Transcript | None:
        """Give what may be shown, if it is more than before."""
        if len(self._agreed) == self._shown:
            return None
        self._shown = len(self._agreed)
        return _transcript(self._utterance, self._agreed)

    async def final(self) -> Transcript | None:
        """Give the result of the closed utterance; None when nothing was understood.

        An utterance that was shown is also closed, even if the last pass understands
        nothing any more.
        """
        utterance, words = self._utterance, self._early
        # A cut may have taken off what an early pass has heard.
        if words is None or not utterance.voiced_ms <= self._early_ms <= utterance.heard_ms:
            words = await self._decode(bytes(utterance.pcm), True)
        best = _transcript(utterance, words) or _transcript(utterance, self._agreed[: self._shown])
        if best is None:
            return None
        fixed = tuple(replace(word, fixed=True) for word in best.words)
        return replace(best, words=fixed, end_ms=fixed[-1].end_ms)

    @property
    def _may_be_complete(self) -> bool:
        voiced_ms = self._utterance.voiced_ms
        quiet = self._utterance.heard_ms - voiced_ms >= EARLY_QUIET_MS
        return quiet and voiced_ms > self._early_ms and self._early_left > 0

    def _wait_s(self) -> float | None:
        """How long to wait for the next pass; None: for more audio.

        Nobody wants partial results of a recording that comes more than twice as fast
        as it was spoken.
        """
        if self._utterance.heard_ms < self._due_ms and not self._may_be_complete:
            return None
        grown_ms = self._utterance.heard_ms - self._began_ms
        return max(0.0, self._began_s + grown_ms / 2000 - asyncio.get_running_loop().time())


def _transcript(utterance: SpeechSegment, words: Sequence[Word]) -> Transcript | None:
    """Move words to the stream's time, within the utterance; None without words."""
    placed: list[Word] = []
    floor_ms, end_ms = utterance.begin_ms, utterance.begin_ms + utterance.heard_ms
    for word in words:
        begin_ms = min(max(word.begin_ms + utterance.begin_ms, floor_ms), end_ms)
        floor_ms = min(max(word.end_ms + utterance.begin_ms, begin_ms), end_ms)
        placed.append(replace(word, begin_ms=begin_ms, end_ms=floor_ms))
    return Transcript(text_of(placed), placed[0].begin_ms, None, tuple(placed)) if placed else None


class _AudioSegments:
    """What the listening task and the recognising one share."""

    def __init__(self, schedule: Schedule) -> None:
        self._cutter = UtteranceSegmenter(schedule.pause_ms, schedule.max_utterance_ms)
        self._over = False
        self._heard = asyncio.Event()
        self._room = asyncio.Event()
        self._pass: asyncio.Task[Sequence[Word]] | None = None
        self._outdated: Callable[[], bool] = lambda: False

    async def listen(self, audio: AsyncIterator[bytes]) -> None:
        """Cut the audio into utterances, as long as there is room for them."""
        try:
            async for pcm in audio:
                for start in range(0, len(pcm), _PIECE_BYTES):
                    while len(self._cutter.waiting) >= WAITING_UTTERANCES:
                        self._room.clear()
                        await self._room.wait()
                    self._cutter.push_audio(pcm[start : start + _PIECE_BYTES])
                    self._tell()
                    await asyncio.sleep(
                        0
                    )  # audio that is there at once must not keep others waiting
            self._cutter.finish_audio()
        finally:
            self._over = True
            self._tell()

    async def utterance(self) -> SpeechSegment | None:
        """Wait for the next utterance to begin; None when there is no more audio."""
        while not self._cutter.waiting:
            if self._over:
                return None
            await self._more(None)
        return self._cutter.waiting[0]

    async def wait_until(
        self, utterance: SpeechSegment, wait_s: Callable[[], float | None]
    ) -> bool:
        """Wait until ``wait_s``, asked again whenever more is heard, is 0; False when
        the utterance, or all, ends.
        """
        while not (utterance.closed or self._over):
            left_s = wait_s()
            if left_s == 0:
                return True
            await self._more(left_s)
        return False

    async def completed(self, utterance: SpeechSegment) -> bool:
        """Wait until the utterance is closed; False when the audio failed before."""
        while not (utterance.closed or self._over):
            await self._more(None)
        return utterance.closed

    async def unless_outdated(
        self, decode: Decode, utterance: SpeechSegment, early: bool
    ) -> Sequence[Word] | None:
        """Make a pass over the open utterance; None when that ends first, unless the
        pass may then be the final one.
        """
        heard_ms = utterance.heard_ms
        self._outdated = lambda: (
            not (early and utterance.voiced_ms <= heard_ms <= utterance.heard_ms)
        )
        self._pass = asyncio.get_running_loop().create_task(
            _pass(decode, bytes(utterance.pcm), early)
        )
        try:
            await asyncio.wait([self._pass])
            return None if self._pass.cancelled() else self._pass.result()
        finally:
            self._pass.cancel()
            await asyncio.gather(self._pass, return_exceptions=True)
            self._pass = None

    def drop(self, utterance: SpeechSegment) -> None:
        """The oldest utterance has been dealt with."""
        assert self._cutter.waiting[0] is utterance
        self._cutter.waiting.popleft()
        self._room.set()

    def _tell(self) -> None:
        if self._pass is not None and (
            self._outdated() if self._cutter.waiting[0].closed else self._over
        ):
            self._pass.cancel()
        self._heard.set()

    async def _more(self, wait_s: float | None) -> None:
        """Wait until something was heard, or for ``wait_s``."""
        self._heard.clear()
        loop = asyncio.get_running_loop()
        # A timer may fire a moment early, by the resolution of the clock: then it is
        # set again.
        waking = None if wait_s is None else loop.call_later(wait_s, self._heard.set)
        try:
            await self._heard.wait()
        finally:
            if waking is not None:
                waking.cancel()


async def _pass(decode: Decode, pcm: bytes, complete: bool) -> Sequence[Word]:
    return await decode(pcm, complete)
