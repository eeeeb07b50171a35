"""Scripted fakes: a recogniser, a chat model and a synthesiser with fixed results,
delays and failures.

They keep the providers' contract, record their requests, and count open streams, so
that a test can assert that nothing was left open.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from voicechat.errors import FailureKind, ProviderError
from voicechat.providers.interfaces import (
    PCM_RATE_HZ,
    AudioChunk,
    ChatRequest,
    RecognitionOptions,
    ReplyFinished,
    ReplyPart,
    TextDelta,
    VoiceOptions,
)
from voicechat.session.types import ToolCall, Transcript, Word

BYTES_PER_MS = PCM_RATE_HZ * 2 // 1000


@dataclass(slots=True)
class Failure:
    """Where and how a scripted provider fails: with a ``ProviderError`` of ``kind``,
    unless a later field overrides it.
    """

    after: int = 0
    """Items (words, deltas, chunks) yielded before the failure."""
    kind: FailureKind | None = FailureKind.BROKEN
    """None: the call hangs until it is cancelled."""
    calls: int = 1
    """Calls that fail before one succeeds. A call that hangs does not count."""
    retry_after_s: float | None = None
    """The ``retry_after_s`` of the error."""
    foreign: Exception | None = None
    """Raised instead of a ``ProviderError``, which violates the contract."""
    garbage: object = None
    """Yielded instead of the next item; then the call ends."""
    stops: bool = False
    """The call ends at that point without an error."""

    async def raise_if_due(self, given: int) -> None:
        """Fail if ``given`` items have been yielded and the failure is due."""
        if self.calls <= 0 or given < self.after:
            return
        if self.kind is None:
            await asyncio.Event().wait()
        self.calls -= 1
        if self.foreign is not None:
            raise self.foreign
        if self.stops or self.garbage is not None:
            raise _EndsError
        raise ProviderError(
            "scripted", self.kind or FailureKind.BROKEN, "as told", retry_after_s=self.retry_after_s
        )

    @property
    def remaining_items(self) -> tuple[Any, ...]:
        """The items to yield before the call ends."""
        return () if self.garbage is None else (self.garbage,)


class _EndsError(Exception):
    """Ends the call without an error."""


_NEVER = Failure(calls=0)


@dataclass(slots=True)
class ScriptedRecognizer:
    """Recognises ``texts``, one for each stream in turn: one word for each ``word_ms``
    of audio, and the remaining words at the end.
    """

    texts: Sequence[str] = ("hello",)
    word_ms: int = 300
    final_ms: int = 0
    """Delay from the end of the audio to the final result."""
    failure: Failure = field(default_factory=lambda: _NEVER)
    heard_ms: list[int] = field(default_factory=list)
    """Milliseconds of audio received by each stream."""
    open: int = 0
    """Streams that have not ended."""

    async def recognize(
        self, audio: AsyncIterator[bytes], options: RecognitionOptions
    ) -> AsyncIterator[Transcript]:
        """Recognise the next of ``texts``."""
        number = len(self.heard_ms)
        words = self.texts[number % len(self.texts)].split() if self.texts else []
        self.heard_ms.append(0)
        self.open += 1
        try:
            said, heard_bytes = 0, 0
            await self.failure.raise_if_due(said)
            async for pcm in audio:
                heard_bytes += len(pcm)
                self.heard_ms[number] = heard_bytes // BYTES_PER_MS
                now_said = min(len(words), self.heard_ms[number] // self.word_ms)
                if now_said > said:
                    said = now_said
                    yield self._result(words[:said], None)
                await self.failure.raise_if_due(said)
            if self.final_ms:
                await asyncio.sleep(self.final_ms / 1000)
            if words and heard_bytes:
                yield self._result(words, max(self.heard_ms[number], 1))
        except _EndsError:
            for item in self.failure.remaining_items:
                yield item
        finally:
            self.open -= 1

    def _result(self, words: Sequence[str], end_ms: int | None) -> Transcript:
        timed = tuple(
            Word(w, i * self.word_ms, (i + 1) * self.word_ms) for i, w in enumerate(words)
        )
        return Transcript(" ".join(words), 0, end_ms, timed)


@dataclass(slots=True)
class ScriptedModel:
    """Yields ``replies``, one for each request in turn. A reply is a list of deltas,
    which may include tool calls.
    """

    replies: Sequence[Sequence[str | ToolCall]] = (("Hello there. ", "How are you?"),)
    first_ms: int = 0
    delta_ms: int = 0
    failure: Failure = field(default_factory=lambda: _NEVER)
    requests: list[ChatRequest] = field(default_factory=list)
    open: int = 0

    async def reply(self, request: ChatRequest) -> AsyncIterator[ReplyPart]:
        """Yield the next of ``replies``."""
        deltas = self.replies[len(self.requests) % len(self.replies)]
        self.requests.append(request)
        self.open += 1
        try:
            for number, delta in enumerate(deltas):
                await self.failure.raise_if_due(number)
                delay_ms = self.first_ms if number == 0 else self.delta_ms
                if delay_ms:
                    await asyncio.sleep(delay_ms / 1000)
                yield TextDelta(delta) if isinstance(delta, str) else delta
            await self.failure.raise_if_due(len(deltas))
            calls = any(isinstance(delta, ToolCall) for delta in deltas)
            yield ReplyFinished("tool_calls" if calls else "stop")
        except _EndsError:
            for item in self.failure.remaining_items:
                yield item
        finally:
            self.open -= 1


@dataclass(slots=True)
class ScriptedSynthesizer:
    """Synthesises each text as a constant signal of ``ms_per_character``, in chunks of
    ``chunk_ms``.
    """

    rate_hz: int = 16000
    ms_per_character: int = 50
    first_ms: int = 0
    chunk_delay_ms: int = 0
    chunk_ms: int = 100
    failure: Failure = field(default_factory=lambda: _NEVER)
    silent: Callable[[str], bool] = lambda text: False
    """Selects texts for which the synthesiser yields no chunk."""
    texts: list[str] = field(default_factory=list)
    open: int = 0

    @property
    def voices(self) -> tuple[str, ...]:
        """The only voice."""
        return ("scripted",)

    def length_ms(self, text: str) -> int:
        """Return how long it takes to say ``text``, in milliseconds."""
        return len(text) * self.ms_per_character

    async def synthesize(self, text: str, voice: VoiceOptions) -> AsyncIterator[AudioChunk]:
        """Synthesise a constant signal for the text."""
        self.texts.append(text)
        self.open += 1
        try:
            if self.first_ms:
                await asyncio.sleep(self.first_ms / 1000)
            left_ms = 0 if self.silent(text) else self.length_ms(text)
            given = 0
            while left_ms > 0:
                await self.failure.raise_if_due(given)
                if given and self.chunk_delay_ms:
                    await asyncio.sleep(self.chunk_delay_ms / 1000)
                length_ms = min(left_ms, self.chunk_ms)
                yield AudioChunk(b"\x00\x10" * (self.rate_hz * length_ms // 1000), self.rate_hz)
                left_ms -= length_ms
                given += 1
            await self.failure.raise_if_due(given)
        except _EndsError:
            for item in self.failure.remaining_items:
                yield item
        finally:
            self.open -= 1
