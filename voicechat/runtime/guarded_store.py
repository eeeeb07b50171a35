"""A resumption store with a deadline and a circuit breaker, so that conversations go on
while it is slow or away.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import TypeVar

from voicechat.runtime.fallback.circuit_breaker import CircuitBreaker
from voicechat.runtime.fallback.policy import ServicePolicy
from voicechat.store.resumption.interface import (
    Lease,
    LeaseLostError,
    Renewal,
    ResumptionStore,
    StateTooLargeError,
    StoreUnavailableError,
)

POLICY = ServicePolicy(breaker_failures=3, breaker_pause_s=1.0, breaker_max_pause_s=10.0)
"""After three failures in a row the store is not asked for 1 s, at most for 10 s, so
that a store that is away costs no more than one deadline in that time.
"""

T = TypeVar("T")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StoreCalled:
    """An operation of the store has ended."""

    operation: str
    """The name of the method."""
    outcome: str
    """``done``; ``lost``: the conversation has another owner; ``too_large``;
    ``failed``; ``late``: no answer within the deadline; ``refused``: the store was not
    asked, because it has failed repeatedly.
    """
    took_s: float


class GuardedStore(ResumptionStore):
    """Passes operations on to another store, each within a deadline."""

    def __init__(
        self,
        store: ResumptionStore,
        deadline_s: float,
        observe: Callable[[StoreCalled], None] = lambda _: None,
    ) -> None:
        """``observe`` is called after each operation."""
        self._store = store
        self._deadline_s = deadline_s
        self._observe = observe
        self._breaker = CircuitBreaker(POLICY)
        self._fails = False

    async def start(self) -> None:
        """See ``ResumptionStore.start``."""
        await self._store.start()

    async def acquire(self, conversation: str, owner: str) -> tuple[Lease, bytes | None]:
        """See ``ResumptionStore.acquire``."""
        return await self._ask("acquire", lambda: self._store.acquire(conversation, owner))

    async def save(self, lease: Lease, state: bytes) -> None:
        """See ``ResumptionStore.save``."""
        await self._ask("save", lambda: self._store.save(lease, state))

    async def renew(self, leases: Collection[Lease]) -> Renewal:
        """See ``ResumptionStore.renew``."""
        return await self._ask("renew", lambda: self._store.renew(leases))

    async def end(self, lease: Lease) -> None:
        """See ``ResumptionStore.end``."""
        await self._ask("end", lambda: self._store.end(lease))

    async def aclose(self) -> None:
        """See ``ResumptionStore.aclose``. Gives up after the deadline."""
        try:
            async with asyncio.timeout(self._deadline_s):
                await self._store.aclose()
        except TimeoutError:
            _log.warning("the store of conversations did not close within its deadline")

    async def _ask(self, operation: str, call: Callable[[], Awaitable[T]]) -> T:
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        if not self._breaker.allows(began_s):
            self._observe(StoreCalled(operation, "refused", 0.0))
            raise StoreUnavailableError("the store has failed repeatedly and rests")
        trial = self._breaker.begin_use(began_s)
        outcome = "done"
        try:
            async with asyncio.timeout(self._deadline_s):
                found = await call()
        except LeaseLostError:
            outcome = "lost"
            raise
        except StateTooLargeError:
            outcome = "too_large"
            raise
        except TimeoutError:
            outcome = "late"
            raise StoreUnavailableError(f"no answer within {self._deadline_s:g} s") from None
        except StoreUnavailableError:
            outcome = "failed"
            raise
        except BaseException:
            outcome = ""
            raise
        finally:
            self._note(outcome, trial=trial)
            if outcome:
                self._observe(StoreCalled(operation, outcome, loop.time() - began_s))
        return found

    def _note(self, outcome: str, *, trial: bool) -> None:
        """Tell the breaker, and log the first failure and the first success after."""
        now_s = asyncio.get_running_loop().time()
        if not outcome:
            self._breaker.record_abandoned(now_s, trial=trial)
        elif outcome in ("failed", "late"):
            self._breaker.record_failure(now_s, trial=trial)
            if not self._fails:
                _log.error(
                    "the store of conversations fails (%s): they go on, but what is not saved "
                    "cannot be resumed elsewhere",
                    outcome,
                )
            self._fails = True
        else:
            self._breaker.record_success(trial=trial)
            if self._fails:
                _log.info("the store of conversations works again")
            self._fails = False
