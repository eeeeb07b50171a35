"""A resumption store that fails as a test tells it to."""

import asyncio
from collections.abc import Collection

from voicechat.store.resumption.interface import (
    Lease,
    Renewal,
    ResumptionStore,
    StoreUnavailableError,
)


class FaultyStore(ResumptionStore):
    """Passes operations on to another store, late, or not at all."""

    def __init__(self, store: ResumptionStore) -> None:
        self._store = store
        self.fails = False
        """True: every operation raises ``StoreUnavailableError``, undone."""
        self.forgets_answers = False
        """True: every operation is done, and raises ``StoreUnavailableError``, as when
        the connection is lost before the answer.
        """
        self.delay_s = 0.0
        """How long each operation takes; infinity: it never ends."""
        self.calls = 0
        """The number of operations so far."""

    async def acquire(self, conversation: str, owner: str) -> tuple[Lease, bytes | None]:
        """See ``ResumptionStore.acquire``."""
        await self._before()
        found = await self._store.acquire(conversation, owner)
        self._after()
        return found

    async def save(self, lease: Lease, state: bytes) -> None:
        """See ``ResumptionStore.save``."""
        await self._before()
        await self._store.save(lease, state)
        self._after()

    async def renew(self, leases: Collection[Lease]) -> Renewal:
        """See ``ResumptionStore.renew``."""
        await self._before()
        found = await self._store.renew(leases)
        self._after()
        return found

    async def end(self, lease: Lease) -> None:
        """See ``ResumptionStore.end``."""
        await self._before()
        await self._store.end(lease)
        self._after()

    async def aclose(self) -> None:
        """See ``ResumptionStore.aclose``."""
        await self._store.aclose()

    async def _before(self) -> None:
        self.calls += 1
        if self.delay_s == float("inf"):
            await asyncio.get_running_loop().create_future()
        elif self.delay_s:
            await asyncio.sleep(self.delay_s)
        if self.fails:
            raise StoreUnavailableError("the test wants this")

    def _after(self) -> None:
        if self.forgets_answers:
            raise StoreUnavailableError("the test wants this, too late")
