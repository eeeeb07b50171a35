"""A recogniser with others that stand in for it.

A stream that fails before it has taken audio is begun again with the next recogniser.
One that fails later has swallowed audio, which only the caller still has: the failure
then says that it can be retried, and the caller's next stream, with
``RecognitionOptions.earlier_failures`` counted up, begins with the next recogniser. It
is a ``BrokenOffError`` as long as somebody is left who has not been given this audio.
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
from voicechat.session.vocabulary import Transcript

RECORDING_S = 60.0
"""How long a recogniser may think about a recording before another one is asked."""


class RecognitionChain(Chain[SpeechRecognizer], RecognizerProvider):
    """A ``SpeechRecognizer``."""

    def __init__(self, links: Sequence[ChainLink[SpeechRecognizer]], last_result_s: float) -> None:
        """``last_result_s``: how long the last result may take from the end of the
        audio, all links together.
        """
        super().__init__(links)
        self._last_result_s = last_result_s

    @property
    def first_use_grace_s(self) -> float:
        """See ``RecognizerProvider``. Nobody waits longer for a recogniser that another
        one can stand in for.
        """
        link = self.links[0]
        if len(self.links) > 1 or not link.cold:
            return 0.0
        return max(0.0, link.policy.first_use_s - self._last_result_s)

    async def recognize(
        self, audio: AsyncIterator[bytes], options: RecognitionOptions
    ) -> AsyncGenerator[Transcript, None]:
        """See ``SpeechRecognizer``. While another recogniser could be asked, one that
        stands still has failed.

        To stand still is neither to take the next audio nor to end, or to give no
        result after the end of the audio. Notes on sounds that are no speech are left
        out of the results; see ``AnnotationFilter``.
        """
        begin_with = options.earlier_failures % len(self.links)
        links = (*self.links[begin_with:], *self.links[:begin_with])
        patience_s = self._last_result_s if options.live else RECORDING_S * len(links)
        plan = AttemptPlan(links, loop_now_s() + patience_s)
        while True:
            link, until_s = await plan.next_link()
            self.note_asked(link)
            heard = _Heard(audio, until_s - loop_now_s() if plan.has_more else None)
            unannotated = AnnotationFilter()
            try:
                async with link.asked(until_s) as attempt:
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
                    link.note_use()  # it was given up, after its longer time
                raise
            except ProviderError as failure:
                if heard.untouched:
                    plan.record_failure(link, failure)
                elif self._others_than(link):
                    raise self._retryable(failure, options.earlier_failures + 1) from None
                else:
                    raise

    def _others_than(self, failed: ChainLink[SpeechRecognizer]) -> bool:
        """Whether another recogniser can be asked now."""
        now_s = loop_now_s()
        return any(link.breaker.allows(now_s) for link in self.links if link is not failed)

    def _retryable(self, failure: ProviderError, failures: int) -> ProviderError:
        """Say that another stream may succeed, whatever went wrong here: another
        recogniser will hear it.

        ``failures``: of all streams on this audio. Each begins with another link, until
        all have had their turn.
        """
        error = BrokenOffError if failures < len(self.links) else ProviderError
        return error(failure.provider, failure.kind, "others can stand in", retryable=True)


class _Heard:
    """The audio on its way to a recogniser, and what that does with it.

    Between two pieces it may think for ``patience_s`` (None: for ever), and so at the
    end. Waiting for a speaker who is silent is not its fault.
    """

    def __init__(self, audio: AsyncIterator[bytes], patience_s: float | None) -> None:
        self._audio = audio
        self.patience_s = patience_s
        """How long it may think; None: for ever."""
        self._due_s: float | None = None
        self._limit: asyncio.Timeout | None = None
        self._may_think(patience_s)
        self.untouched = True
        """No audio has been asked for: another recogniser can be given all of it."""
        self.finished = False
        """The audio has been taken to its end."""
        self._finished_s = math.inf

    def __aiter__(self) -> "_Heard":
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
        """How long ago the audio has been taken to its end; negative: not yet."""
        return loop_now_s() - self._finished_s

    def begin_waiting(self, limit: asyncio.Timeout) -> None:
        """A result is waited for within ``limit``."""
        self._limit = limit
        limit.reschedule(self._due_s)

    def end_waiting(self) -> None:
        """The result is there; the next one may take its time again."""
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
    heard: _Heard, options: RecognitionOptions, recognizer: SpeechRecognizer
) -> AsyncIterator[Transcript]:
    return recognizer.recognize(heard, options)


async def _next(results: AsyncIterator[Transcript], heard: _Heard) -> Transcript | None:
    """Wait for the next result as long as the recogniser moves, or for ever if nobody
    else could be asked.
    """
    result = await (
        next_item(results) if heard.patience_s is None else _next_in_time(results, heard)
    )
    if result is not None and not isinstance(result, Transcript):
        raise ProviderError("recogniser", FailureKind.BROKEN, f"gave a {type(result).__name__}")
    return result


async def _next_in_time(results: AsyncIterator[Transcript], heard: _Heard) -> Transcript | None:
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
