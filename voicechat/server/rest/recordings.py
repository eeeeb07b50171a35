"""Recordings as a recogniser takes them: decoded from a file of any size, one speaker
at a time, never whole.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias

from voicechat.audio.channels import ChannelComparison, mixed
from voicechat.audio.decode import DECODED_RATE_HZ
from voicechat.audio.formats import InputFormat
from voicechat.errors import RemoteProtocolError, Status
from voicechat.processes.forked import ForkServer
from voicechat.runtime.decoding import decode_file
from voicechat.runtime.provider_deadlines import closing

BYTES_PER_MS = DECODED_RATE_HZ * 2 // 1000


class Recording(Protocol):
    """An opened recording."""

    @property
    def speakers(self) -> tuple[int, ...]:
        """Numbers of the channels that differ from each other; at least one."""

    @property
    def length_ms(self) -> int:
        """How long it is."""

    @property
    def source_rate_hz(self) -> int:
        """Rate of the sound as it was recorded."""

    def pcm(self, speaker: int | None) -> AsyncIterator[bytes]:
        """One of the speakers, None: all of them together, from the start: s16le mono
        16 kHz.

        Raises ``RemoteProtocolError`` where it cannot be decoded.
        """


OpenRecording: TypeAlias = Callable[[Path], Awaitable[Recording]]
"""Raises ``RemoteProtocolError``: ``UNSUPPORTED_FORMAT``, ``UNDECODABLE_AUDIO`` or
``TOO_LARGE``. A recording that is open holds nothing open: each ``pcm`` does.
"""


@dataclass(frozen=True, slots=True)
class DecodedRecording:
    """See ``Recording``: a file that a process of its own decodes, anew for every
    speaker.

    That costs about a second for ten minutes of audio, where recognising them takes a
    minute or more.
    """

    server: ForkServer | None
    path: Path
    bare: InputFormat | None
    """How to read it if it has no header."""
    heard: Mapping[int, int]
    """By each speaker's number, the channel that is heard for it."""
    length_ms: int
    source_rate_hz: int

    @property
    def speakers(self) -> tuple[int, ...]:
        """See ``Recording.speakers``."""
        return tuple(self.heard)

    async def pcm(self, speaker: int | None) -> AsyncGenerator[bytes, None]:
        """See ``Recording.pcm``. Closing it ends the process."""
        heard = list(self.heard.values()) if speaker is None else [self.heard[speaker]]
        pieces = decode_file(self.server, self.path, self.bare)
        async with closing(pieces):
            async for piece in pieces:
                yield mixed([piece.channels[channel] for channel in heard])


def opening_with(
    server: ForkServer | None, max_ms: int, bare: InputFormat | None = None
) -> OpenRecording:
    """Make an ``OpenRecording`` of files; none may be longer than ``max_ms``.

    ``bare`` says how a file without a header is to be read.
    """

    async def open_recording(path: Path) -> Recording:
        """Decode it once, for nothing but to know: what is damaged or too long shall
        not reach a recogniser.
        """
        comparison, length_bytes, rate_hz = ChannelComparison(), 0, DECODED_RATE_HZ
        pieces = decode_file(server, path, bare)
        async with closing(pieces):
            async for piece in pieces:
                comparison.push_audio(piece.channels)
                rate_hz = piece.source_rate_hz
                length_bytes += len(piece.channels[0])
                if length_bytes > max_ms * BYTES_PER_MS:
                    raise too_long(max_ms)
        heard = dict(comparison.distinct_channels())
        return DecodedRecording(server, path, bare, heard, length_bytes // BYTES_PER_MS, rate_hz)

    return open_recording


def too_long(max_ms: int) -> RemoteProtocolError:
    """Make the error for a recording over the limit."""
    return RemoteProtocolError(
        Status.TOO_LARGE, f"the recording is longer than {max_ms // 60_000} minutes of audio"
    )
