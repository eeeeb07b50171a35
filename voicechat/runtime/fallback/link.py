"""One service of a chain: its provider, its concurrency limit, its circuit breaker and
its counters.
"""

import asyncio
import logging
import math
from collections import Counter
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Generic, TypeVar

from voicechat.errors import FailureKind, ProviderError
from voicechat.processes.machine_share import machine_share
from voicechat.providers.interfaces import Provider
from voicechat.providers.wrapping import as_provider
from voicechat.runtime.error_location import location_of
from voicechat.runtime.fallback.circuit_breaker import CircuitBreaker
from voicechat.runtime.fallback.policy import ServicePolicy
from voicechat.runtime.loop_clock import loop_now_s
from voicechat.runtime.provider_deadlines import closing, next_item
from voicechat.runtime.tasks import SessionTasks

logger = logging.getLogger(__name__)

PROBE_S = 5.0
"""How long a probe may take."""
START_S = 60.0
"""How long a repeated start may take: it may load a large model from a slow disk."""
CLOSE_S = 1.0
COLD_AFTER_S = 300.0
"""A service without a result for this long counts as cold: servers unload an idle
model, and must load it again.
"""

P_co = TypeVar("P_co", covariant=True)


class ChainLink(Provider, Generic[P_co]):
    """A provider under its configured name, shared by all chains that it belongs to.

    While the breaker is open, ``Provider.probe`` is called after each pause, and the
    service is used again only after a probe has succeeded. Without a probe, a user's
    own request is the trial.

    If ``start`` failed, it is called again after each pause, and the service is used
    only after it has succeeded.
    """

    def __init__(self, name: str, provider: P_co, policy: ServicePolicy | None = None) -> None:
        """``name`` (such as ``llm.default``) is used in metrics and logs."""
        self.name = name
        self.provider = provider
        self.policy = policy or ServicePolicy()
        self._life = as_provider(provider)
        self.breaker = CircuitBreaker(self.policy, probed=self._life.has_probe)
        self.failures: Counter[FailureKind] = Counter()
        """Failures so far, by kind."""
        # ``max_streams`` applies to the server; each of its processes has its share.
        places = (
            max(1, machine_share().part_of(self.policy.max_streams))
            if self.policy.max_streams
            else None
        )
        self._places = asyncio.Semaphore(places) if places else None
        self._waiting = 0
        self._tasks = SessionTasks(on_fault=lambda: None)
        self._probing: asyncio.Task[None] | None = None
        self._unstarted = False
        self._warm_until_s = -math.inf
        self._warming: asyncio.Task[None] | None = None

    async def aclose(self) -> None:
        """Stop probing, and close the provider."""
        await self._tasks.close(CLOSE_S)
        await self._life.aclose()

    async def start(self) -> None:
        """Start the provider."""
        await self._life.start()

    def leave_unstarted(self, failure: ProviderError) -> None:
        """Record that ``start`` failed. The service is retried in the background, and
        its fallbacks answer until it has started.
        """
        self.failures[failure.kind] += 1
        self._unstarted = True
        self.breaker.keep_out(loop_now_s())
        self._begin_probing()

    @property
    def cold(self) -> bool:
        """Whether the service has given no result for ``COLD_AFTER_S``, or never.

        Its model may have to be loaded, so it has ``ServicePolicy.first_use_s`` for its
        first item. After a timeout the usual deadline applies again.
        """
        return loop_now_s() >= self._warm_until_s

    def note_use(self) -> None:
        """Record that the service gave a result, or has used up its longer deadline."""
        self._warm_until_s = loop_now_s() + COLD_AFTER_S

    def warm_up(self, ask: Callable[[], AsyncIterator[object]]) -> None:
        """Ask the service in the background until it gives an item, at most for
        ``first_use_s``. One such request runs at a time.

        Many servers stop loading a model when the request that caused it is cancelled.
        """
        if self.policy.first_use_s and (self._warming is None or self._warming.done()):
            self._warming = self._tasks.spawn(self._warm_up(ask), f"warm-up-{self.name}")

    async def _warm_up(self, ask: Callable[[], AsyncIterator[object]]) -> None:
        try:
            await self.take_place(loop_now_s())
        except ProviderError:
            return  # all its places are in use: it is warm, or is being loaded
        try:
            async with asyncio.timeout(self.policy.first_use_s):
                items = ask()
                async with closing(items):
                    await next_item(items)
        except (ProviderError, TimeoutError) as failure:
            logger.warning("%s has not warmed up: %s", self.name, type(failure).__name__)
        finally:
            self.leave_place()

    @property
    def waiting_streams(self) -> int:
        """How many uses wait for a place, here or in the provider."""
        return self._waiting + self._life.waiting_streams

    @property
    def real_time_factor(self) -> float:
        """The provider's real-time factor."""
        return self._life.real_time_factor

    def attempt(self, until_s: float) -> "Attempt":
        """Return a context manager for one use: it holds a place among ``max_streams``,
        and records the outcome.

        Entering raises ``ProviderError`` (RATE_LIMIT) when no place is free within
        ``queue_s`` and by ``until_s`` (loop time). The breaker does not count that as a
        failure of the service.
        """
        return Attempt(self, until_s)

    async def take_place(self, until_s: float) -> None:
        """Wait for a place among ``max_streams``; raises as ``attempt`` says."""
        if self._places is None:
            return
        self._waiting += 1
        try:
            async with asyncio.timeout_at(min(until_s, loop_now_s() + self.policy.queue_s)):
                await self._places.acquire()
        except TimeoutError:
            message = f"all of its {self.policy.max_streams} streams are in use"
            raise ProviderError(self.name, FailureKind.RATE_LIMIT, message) from None
        finally:
            self._waiting -= 1

    def leave_place(self) -> None:
        """Release the place."""
        if self._places is not None:
            self._places.release()

    def note_failure(self, failure: ProviderError, *, trial: bool) -> None:
        """Count a failure and update the breaker.

        REJECTED is the fault of the request and shows that the service works. A failure
        that the input caused says nothing about the service.
        """
        now_s = loop_now_s()
        self.failures[failure.kind] += 1
        if failure.kind is FailureKind.TIMEOUT:
            self.note_use()
        logger.warning("%s failed: %s", self.name, failure)
        if failure.kind is FailureKind.REJECTED:
            self.breaker.record_success(trial=trial)
        elif not failure.of_service:
            self.breaker.record_abandoned(now_s, trial=trial)
        elif failure.retry_after_s is not None:
            self.breaker.record_abandoned(now_s, trial=trial)
            self.breaker.rest_until(now_s + failure.retry_after_s, now_s)
        elif self.breaker.record_failure(now_s, trial=trial):
            logger.warning("%s is suspended for %.1f s", self.name, self.breaker.ready_at_s - now_s)
            self._begin_probing()

    def _begin_probing(self) -> None:
        can_be_asked = self._life.has_probe or self._unstarted
        if can_be_asked and (self._probing is None or self._probing.done()):
            self._probing = self._tasks.spawn(self._probe_until_well(), f"probe-{self.name}")

    async def _probe_until_well(self) -> None:
        while True:
            await asyncio.sleep(self.breaker.ready_at_s - loop_now_s())
            try:
                await self._ask_after_it()
            except ProviderError as failure:
                now_s = loop_now_s()
                self.breaker.lengthen(now_s)
                if failure.retry_after_s is not None:
                    self.breaker.rest_until(now_s + failure.retry_after_s, now_s)
            except TimeoutError:
                self.breaker.lengthen(loop_now_s())
            except Exception as error:  # noqa: BLE001 - third-party code; it must not end the probing
                logger.error(
                    "probing %s raised %s at %s",
                    self.name,
                    type(error).__name__,
                    location_of(error),
                )
                self.breaker.lengthen(loop_now_s())
            else:
                logger.warning("%s answers again", self.name)
                self.breaker.recovered(loop_now_s())
                return

    async def _ask_after_it(self) -> None:
        if self._unstarted:
            async with asyncio.timeout(START_S):
                await self.start()
            self._unstarted = False
        if self._life.has_probe:
            async with asyncio.timeout(PROBE_S):
                await self._life.probe()


class Attempt:
    """One use of a link: see ``ChainLink.attempt``. Only a ``ProviderError`` is a
    failure; cancelling, for example, is not.
    """

    def __init__(self, link: ChainLink[object], until_s: float) -> None:
        self._link = link
        self._until_s = until_s
        self._trial = False
        self._worked = False

    def worked(self) -> None:
        """Record that the service has given a result."""
        self._worked = True
        self._link.note_use()
        if self._trial:
            self._link.breaker.record_success(trial=True)
            self._trial = False

    async def __aenter__(self) -> "Attempt":
        await self._link.take_place(self._until_s)
        self._trial = self._link.breaker.begin_use(loop_now_s())
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._link.leave_place()
        if isinstance(error, ProviderError):
            self._link.note_failure(error, trial=self._trial)
        elif error is None or self._worked:
            self._link.breaker.record_success(trial=self._trial)
        else:
            self._link.breaker.record_abandoned(loop_now_s(), trial=self._trial)
