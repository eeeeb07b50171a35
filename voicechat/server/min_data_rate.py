"""A minimum data rate for request bodies: a slow sender must not hold a slot for
nothing.
"""

import asyncio
from collections.abc import Awaitable, Callable

SPARE_S = 30.0
"""Grace period: the rate is enforced once 30 s have been spent waiting."""
LEAST_BYTES_PER_S = 4000
"""The minimum average rate, about that of compressed speech."""


class TooSlowError(Exception):
    """The sender sent nothing for too long, or too little on average."""


class MinDataRateReader:
    """Reads pieces of one body and enforces both limits.

    Only the time spent waiting for pieces counts.
    """

    def __init__(self, read: Callable[[], Awaitable[bytes]], idle_s: float) -> None:
        """``idle_s``: how long one piece may take."""
        self._read = read
        self._idle_s = idle_s
        self._waited_s = 0.0
        self._read_bytes = 0

    async def read_piece(self) -> bytes:
        """Return the next piece; b"" at the end. Raises ``TooSlowError``, and what
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
