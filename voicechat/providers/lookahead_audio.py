"""An audio stream that can be waited on repeatedly with a timeout, without losing a
piece.
"""

import asyncio
from collections.abc import AsyncIterator

from voicechat.providers.interfaces import PCM_RATE_HZ

BYTES_PER_MS = PCM_RATE_HZ * 2 // 1000


class LookaheadAudio:
    """Reads one piece ahead. `take_audio` raises the iterator's errors."""

    def __init__(self, audio: AsyncIterator[bytes]) -> None:
        self._audio = audio
        self._coming: asyncio.Task[bytes | None] | None = None
        self._taken_bytes = 0

    @property
    def taken_ms(self) -> int:
        """Milliseconds of audio taken so far."""
        return self._taken_bytes // BYTES_PER_MS

    async def ready(self, within_s: float | None = None) -> bool:
        """Wait until `take_audio` returns at once; False if that takes longer than
        ``within_s``.
        """
        if self._coming is None:
            self._coming = asyncio.get_running_loop().create_task(self._read())
        done, _ = await asyncio.wait({self._coming}, timeout=within_s)
        return bool(done)

    async def take_audio(self) -> bytes | None:
        """Return the next piece; None from the end on."""
        await self.ready()
        assert self._coming is not None, "`ready` made it"
        pcm = self._coming.result()
        if pcm is not None:
            self._coming = None
            self._taken_bytes += len(pcm)
        return pcm

    async def ended(self) -> bool:
        """Wait for the next piece; returns True if there is none."""
        await self.ready()
        assert self._coming is not None, "`ready` made it"
        return self._coming.result() is None

    async def aclose(self) -> None:
        """Stop reading."""
        if self._coming is not None:
            self._coming.cancel()
            await asyncio.gather(self._coming, return_exceptions=True)

    async def _read(self) -> bytes | None:
        while (pcm := await anext(self._audio, None)) is not None:
            if pcm:
                return pcm
        return None
