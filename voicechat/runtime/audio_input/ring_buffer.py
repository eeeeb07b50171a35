"""The time line of a connection's audio, with a buffer of the newest audio."""

from voicechat.providers.interfaces import PCM_RATE_HZ

BYTES_PER_MS = PCM_RATE_HZ * 2 // 1000
"""Of s16le mono 16 kHz, the format of all decoded audio."""
SURPLUS_MS = 100
"""Kept in addition, so that the oldest audio is discarded in larger pieces."""


class RingBuffer:
    """Counts all decoded audio of a connection and keeps the newest part of it.

    Times are milliseconds of all audio received on the connection, including audio that
    was not listened to. All positions of audio come from here.
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
        """Set how much of the newest audio is kept, in milliseconds; 0 keeps none."""
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
        """Advance the time line by audio that is not listened to. Discards the kept
        audio.
        """
        self.end_bytes += length_bytes
        self._kept.clear()

    def since(self, from_ms: int) -> tuple[int, bytes]:
        """Return the audio from ``from_ms`` on, as far as it is kept, preceded by the
        time at which it begins.
        """
        oldest_bytes = self.end_bytes - len(self._kept)
        begin_bytes = min(max(from_ms * BYTES_PER_MS, oldest_bytes), self.end_bytes)
        return begin_bytes // BYTES_PER_MS, bytes(self._kept[begin_bytes - oldest_bytes :])

    def before(self, end_ms: int, length_bytes: int) -> bytes:
        """Return the ``length_bytes`` of audio that end at ``end_ms``; empty if they
        are no longer kept.
        """
        end = len(self._kept) - self.end_bytes + end_ms * BYTES_PER_MS
        return (
            bytes(self._kept[end - length_bytes : end])
            if length_bytes <= end <= len(self._kept)
            else b""
        )
