"""Limits how many streams or sentences a model serves at once, and how long others
wait.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from voicechat.errors import FailureKind, ProviderError
from voicechat.providers.sherpa_loading import PROVIDER


class ConcurrencySlots:
    """A number of slots."""

    def __init__(self, count: int, wait_ms: int) -> None:
        self._free = asyncio.Semaphore(count)
        self._wait_ms = wait_ms

    @asynccontextmanager
    async def taken(self) -> AsyncGenerator[None, None]:
        """Hold a slot. Raises `ProviderError` (RATE_LIMIT) if none is free in time."""
        try:
            async with asyncio.timeout(self._wait_ms / 1000):
                await self._free.acquire()
        except TimeoutError as error:
            raise ProviderError(PROVIDER, FailureKind.RATE_LIMIT, "every place is taken") from error
        try:
            yield
        finally:
            self._free.release()
