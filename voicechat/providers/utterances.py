"""Dictation for recognisers that know only whole utterances: cut at pauses, and asked again while one goes on.

While somebody speaks, the utterance so far is recognised from its beginning every second or so, and what two passes
agree on is shown (`Agreement`); after the pause the whole utterance is recognised once more, and that result is final.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import TypeAlias

from voicechat.audio.segment import PAUSE_MS
from voicechat.errors import FailureKind, ProviderError
from voicechat.providers.agreement import Agreement
from voicechat.providers.interfaces import PCM_RATE_HZ
from voicechat.providers.timed_words import text_of
from voicechat.providers.utterance_cutting import Utterance, UtteranceCutter
from voicechat.session.vocabulary import Transcript, Word

Decode: TypeAlias = Callable[[bytes, bool], Awaitable[Sequence[Word]]]
"""Recognises one utterance (s16le mono 16 kHz): words with times from its beginning, none when nothing was understood.

The flag says that the utterance is complete. Otherwise the call is cancelled as soon as its result is not wanted any
more. There is one call at a time for each stream. Raises `ProviderError`.
"""

PARTIAL_EVERY_MS = 1_000
MAX_UTTERANCE_MS = 28_000
"""Speech without a pause is cut here: Whisper and its like hear 30 seconds at once."""
SLOWING = 8
"""A pass waits for new audio of an eighth of the utterance at least, so that all passes but the last together hear no
more than nine times the audio (a geometric series), however long it is."""
WAITING_UTTERANCES = 3
"""The one that is being recognised, one behind it and the one that goes on: more audio has to wait."""

_PIECE_BYTES = PCM_RATE_HZ // 5 * 2
"""200 ms: listened to at a stretch, less than 0.2 ms on the event loop (0.5 where an utterance is cut)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """When utterances end and how often they are looked at."""

    pause_ms: int = PAUSE_MS
    """Silence that ends an utterance."""
    partial_every_ms: int = PARTIAL_EVERY_MS
    """New audio after which an utterance is recognised again; 0: only when it is complete."""
    max_utterance_ms: int = MAX_UTTERANCE_MS


async def recognize_utterances(
    audio: AsyncIterator[bytes], decode: Decode, schedule: Schedule | None = None
) -> AsyncGenerator[Transcript, None]:
    """Recognise a stream of s16le mono 16 kHz audio; see ``SpeechRecognizer.recognize``.

    A partial text is always the beginning of the next one; the final one may differ from it. Raises what ``decode`` and
    ``audio`` raise, but a partial pass that is refused for its rate (RATE_LIMIT) is only tried again later. Cancelling
    cancels ``decode``. Holds no more than `WAITING_UTTERANCES`.
    """
    schedule = schedule or Schedule()
    stream = _Stream(schedule)
    # A TaskGroup may not be held over a yield (PEP 789); this task ends with the generator, below.
    listening = asyncio.get_running_loop().create_task(stream.listen(audio))
    try:
        while (utterance := await stream.utterance()) is not None:
            shown: Transcript | None = None
            async with aclosing(_partials(stream, utterance, decode, schedule)) as partials:
                async for shown in partials:
                    yield shown
            if not await stream.completed(utterance):
                break  # the audio failed: what listens raises it
            words = await decode(bytes(utterance.pcm), True)
            # An utterance that was shown is also closed, even if the last pass understands nothing any more.
            best = _transcript(utterance, words) or shown
            if best is not None:
                fixed = tuple(replace(word, fixed=True) for word in best.words)
                yield replace(best, words=fixed, end_ms=fixed[-1].end_ms)
            stream.drop(utterance)
        await listening
    finally:
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)


