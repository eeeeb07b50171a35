"""A resumption store in the memory of one process, for servers of one process and for
tests. Nothing survives the process.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Collection
from dataclasses import dataclass

from voicechat.store.resumption.interface import (
    LEASE_LOST,
    MAX_STATE_BYTES,
    Lease,
    LeaseLostError,
    Renewal,
    ResumptionStore,
    StateTooLargeError,
    StoreUnavailableError,
)

MAX_CONVERSATIONS = 10_000
"""Bound of the number of conversations that are kept."""


@dataclass(slots=True)
class _KeptState:
    lease: Lease
    state: bytes | None
    expires_s: float
    ended: bool = False


class MemoryResumptionStore(ResumptionStore):
    """States in a dictionary, in the order in which they expire."""

    def __init__(self, lifetime_s: float, now_s: Callable[[], float] | None = None) -> None:
        """``lifetime_s``: how long a state is kept after its last save or renewal.
        ``now_s`` is the running event loop's clock unless given.
        """
        self._lifetime_s = lifetime_s
        self._now_s = now_s or (lambda: asyncio.get_running_loop().time())
        self._records: OrderedDict[str, _KeptState] = OrderedDict()
        self._fence = 0

    def __len__(self) -> int:
        """The number of conversations that are kept, ended ones among them."""
        return len(self._records)

    async def acquire(self, conversation: str, owner: str) -> tuple[Lease, bytes | None]:
        """See ``ResumptionStore.acquire``."""
        self._drop_expired()
        kept = self._records.get(conversation)
        if kept is None and len(self._records) >= MAX_CONVERSATIONS:
            raise StoreUnavailableError(f"{MAX_CONVERSATIONS} conversations are kept already")
        self._fence += 1
        lease = Lease(conversation, owner, self._fence)
        state = kept.state if kept is not None else None
        self._keep(lease, state)
        return lease, state

    async def save(self, lease: Lease, state: bytes) -> None:
        """See ``ResumptionStore.save``."""
        if len(state) > MAX_STATE_BYTES:
            raise StateTooLargeError(len(state))
        self._drop_expired()
        if self._is_lost(lease):
            raise LeaseLostError(LEASE_LOST)
        self._keep(lease, state)

    async def renew(self, leases: Collection[Lease]) -> Renewal:
        """See ``ResumptionStore.renew``."""
        self._drop_expired()
        lost = {lease for lease in leases if self._is_lost(lease)}
        missing = set()
        for lease in set(leases) - lost:
            kept = self._records.get(lease.conversation)
            state = kept.state if kept is not None and kept.lease == lease else None
            if state is None:
                missing.add(lease)
            self._keep(lease, state)
        return Renewal(frozenset(lost), frozenset(missing))

    async def end(self, lease: Lease) -> None:
        """See ``ResumptionStore.end``. That it was ended is kept for a lifetime."""
        self._drop_expired()
        if not self._is_lost(lease):
            self._keep(lease, None, ended=True)

    def forget_everything(self) -> None:
        """Lose all that is kept, as a restarted Redis without a file does."""
        self._records.clear()

    def _is_lost(self, lease: Lease) -> bool:
        kept = self._records.get(lease.conversation)
        if kept is None or kept.lease.fence < lease.fence:
            return False
        return kept.lease != lease or kept.ended

    def _keep(self, lease: Lease, state: bytes | None, *, ended: bool = False) -> None:
        expires_s = self._now_s() + self._lifetime_s
        self._records[lease.conversation] = _KeptState(lease, state, expires_s, ended)
        self._records.move_to_end(lease.conversation)

    def _drop_expired(self) -> None:
        now_s = self._now_s()
        while self._records:
            conversation, oldest = next(iter(self._records.items()))
            if oldest.expires_s > now_s:
                return
            del self._records[conversation]
