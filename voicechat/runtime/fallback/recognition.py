"""A recogniser with fallbacks.

A stream that fails before it has taken audio is restarted with the next recogniser. One
that fails later has consumed audio that only the caller still has. The failure is then
marked retryable; the caller opens a new stream with
``RecognitionOptions.earlier_failures`` incremented, which begins with the next
recogniser. The failure is a ``BrokenOffError`` while a recogniser is left that has not
received this audio.
"""

import asyncio
import math
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from functools import partial

from voicechat.errors import BrokenOffError, FailureKind, ProviderError
from voicechat.providers.interfaces import RecognitionOptions, RecognizerProvider, SpeechRecognizer
from voicechat.runtime.annotation_filter import AnnotationFilter
from voicechat.runtime.fallback.link import ChainLink
from voicechat.runtime.fallback.plan import AttemptPlan
from voicechat.runtime.fallback.relay import Chain, started
from voicechat.runtime.loop_clock import loop_now_s
from voicechat.runtime.provider_deadlines import closing, next_item
from voicechat.session.types import Transcript

RECORDING_S = 60.0
"""How long a recogniser may process a recording before the next one is asked."""


class RecognitionChain(Chain[SpeechRecognizer], RecognizerProvider):
    """A ``SpeechRecognizer`` that asks its links in order."""

    def __init__(self, links: Sequence[ChainLink[SpeechRecognizer]], last_result_s: float) -> None:
        """``last_result_s``: deadline of the last result after the end of the audio,
        for all links together.
        """
        super().__init__(links)
        self._last_result_s = last_result_s

    @property
    def first_use_grace_s(self) -> float:
        """How much longer the first use, or that of a slow service of this machine, may
        take. With a fallback there is no grace: the fallback is asked instead.
        """
        link = self.links[0]
        if len(self.links) > 1 or not link.cold:
            return self.patience_s
        return max(self.patience_s, link.policy.first_use_s - self._last_result_s)

    async def recognize(
        self, audio: AsyncIterator[bytes], options: RecognitionOptions
    ) -> AsyncGenerator[Transcript, None]:
        """Recognise the audio. While another recogniser could be asked, a recogniser
        that stalls counts as failed.

        A recogniser stalls if it neither takes the next audio nor ends, or gives no
        result after the end of the audio. Annotations of non-speech sounds are removed
        from the results; see ``AnnotationFilter``.
        """
        begin_with = options.earlier_failures % len(self.links)
        links = (*self.links[begin_with:], *self.links[:begin_with])
        patience_s = self._last_result_s if options.live else RECORDING_S * len(links)
        plan = AttemptPlan(links, loop_now_s() + patience_s)
        while True:
            link, until_s = await plan.next_link()
            self.count_request(link)
            heard = _WatchedAudio(audio, until_s - loop_now_s() if plan.has_more else None)
            unannotated = AnnotationFilter()
            try:
                async with link.attempt(until_s) as attempt:
                    results = started(link, partial(_recognize, heard, options))
                    async with closing(results):
                        while (result := await _next(results, heard)) is not None:
                            attempt.worked()
                            if (said := unannotated.filter_transcript(result)) is not None:
                                yield said
                    if not heard.finished:
                        raise ProviderError(
                            link.name,
                            FailureKind.CONNECTIVITY,
                            "stopped before the end of the audio",
                        )
                return
            except (GeneratorExit, asyncio.CancelledError):
                if heard.thinks_for_s > self._last_result_s:
                    # The caller gave up after the longer deadline of a cold service.
                    link.note_use()
                raise
            except ProviderError as failure:
                if heard.untouched:
                    plan.record_failure(link, failure)
                elif self._others_than(link):
                    raise self._retryable(failure, options.earlier_failures + 1) from None
                else:
                    raise

    def _others_than(self, failed: ChainLink[SpeechRecognizer]) -> bool:
        """Return whether another recogniser can be asked now."""
        now_s = loop_now_s()
        return any(link.breaker.allows(now_s) for link in self.links if link is not failed)

    def _retryable(self, failure: ProviderError, failures: int) -> ProviderError:
        """Return the failure marked as retryable: a new stream begins with another
        recogniser.

        ``failures`` counts those of all streams on this audio. Each stream begins with
        another link, until all have been asked.
        """
        error = BrokenOffError if failures < len(self.links) else ProviderError
        return error(failure.provider, failure.kind, "a fallback can be asked", retryable=True)


class _WatchedAudio:
    """The audio on its way to a recogniser. Detects when the recogniser stalls.

    The recogniser has ``patience_s`` (None: unlimited) between two pieces of audio, and
    after the last one. The time in which it waits for audio does not count.
    """

    def __init__(self, audio: AsyncIterator[bytes], patience_s: float | None) -> None:
        self._audio = audio
        self.patience_s = patience_s
        """How long the recogniser may take between two pieces; None: unlimited."""
        self._due_s: float | None = None
        self._limit: asyncio.Timeout | None = None
        self._may_think(patience_s)
        self.untouched = True
        """Whether no audio has been requested, so that another recogniser can receive
        all of it.
        """
        self.finished = False
        """Whether the recogniser has taken all audio."""
        self._finished_s = math.inf

    def __aiter__(self) -> "_WatchedAudio":
        return self

    async def __anext__(self) -> bytes:
        self.untouched = False
        timed = self.patience_s is not None
        if timed:
            self._may_think(None)
        try:
            return await anext(self._audio)
        except StopAsyncIteration:
            self.finished = True
            self._finished_s = loop_now_s()
            raise
        finally:
            if timed:
                self._may_think(self.patience_s)

    @property
    def thinks_for_s(self) -> float:
        """Seconds since the end of the audio was taken; negative before."""
        return loop_now_s() - self._finished_s

    def begin_waiting(self, limit: asyncio.Timeout) -> None:
        """Apply the deadline to ``limit`` while a result is awaited."""
        self._limit = limit
        limit.reschedule(self._due_s)

    def end_waiting(self) -> None:
        """Restart the deadline, because a result has come."""
        self._limit = None
        if self._due_s is not None:
            self._may_think(self.patience_s)

    def _may_think(self, for_s: float | None) -> None:
        if self.patience_s is None:
            return
        self._due_s = None if for_s is None else loop_now_s() + for_s
        if self._limit is not None and not self._limit.expired():
            self._limit.reschedule(self._due_s)


def _recognize(
    heard: _WatchedAudio, options: RecognitionOptions, recognizer: SpeechRecognizer
) -> AsyncIterator[Transcript]:
    return recognizer.recognize(heard, options)


async def _next(results: AsyncIterator[Transcript], heard: _WatchedAudio) -> Transcript | None:
    """Wait for the next result: until the recogniser stalls, or without a limit if no
    other could be asked.
    """
    result = await (
        next_item(results) if heard.patience_s is None else _next_in_time(results, heard)
    )
    if result is not None and not isinstance(result, Transcript):
        raise ProviderError("recogniser", FailureKind.BROKEN, f"gave a {type(result).__name__}")
    return result


async def _next_in_time(
    results: AsyncIterator[Transcript], heard: _WatchedAudio
) -> Transcript | None:
    limit = asyncio.timeout(None)
    try:
        async with limit:
            heard.begin_waiting(limit)
            try:
                return await next_item(results)
            finally:
                heard.end_waiting()
    except TimeoutError:
        raise ProviderError("recogniser", FailureKind.TIMEOUT, "it stands still") from None
