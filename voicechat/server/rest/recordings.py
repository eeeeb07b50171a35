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

    def pcm(self, channel: int) -> AsyncIterator[bytes]:
        """One channel from the start: s16le mono 16 kHz. Raises ``RemoteProtocolError`` where it cannot be decoded."""


OpenRecording: TypeAlias = Callable[[Path], Awaitable[Recording]]
"""Raises ``RemoteProtocolError``: ``UNSUPPORTED_FORMAT``, ``UNDECODABLE_AUDIO`` or ``TOO_LARGE``. A recording that is
open holds nothing open: each ``pcm`` does."""

_SIGNATURES = (
    (0, b"RIFF"), (0, b"ID3"), (0, b"fLaC"), (0, b"OggS"), (0, b"#!AMR"), (0, b"FLV\x01"), (0, b"\x1aE\xdf\xa3"),
    (0, bytes.fromhex("3026b2758e66cf11")), (4, b"ftyp"), (4, b"moov"), (4, b"mdat"), (4, b"wide"), (4, b"free"),
)  # fmt: skip
SIGNATURE_BYTES = 16


def is_recording(start: bytes) -> bool:
    """Whether a file that begins so may be wav, mp3, flac, ogg, amr, flv, webm, wma, m4a, mp4, 3gp or aac.

    A page, an archive or a playlist (which would make a decoder fetch other addresses) is none.
    """
    if any(start[offset:].startswith(magic) for offset, magic in _SIGNATURES):
        return True
    # MPEG audio and ADTS begin with eleven or twelve set bits (ISO/IEC 11172-3, 2.4.1.3; 14496-3, 1.A.2.2).
    return len(start) > 1 and start[0] == 0xFF and start[1] & 0xE0 == 0xE0


@dataclass(frozen=True, slots=True)
class DecodedRecording:
    """See ``Recording``: a file that a process of its own decodes, anew for every channel.

    That costs about a second for ten minutes of audio, where recognising them takes a minute or more.
    """

    server: ForkServer
    path: Path
    channels: int
    length_ms: int

    async def pcm(self, channel: int) -> AsyncGenerator[bytes, None]:
        """See ``Recording.pcm``. Closing it ends the process."""
        pieces = decode_file(self.server, self.path)
        async with closing(pieces):
            async for channels in pieces:
                yield channels[channel]


def opening_with(server: ForkServer, max_ms: int) -> OpenRecording:
    """Make an ``OpenRecording`` of files; none may be longer than ``max_ms``."""

    async def open_recording(path: Path) -> Recording:
        """Decode it once, for nothing but to know: what is damaged or too long shall not reach a recogniser."""
        count, length_bytes = 0, 0
        pieces = decode_file(server, path)
        async with closing(pieces):
            async for channels in pieces:
                count = len(channels)
                length_bytes += len(channels[0])
                if length_bytes > max_ms * BYTES_PER_MS:
                    raise too_long(max_ms)
        return DecodedRecording(server, path, count, length_bytes // BYTES_PER_MS)

    return open_recording


def too_long(max_ms: int) -> RemoteProtocolError:
    """Make the error for a recording over the limit."""
    return RemoteProtocolError(Status.TOO_LARGE, f"the recording is longer than {max_ms // 60_000} minutes of audio")
