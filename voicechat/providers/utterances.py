"""Continuous recognition with models of whole utterances: audio is cut at pauses, and
an open utterance is recognised repeatedly.

During speech, the utterance so far is recognised from its beginning about every second,
and the words on which two passes agree are shown (`LocalAgreement`). After a short
silence it is recognised as if it were complete. If no more speech follows, that is the
final result, available as soon as the pause is long enough; its words are shown
meanwhile.
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
from voicechat.session.types import Transcript, Word


@dataclass(frozen=True, slots=True)
class Recognized:
    """The result of one call of a model."""

    words: Sequence[Word]
    """Words with times from the beginning of the utterance; empty if nothing was
    understood.
    """
    language: str = ""
    """As `Transcript.language`."""


Decode: TypeAlias = Callable[[bytes, bool], Awaitable[Recognized]]
"""Recognises one utterance (s16le mono 16 kHz).

The flag is True if the utterance seems complete, so that the result may become final. A
call is cancelled as soon as its result is no longer wanted. Each stream has one call at
a time. Raises `ProviderError`.
"""

PARTIAL_EVERY_MS = 1_000
MAX_UTTERANCE_MS = 28_000
"""Speech without a pause is cut here: Whisper and similar models take at most 30 s."""
SLOWING = 8
"""A partial pass waits for new audio of at least 1/8 of the utterance, so that all
passes together process at most nine times the audio (a geometric series), however long
it is.
"""
EARLY_QUIET_MS = 120
"""Silence after which an utterance may be complete. The pause detection stays active
for 60 to 80 ms after a sound, so the real silence is at least 180 ms: longer than the
closure of a stop consonant (below 150 ms).
"""
EARLY_PASSES = 4
"""Passes of one utterance after hesitations. After this many, only the full pause
starts one.
"""
WAITING_UTTERANCES = 3
"""Backpressure: the utterance that is being recognised, the next one and the open one.
More audio waits.
"""

_PIECE_BYTES = PCM_RATE_HZ // 5 * 2
"""200 ms, processed at once in less than 0.2 ms on the event loop (0.5 ms if an
utterance is cut).
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """When utterances end, and how often they are recognised."""

    pause_ms: int = PAUSE_MS
    """Silence that ends an utterance."""
    partial_every_ms: int = PARTIAL_EVERY_MS
    """New audio after which an open utterance is recognised again; 0: only complete
    ones are.
    """
    max_utterance_ms: int = MAX_UTTERANCE_MS
    first_partial_ms: int | None = None
    """Audio after which an utterance is first recognised, if that is less than
    ``partial_every_ms``; the interval then grows with each pass until it reaches
    ``partial_every_ms``. The first words show whether a sound during a reply is an
    interruption or an "uh-huh". None is for services that charge per call.
    """


