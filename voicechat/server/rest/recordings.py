"""Recordings as a recogniser takes them: decoded from a file of any size, one channel at a time, never whole."""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias

from voicechat.audio.decode import DECODED_RATE_HZ
from voicechat.errors import RemoteProtocolError, Status
from voicechat.processes.forked import ForkServer
from voicechat.runtime.decoding import decode_file
from voicechat.runtime.edge import closing

BYTES_PER_MS = DECODED_RATE_HZ * 2 // 1000


class Recording(Protocol):
    """An opened recording."""

    @property
    def channels(self) -> int:
        """How many there are; at least one."""

    @property
    def length_ms(self) -> int:
        """How long it is."""

    @property
    def source_rate_hz(self) -> int:
        """Rate of the sound as it was recorded."""

    def pcm(self, channel: int) -> AsyncIterator[bytes]:
        """One channel from the start: s16le mono 16 kHz. Raises ``RemoteProtocolError`` where it cannot be decoded."""


OpenRecording: TypeAlias = Callable[[Path], Awaitable[Recording]]
"""Raises ``RemoteProtocolError``: ``UNSUPPORTED_FORMAT``, ``UNDECODABLE_AUDIO`` or ``TOO_LARGE``. A recording that is
open holds nothing open: each ``pcm`` does."""


@dataclass(frozen=True, slots=True)
class DecodedRecording:
    """See ``Recording``: a file that a process of its own decodes, anew for every channel.

    That costs about a second for ten minutes of audio, where recognising them takes a minute or more.
    """

    server: ForkServer
    path: Path
    channels: int
    length_ms: int
    source_rate_hz: int

    async def pcm(self, channel: int) -> AsyncGenerator[bytes, None]:
        """See ``Recording.pcm``. Closing it ends the process."""
        pieces = decode_file(self.server, self.path)
        async with closing(pieces):
            async for piece in pieces:
                yield piece.channels[channel]


def opening_with(server: ForkServer, max_ms: int) -> OpenRecording:
    """Make an ``OpenRecording`` of files; none may be longer than ``max_ms``."""

    async def open_recording(path: Path) -> Recording:
        """Decode it once, for nothing but to know: what is damaged or too long shall not reach a recogniser."""
        count, length_bytes, rate_hz = 0, 0, DECODED_RATE_HZ
        pieces = decode_file(server, path)
        async with closing(pieces):
            async for piece in pieces:
                count, rate_hz = len(piece.channels), piece.source_rate_hz
                length_bytes += len(piece.channels[0])
                if length_bytes > max_ms * BYTES_PER_MS:
                    raise too_long(max_ms)
        return DecodedRecording(server, path, count, length_bytes // BYTES_PER_MS, rate_hz)

    return open_recording


def too_long(max_ms: int) -> RemoteProtocolError:
    """Make the error for a recording over the limit."""
    return RemoteProtocolError(Status.TOO_LARGE, f"the recording is longer than {max_ms // 60_000} minutes of audio")
