"""Renews the leases of this process's conversations, and notices those that it has
lost.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from voicechat.runtime.tasks import SessionTasks
from voicechat.store.resumption.interface import Lease, ResumptionStore, StoreUnavailableError

RENEW_S = 2.0
"""A conversation that another process has taken over is noticed within this time, or
when its state is saved.
"""
_CLOSE_S = 1.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _HeldLease:
    on_lost: Callable[[], None]
    on_missing: Callable[[], None]


class LeaseKeeper:
    """The leases of one process. While it renews them, no state expires, however long
    its conversation is silent.
    """

    def __init__(self, store: ResumptionStore) -> None:
        self._store = store
        self._held: dict[Lease, _HeldLease] = {}

    def __len__(self) -> int:
        """The number of leases that are held."""
        return len(self._held)

    def hold(
        self, lease: Lease, on_lost: Callable[[], None], on_missing: Callable[[], None]
    ) -> None:
        """Renew a lease until it is lost or ``release`` is called.

        ``on_lost`` is called once when another owner has the conversation; the lease is
        then held no longer. ``on_missing`` is called when the store has no state for
        it: save it again. Both are called in the event loop and must not raise.
        """
        self._held[lease] = _HeldLease(on_lost, on_missing)

    def release(self, lease: Lease) -> None:
        """Renew a lease no longer. Its state is kept until it expires. Idempotent."""
        self._held.pop(lease, None)

    @asynccontextmanager
    async def renewing(self) -> AsyncIterator[None]:
        """Renew the leases every two seconds while the context lasts."""
        tasks = SessionTasks(on_fault=lambda: _log.error("leases are renewed no longer"))
        _ = tasks.spawn(self._renew_forever(), "lease-keeper")
        try:
            yield
        finally:
            await tasks.close(_CLOSE_S)

    async def _renew_forever(self) -> None:
        while True:
            await asyncio.sleep(RENEW_S)
            await self.renew()

    async def renew(self) -> None:
        """Renew all leases now. A store that is away is asked again the next time."""
        if not self._held:
            return
        try:
            found = await self._store.renew(tuple(self._held))
        except StoreUnavailableError:
            return  # the guarded store has counted and logged it
        for lease in found.lost:
            if (held := self._held.pop(lease, None)) is not None:
                held.on_lost()
        for lease in found.missing:
            if lease in self._held:
                self._held[lease].on_missing()