async def recognize_utterances(
    audio: AsyncIterator[bytes],
    decode: Decode,
    schedule: Schedule | None = None,
    *,
    hypotheses: bool = False,
) -> AsyncGenerator[Transcript, None]:
    """Recognise a stream of s16le mono 16 kHz audio, as ``SpeechRecognizer.recognize``.

    With ``hypotheses`` each pass that changes what is likely gives a result, which
    carries that as ``Transcript.hypothesis``; a pass after a short silence is settled.

    A partial text is always a prefix of the next one; the final one may differ. Raises
    what ``decode`` and ``audio`` raise, except that a partial pass that is refused
    (RATE_LIMIT) is retried later. Cancelling cancels ``decode``. Holds at most
    `WAITING_UTTERANCES`.
    """
    schedule = schedule or Schedule()
    stream = _AudioSegments(schedule)
    # A TaskGroup may not be held over a yield (PEP 789); this task ends with the
    # generator, below.
    listening = asyncio.get_running_loop().create_task(stream.listen(audio))
    try:
        while (utterance := await stream.utterance()) is not None:
            passes = _Passes(stream, utterance, decode, schedule, hypotheses=hypotheses)
            while await passes.make_next():
                if (partial := passes.news()) is not None:
                    yield partial
            if not await stream.completed(utterance):
                break  # the audio failed: the listening task raises it
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
        self,
        stream: "_AudioSegments",
        utterance: SpeechSegment,
        decode: Decode,
        schedule: Schedule,
        *,
        hypotheses: bool,
    ) -> None:
        self._stream = stream
        self._utterance = utterance
        self._decode = decode
        self._every_ms = schedule.partial_every_ms
        self._quick = schedule.first_partial_ms is not None
        self._due_ms = min(schedule.first_partial_ms or self._every_ms, self._every_ms)
        self._early_left = EARLY_PASSES
        self._early_ms = 0
        """How much audio the last early pass received."""
        self._early: Recognized | None = None
        self._language = ""
        self._hypotheses = hypotheses
        self._likely = ("", False)
        """The text of the last pass, and whether it is settled."""
        self._told = ("", False)
        """The same of the last result that was returned."""
        self._agreement = LocalAgreement()
        self._agreed: Sequence[Word] = ()
        self._shown = 0
        self._began_s = asyncio.get_running_loop().time()
        self._began_ms = utterance.heard_ms

    async def make_next(self) -> bool:
        """Wait until a pass is due, and make it. Returns False if the utterance, or the
        audio, ends before.
        """
        if not self._every_ms or not await self._stream.wait_until(self._utterance, self._wait_s):
            return False
        heard_ms = self._utterance.heard_ms
        early = self._may_be_complete()
        if early:
            self._early_left -= 1
            self._early, self._early_ms = None, heard_ms
        every_ms = min(self._every_ms, heard_ms // 2) if self._quick else self._every_ms
        self._due_ms = heard_ms + max(every_ms, heard_ms // SLOWING)
        try:
            found = await self._stream.unless_outdated(
                self._decode, self._utterance, early=early, may_be_complete=self._may_be_complete
            )
        except ProviderError as error:
            if error.kind is not FailureKind.RATE_LIMIT:
                raise
            self._every_ms *= 2  # a partial result is optional, and not worth the stream
            return True
        if found is not None:
            self._agreed = self._agreement.push_pass(found.words)
            self._language = found.language
            if self._hypotheses:
                self._likely = (text_of(found.words), early)
            if early:
                self._early = found
                # The speaker has stopped, so the last words are not guesses. They are
                # shown at once, because they show whether the turn is over.
                self._agreed = self._agreement.push_pass(found.words)
        return True

    def news(self) -> Transcript | None:
        """Return the partial transcript if it, or the hypothesis, has changed and is
        not final.
        """
        if self._utterance.closed and self._early_holds:
            return None
        likely, settled = self._likely
        is_news = bool(likely) and self._likely != self._told
        if len(self._agreed) == self._shown and not is_news:
            return None
        self._shown, self._told = len(self._agreed), self._likely
        shown = _transcript(self._utterance, Recognized(self._agreed, self._language))
        if shown is None:
            shown = Transcript("", self._utterance.begin_ms, language=self._language)
        return replace(shown, hypothesis=likely, settled=settled) if likely else shown

    async def final(self) -> Transcript | None:
        """Return the result of the closed utterance; None if nothing was understood.

        An utterance that was shown is closed even if the last pass finds no words.
        """
        utterance, found = self._utterance, self._early
        if found is None or not self._early_holds:
            found = await self._decode(bytes(utterance.pcm), True)
        shown = Recognized(self._agreed[: self._shown], self._language)
        best = _transcript(utterance, found) or _transcript(utterance, shown)
        if best is None:
            return None
        fixed = tuple(replace(word, fixed=True) for word in best.words)
        return replace(best, words=fixed, end_ms=fixed[-1].end_ms)

    @property
    def _early_holds(self) -> bool:
        """Whether the early pass heard all speech. A cut may have removed audio that it
        included.
        """
        utterance = self._utterance
        heard_all = utterance.voiced_ms <= self._early_ms <= utterance.heard_ms
        return self._early is not None and heard_all

    def _may_be_complete(self) -> bool:
        voiced_ms = self._utterance.voiced_ms
        quiet = self._utterance.heard_ms - voiced_ms >= EARLY_QUIET_MS
        return quiet and voiced_ms > self._early_ms and self._early_left > 0

    def _wait_s(self) -> float | None:
        """Return how long to wait for the next pass; None: until more audio arrives.

        A recording that arrives more than twice as fast as real time needs no partial
        results.
        """
        if self._utterance.heard_ms < self._due_ms and not self._may_be_complete():
            return None
        grown_ms = self._utterance.heard_ms - self._began_ms
        return max(0.0, self._began_s + grown_ms / 2000 - asyncio.get_running_loop().time())


def _transcript(utterance: SpeechSegment, found: Recognized) -> Transcript | None:
    """Move words to the stream's time, within the utterance; None without words."""
    placed: list[Word] = []
    floor_ms, end_ms = utterance.begin_ms, utterance.begin_ms + utterance.heard_ms
    for word in found.words:
        begin_ms = min(max(word.begin_ms + utterance.begin_ms, floor_ms), end_ms)
        floor_ms = min(max(word.end_ms + utterance.begin_ms, begin_ms), end_ms)
        placed.append(replace(word, begin_ms=begin_ms, end_ms=floor_ms))
    if not placed:
        return None
    return Transcript(
        text_of(placed), placed[0].begin_ms, None, tuple(placed), language=found.language
    )


class _AudioSegments:
    """The state that the listening task and the recognising one share."""

    def __init__(self, schedule: Schedule) -> None:
        self._cutter = UtteranceSegmenter(schedule.pause_ms, schedule.max_utterance_ms)
        self._over = False
        self._heard = asyncio.Event()
        self._room = asyncio.Event()
        self._pass: asyncio.Task[Recognized] | None = None
        self._outdated: Callable[[], bool] = lambda: False

    async def listen(self, audio: AsyncIterator[bytes]) -> None:
        """Cut the audio into utterances, while there is room for them."""
        try:
            async for pcm in audio:
                for start in range(0, len(pcm), _PIECE_BYTES):
                    while len(self._cutter.waiting) >= WAITING_UTTERANCES:
                        self._room.clear()
                        await self._room.wait()
                    self._cutter.push_audio(pcm[start : start + _PIECE_BYTES])
                    self._notify()
                    await asyncio.sleep(
                        0
                    )  # let other sessions run while audio is available without waiting
            self._cutter.finish_audio()
        finally:
            self._over = True
            self._notify()

    async def utterance(self) -> SpeechSegment | None:
        """Wait for the next utterance to begin; None at the end of the audio."""
        while not self._cutter.waiting:
            if self._over:
                return None
            await self._more(None)
        return self._cutter.waiting[0]

    async def wait_until(
        self, utterance: SpeechSegment, wait_s: Callable[[], float | None]
    ) -> bool:
        """Wait until ``wait_s``, which is called again for new audio, returns 0.
        Returns False if the utterance, or the audio, ends before.
        """
        while not (utterance.closed or self._over):
            left_s = wait_s()
            if left_s == 0:
                return True
            await self._more(left_s)
        return False

    async def completed(self, utterance: SpeechSegment) -> bool:
        """Wait until the utterance is closed; False if the audio failed before."""
        while not (utterance.closed or self._over):
            await self._more(None)
        return utterance.closed

    async def unless_outdated(
        self,
        decode: Decode,
        utterance: SpeechSegment,
        *,
        early: bool,
        may_be_complete: Callable[[], bool],
    ) -> Recognized | None:
        """Make a pass over the open utterance. Returns None if the utterance ends
        first, unless the pass may be the final one.

        A pass for a partial result also ends, with None, as soon as the utterance may
        be complete: the model is needed for the pass that may be the final one.
        """
        heard_ms = utterance.heard_ms

        def outdated() -> bool:
            if utterance.closed:
                return not (early and utterance.voiced_ms <= heard_ms <= utterance.heard_ms)
            return self._over or (not early and may_be_complete())

        self._outdated = outdated
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
        """Remove the oldest utterance."""
        assert self._cutter.waiting[0] is utterance
        self._cutter.waiting.popleft()
        self._room.set()

    def _notify(self) -> None:
        if self._pass is not None and self._outdated():
            self._pass.cancel()
        self._heard.set()

    async def _more(self, wait_s: float | None) -> None:
        """Wait for more audio, at most ``wait_s``."""
        self._heard.clear()
        loop = asyncio.get_running_loop()
        # A timer may fire early by the resolution of the clock; then it is set again.
        waking = None if wait_s is None else loop.call_later(wait_s, self._heard.set)
        try:
            await self._heard.wait()
        finally:
            if waking is not None:
                waking.cancel()


async def _pass(decode: Decode, pcm: bytes, complete: bool) -> Recognized:
    return await decode(pcm, complete)
