"""One recogniser stream: audio that waits for the recogniser, and audio it may have to hear again."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable

from voicechat.providers.interfaces import RecognitionOptions
from voicechat.runtime.audio_input.ring_buffer import BYTES_PER_MS

SILENT_REPLAY_MS = 10_000
"""Of audio in which nothing has been recognised, so much is kept for a recogniser that must start again."""


class RecognitionStream:
    """Used on the event loop only; its audio is iterated once."""

    def __init__(self, number: int, options: RecognitionOptions, count_unread: Callable[[int], None]) -> None:
        """``count_unread`` is told by how many bytes the audio that waits grows and shrinks."""
        self.number = number
        self.options = options
        self.offset_ms: int | None = None
        """Where its first sample stands on the connection's time line; None: none has come."""
        self.kept: deque[bytes] = deque()
        self.spoken_from_ms: int | None = None
        """Stream time of the first recognised word."""
        self.ending = False
        """No more frames are meant for it; what was decoded of them may still come."""
        self.finished = False
        self.task: asyncio.Task[None] | None = None
        self._count_unread = count_unread
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[bytes] = deque()
        self._sleeping: asyncio.Future[None] | None = None
        """The recogniser waits for more."""
        self._fed_bytes = 0
        self._forgotten_bytes = 0
        """Audio that came before the first kept sample."""

    @property
    def fed_ms(self) -> int:
        """How much audio it has been given."""
        return self._fed_bytes // BYTES_PER_MS

    @property
    def kept_from_ms(self) -> int:
        """Stream time of the first kept sample."""
        return self._forgotten_bytes // BYTES_PER_MS

    def push(self, pcm: bytes) -> None:
        """Add audio for the recogniser, s16le mono 16 kHz."""
        self._waiting.append(pcm)
        self.kept.append(pcm)
        self._fed_bytes += len(pcm)
        self._count_unread(len(pcm))
        if self.spoken_from_ms is None and self._fed_bytes - self._forgotten_bytes > SILENT_REPLAY_MS * BYTES_PER_MS:
            self.forget_before(self.fed_ms - SILENT_REPLAY_MS)
        if self._sleeping is not None:
            self._wake()

    def end(self) -> None:
        """All its audio has been given."""
        self.finished = True
        self._wake()

    def clear(self) -> None:
        """Forget the audio that waits."""
        self._count_unread(-sum(len(pcm) for pcm in self._waiting))
        self._waiting.clear()

    def forget_before(self, time_ms: int) -> None:
        """To the millisecond: what a final result has told must not be heard, and told, once more."""
        surplus_bytes = time_ms * BYTES_PER_MS - self._forgotten_bytes
        while surplus_bytes > 0 and self.kept:
            piece = self.kept.popleft()
            if len(piece) > surplus_bytes:
                self.kept.appendleft(piece[surplus_bytes:])
            dropped_bytes = min(surplus_bytes, len(piece))
            surplus_bytes -= dropped_bytes
            self._forgotten_bytes += dropped_bytes

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def begun(self) -> None:
        """Wait for audio, or for the end without any. Cancelling loses nothing."""
        while not self._waiting and not self.finished:
            self._sleeping = self._loop.create_future()
            await self._sleeping

    async def __anext__(self) -> bytes:
        """The next audio for the recogniser. Cancelling loses nothing."""
        if not self._waiting:
            await self.begun()
            if not self._waiting:
                raise StopAsyncIteration
        pcm = self._waiting.popleft()
        self._count_unread(-len(pcm))
        return pcm

    def _wake(self) -> None:
        sleeping, self._sleeping = self._sleeping, None
        if sleeping is not None and not sleeping.done():
            sleeping.set_result(None)