async def _partials(
    stream: "_Stream", utterance: Utterance, decode: Decode, schedule: Schedule
) -> AsyncGenerator[Transcript, None]:
    """Recognise the utterance again and again while it goes on; give what may be shown of it."""
    agreement = Agreement()
    every_ms, shown = schedule.partial_every_ms, 0
    due_ms = every_ms
    while every_ms and await stream.grown(utterance, due_ms):
        heard_ms = utterance.heard_ms
        due_ms = heard_ms + max(every_ms, heard_ms // SLOWING)
        try:
            passed = await stream.unless_closed(decode, bytes(utterance.pcm))
        except ProviderError as error:
            if error.kind is not FailureKind.RATE_LIMIT:
                raise
            every_ms *= 2  # a partial result is a courtesy, and not worth the stream
            continue
        words = agreement.push(passed)
        partial = _transcript(utterance, words)
        if partial is not None and len(words) > shown:
            shown = len(words)
            yield partial


def _transcript(utterance: Utterance, words: Sequence[Word]) -> Transcript | None:
    """Move words to the stream's time, within the utterance; None without words."""
    placed: list[Word] = []
    floor_ms, end_ms = utterance.begin_ms, utterance.begin_ms + utterance.heard_ms
    for word in words:
        begin_ms = min(max(word.begin_ms + utterance.begin_ms, floor_ms), end_ms)
        floor_ms = min(max(word.end_ms + utterance.begin_ms, begin_ms), end_ms)
        placed.append(replace(word, begin_ms=begin_ms, end_ms=floor_ms))
    return Transcript(text_of(placed), placed[0].begin_ms, None, tuple(placed)) if placed else None


class _Stream:
    """What the listening task and the recognising one share."""

    def __init__(self, schedule: Schedule) -> None:
        self._cutter = UtteranceCutter(schedule.pause_ms, schedule.max_utterance_ms)
        self._over = False
        self._heard = asyncio.Event()
        self._room = asyncio.Event()
        self._pass: asyncio.Task[Sequence[Word]] | None = None

    async def listen(self, audio: AsyncIterator[bytes]) -> None:
        """Cut the audio into utterances, as long as there is room for them."""
        try:
            async for pcm in audio:
                for start in range(0, len(pcm), _PIECE_BYTES):
                    while len(self._cutter.waiting) >= WAITING_UTTERANCES:
                        self._room.clear()
                        await self._room.wait()
                    self._cutter.push(pcm[start : start + _PIECE_BYTES])
                    self._tell()
                    await asyncio.sleep(0)  # audio that is there at once must not keep others waiting
            self._cutter.finish()
        finally:
            self._over = True
            self._tell()

    async def utterance(self) -> Utterance | None:
        """Wait for the next utterance to begin; None when there is no more audio."""
        while not self._cutter.waiting:
            if self._over:
                return None
            await self._more()
        return self._cutter.waiting[0]

    async def grown(self, utterance: Utterance, to_ms: int) -> bool:
        """Wait until the utterance is so long; False when it, or the audio, ends before."""
        while not (utterance.closed or self._over):
            if utterance.heard_ms >= to_ms:
                return True
            await self._more()
        return False

    async def completed(self, utterance: Utterance) -> bool:
        """Wait until the utterance is closed; False when the audio failed before."""
        while not (utterance.closed or self._over):
            await self._more()
        return utterance.closed

    async def unless_closed(self, decode: Decode, pcm: bytes) -> Sequence[Word]:
        """Make a pass over the open utterance; when that is closed first, the pass is cancelled and gives nothing."""
        self._pass = asyncio.get_running_loop().create_task(_pass(decode, pcm))
        try:
            await asyncio.wait([self._pass])
            return () if self._pass.cancelled() else self._pass.result()
        finally:
            self._pass.cancel()
            await asyncio.gather(self._pass, return_exceptions=True)
            self._pass = None

    def drop(self, utterance: Utterance) -> None:
        """The oldest utterance has been dealt with."""
        assert self._cutter.waiting[0] is utterance
        self._cutter.waiting.popleft()
        self._room.set()

    def _tell(self) -> None:
        waiting = self._cutter.waiting
        if self._pass is not None and (self._over or waiting[0].closed):
            self._pass.cancel()
        self._heard.set()

    async def _more(self) -> None:
        self._heard.clear()
        await self._heard.wait()


async def _pass(decode: Decode, pcm: bytes) -> Sequence[Word]:
    return await decode(pcm, False)
