"""The time line of a connection's audio, and the newest of that audio."""

from voicechat.providers.interfaces import PCM_RATE_HZ

BYTES_PER_MS = PCM_RATE_HZ * 2 // 1000
"""Of s16le mono 16 kHz, which is what everything behind the decoder works on."""
SURPLUS_MS = 100
"""Kept beyond what is asked for, so that the oldest audio is not forgotten piece by
piece.
"""


class RingBuffer:
    """Counts all decoded audio of a connection, and keeps the last of it.

    Times are milliseconds of the connection's audio: of all that was received on it,
    whether anybody listened or not. Whatever needs a position of the audio asks here.
    """

    def __init__(self) -> None:
        self.end_bytes = 0
        """How much audio has been received."""
        self._kept = bytearray()
        self._kept_ms = 0
        self._most_bytes = 0

    @property
    def end_ms(self) -> int:
        """How much audio has been received."""
        return self.end_bytes // BYTES_PER_MS

    def keep(self, length_ms: int) -> None:
        """From now on keep the last ``length_ms`` of what is pushed; 0 keeps
        nothing.
        """
        self._kept_ms = length_ms
        self._most_bytes = (length_ms + SURPLUS_MS) * BYTES_PER_MS if length_ms else 0
        if not length_ms:
            self._kept.clear()

    def push(self, pcm: bytes) -> None:
        """Add audio of any length."""
        self.end_bytes += len(pcm)
        if self._most_bytes:
            self._kept += pcm
            if len(self._kept) >= self._most_bytes:
                del self._kept[: len(self._kept) - self._kept_ms * BYTES_PER_MS]

    def skip(self, length_bytes: int) -> None:
        """Let the time of audio pass that nobody is to hear. What came before it is
        forgotten.
        """
        self.end_bytes += length_bytes
        self._kept.clear()

    def since(self, from_ms: int) -> tuple[int, bytes]:
        """The audio from ``from_ms`` on, as far as it is kept, and the time at which it
        begins.
        """
        oldest_bytes = self.end_bytes - len(self._kept)
        begin_bytes = min(max(from_ms * BYTES_PER_MS, oldest_bytes), self.end_bytes)
        return begin_bytes // BYTES_PER_MS, bytes(self._kept[begin_bytes - oldest_bytes :])

    def before(self, end_ms: int, length_bytes: int) -> bytes:
        """The audio of ``length_bytes`` that ends at ``end_ms``; empty when it is not
        kept any more.
        """
        end = len(self._kept) - self.end_bytes + end_ms * BYTES_PER_MS
        return (
            bytes(self._kept[end - length_bytes : end])
            if length_bytes <= end <= len(self._kept)
            else b""
        )
