"""A least speed for what strangers send: whoever is slower holds a place for nothing."""

import asyncio
from collections.abc import Awaitable, Callable

SPARE_S = 30.0
"""So long a sender may be as slow as it likes."""
LEAST_BYTES_PER_S = 4000
"""On the average: compressed speech takes this much."""


class TooSlowError(Exception):
    """The sender gave nothing for too long, or too little on the average."""


class MinDataRateReader:
    """Reads pieces of one body and keeps both limits. Only the time of waiting for
    pieces counts.
    """

    def __init__(self, read: Callable[[], Awaitable[bytes]], idle_s: float) -> None:
        """``idle_s``: how long one piece may be waited for."""
        self._read = read
        self._idle_s = idle_s
        self._waited_s = 0.0
        self._read_bytes = 0

    async def read_piece(self) -> bytes:
        """Give the next piece; nothing at the end. Raises ``TooSlowError``, and what
        reading raises.
        """
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        try:
            async with asyncio.timeout(self._idle_s):
                piece = await self._read()
        except TimeoutError:
            raise TooSlowError from None
        self._waited_s += loop.time() - began_s
        self._read_bytes += len(piece)
        if piece and self._read_bytes < (self._waited_s - SPARE_S) * LEAST_BYTES_PER_S:
            raise TooSlowError
        return piece
