"""Places that are shared among keys: one client's waiting is one client's harm."""

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class FairSemaphore:
    """So many places at once, and some beyond them for keys that hold none.

    One key alone may have all of the common places. Whoever comes then still gets one,
    and those who wait are served in turn, a place for each key. Used on the event loop
    only.
    """

    def __init__(self, common: int, reserved: int = 1) -> None:
        self._common = common
        self._reserved = reserved
        self._held: Counter[str] = Counter()
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}
        """By key, those who wait; the key that is served next comes first."""

    @property
    def slots_in_use(self) -> int:
        """How many places are taken."""
        return self._held.total()

    @asynccontextmanager
    async def slot(self, key: str) -> AsyncIterator[None]:
        """Wait for a place, and hold it while the context lasts. Cancelling gives up
        the waiting.
        """
        await self.acquire_slot(key)
        try:
            yield
        finally:
            self.release_slot(key)

    async def acquire_slot(self, key: str) -> None:
        """Wait for a place, which ``release_slot`` gives back. Cancelling takes none."""
        if key not in self._waiting and self._may_have(key):
            self._held[key] += 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(key, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.release_slot(key)  # the place came at the same moment
            else:
                self._leave(key, turn)
            raise

    def release_slot(self, key: str) -> None:
        """Give a place back."""
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
        """Give free places to those who wait, a key after the other."""
        for key in list(self._waiting):
            if self._may_have(key):
                turns = self._waiting.pop(key)
                turns.popleft().set_result(None)
                self._held[key] += 1
                if turns:
                    self._waiting[key] = turns  # behind the others
