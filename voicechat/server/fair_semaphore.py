"""A semaphore that is fair among keys: many waiting requests of one client delay only
that client.
"""

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class FairSemaphore:
    """``common`` slots for all, and ``reserved`` more for keys that hold none.

    One key alone may hold all common slots. The next key still gets a slot, and waiting
    keys are served round-robin, one slot each. For use on the event loop only.
    """

    def __init__(self, common: int, reserved: int = 1) -> None:
        self._common = common
        self._reserved = reserved
        self._held: Counter[str] = Counter()
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}
        """Waiters by key; the key that is served next comes first."""

    @property
    def slots_in_use(self) -> int:
        """How many slots are held."""
        return self._held.total()

    @asynccontextmanager
    async def slot(self, key: str) -> AsyncIterator[None]:
        """Wait for a slot, and hold it while the context lasts. Cancelling stops
        waiting.
        """
        await self.acquire_slot(key)
        try:
            yield
        finally:
            self.release_slot(key)

    async def acquire_slot(self, key: str) -> None:
        """Wait for a slot, which ``release_slot`` releases. If cancelled, no slot is
        held.
        """
        if key not in self._waiting and self._may_have(key):
            self._held[key] += 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(key, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.release_slot(key)  # the slot was assigned at the same moment
            else:
                self._leave(key, turn)
            raise

    def release_slot(self, key: str) -> None:
        """Release a slot."""
        self._held[key] -= 1
        if not self._held[key]:
            del self._held[key]
        self._serve()

    def _may_have(self, key: str) -> bool:
        most = self._common + (0 if self._held[key] else self._reserved)
        return self.slots_in_use < most

    def _leave(self, key: str, turn: asyncio.Future[None]) -> None:
        self._waiting[key].remove(turn)
        if not self._waiting[key]:
            del self._waiting[key]

    def _serve(self) -> None:
        """Assign free slots to waiters, one key after the other."""
        for key in list(self._waiting):
            if self._may_have(key):
                turns = self._waiting.pop(key)
                # A waiter that was cancelled in this iteration of the loop removes
                # itself.
                turn = next((turn for turn in turns if not turn.done()), None)
                if turn is not None:
                    turns.remove(turn)
                    turn.set_result(None)
                    self._held[key] += 1
                if turns:
                    self._waiting[key] = turns  # behind the other keys
