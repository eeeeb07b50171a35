"""One recogniser stream: the audio that waits for the recogniser, and the audio that
may have to be replayed.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable

from voicechat.providers.interfaces import RecognitionOptions
from voicechat.runtime.audio_input.ring_buffer import BYTES_PER_MS

PIECE_BYTES = 60 * BYTES_PER_MS
"""The least audio for which a recogniser is woken. Shorter frames are collected,
because waking a recogniser's task and writing to its process or socket costs more than
the samples, and no recogniser finds a word within 60 ms. With frames of 20 ms, voice
detection passes on at least as much at once.
"""
SILENT_REPLAY_MS = 10_000
"""How much audio without any recognised word is kept for a recogniser that must start
again.
"""


class RecognitionStream:
    """Used on the event loop only; its audio is iterated once."""

    def __init__(
        self, number: int, options: RecognitionOptions, count_unread: Callable[[int], None]
    ) -> None:
        """``count_unread`` is called with the change in bytes whenever the amount of
        waiting audio changes.
        """
        self.number = number
        self.options = options
        self.offset_ms: int | None = None
        """Position of the first sample on the connection's time line; None before any
        audio.
        """
        self.kept: deque[bytes] = deque()
        self.spoken = False
        """Whether anything has been recognised."""
        self.too_long = False
        """Whether it has received more audio than a turn may have."""
        self.ending = False
        """Whether no further frame is routed to it. Earlier frames may still be in
        decoding.
        """
        self.finished = False
        self.task: asyncio.Task[None] | None = None
        self._count_unread = count_unread
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._sleeping: asyncio.Future[None] | None = None
        """The recogniser's wait for more audio."""
        self._fed_bytes = 0
        self._most_bytes = 1 << 62
        """Bound of the audio it may receive."""
        self._forgotten_bytes = 0
        """Bytes of audio before the first kept sample."""

    @property
    def kept_from_ms(self) -> int:
        """Stream time of the first kept sample."""
        return self._forgotten_bytes // BYTES_PER_MS

    def push(self, pcm: bytes) -> None:
        """Add audio for the recogniser, s16le mono 16 kHz."""
        self._waiting.append(pcm)
        self._waiting_bytes += len(pcm)
        self.kept.append(pcm)
        self._fed_bytes += len(pcm)
        self._count_unread(len(pcm))
        if self._fed_bytes > self._most_bytes:
            self.too_long = True
        if (
            not self.spoken
            and self._fed_bytes - self._forgotten_bytes > SILENT_REPLAY_MS * BYTES_PER_MS
        ):
            self.forget_before(self._fed_bytes // BYTES_PER_MS - SILENT_REPLAY_MS)
        if self._sleeping is not None and self._waiting_bytes >= PIECE_BYTES:
            self._wake()

    def begin_turn(self, from_ms: int, most_ms: int) -> None:
        """Note that the first word was recognised at ``from_ms`` of the stream. From
        there the stream may receive ``most_ms`` of audio.
        """
        self.spoken = True
        self._most_bytes = (from_ms + most_ms) * BYTES_PER_MS

    def end(self) -> None:
        """Mark the end of the audio."""
        self.finished = True
        self._wake()

    def clear(self) -> None:
        """Discard the waiting audio."""
        self._count_unread(-self._waiting_bytes)
        self._waiting.clear()
        self._waiting_bytes = 0

    def forget_before(self, time_ms: int) -> None:
        """Discard kept audio before ``time_ms`` of the stream, to the millisecond, so
        that a replay does not repeat words of a final result.
        """
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
        """Return the next audio for the recogniser: at least `PIECE_BYTES`, or less at
        the end.

        Cancelling loses nothing.
        """
        while self._waiting_bytes < PIECE_BYTES and not self.finished:
            self._sleeping = self._loop.create_future()
            await self._sleeping
        if not self._waiting:
            raise StopAsyncIteration
        pcm = self._waiting.popleft()
        while self._waiting and len(pcm) < PIECE_BYTES:
            pcm += self._waiting.popleft()
        self._waiting_bytes -= len(pcm)
        self._count_unread(-len(pcm))
        return pcm

    def _wake(self) -> None:
        sleeping, self._sleeping = self._sleeping, None
        if sleeping is not None and not sleeping.done():
            sleeping.set_result(None)
