"""Recordings decoded for a recogniser: of any size, one speaker at a time, never held
whole in memory.
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
        """The length in milliseconds."""

    @property
    def source_rate_hz(self) -> int:
        """Sample rate of the original recording."""

    def pcm(self, speaker: int | None) -> AsyncIterator[bytes]:
        """Yield the audio of one speaker (None: all together) from the start, as s16le
        mono 16 kHz.

        Raises ``RemoteProtocolError`` at the point where the recording cannot be
        decoded.
        """


OpenRecording: TypeAlias = Callable[[Path], Awaitable[Recording]]
"""Raises ``RemoteProtocolError``: ``UNSUPPORTED_FORMAT``, ``UNDECODABLE_AUDIO`` or
``TOO_LARGE``. An opened recording holds no resources; each ``pcm`` does.
"""


@dataclass(frozen=True, slots=True)
class DecodedRecording:
    """A `Recording` in a file, decoded again for every speaker by a child process.

    That takes about a second for ten minutes of audio, whose recognition takes a minute
    or more.
    """

    server: ForkServer | None
    path: Path
    bare: InputFormat | None
    """The format of a file without a header."""
    heard: Mapping[int, int]
    """The channel to use for each speaker number."""
    length_ms: int
    source_rate_hz: int

    @property
    def speakers(self) -> tuple[int, ...]:
        """The numbers of the distinct channels."""
        return tuple(self.heard)

    async def pcm(self, speaker: int | None) -> AsyncGenerator[bytes, None]:
        """Decode a speaker. Closing the generator ends the process."""
        heard = list(self.heard.values()) if speaker is None else [self.heard[speaker]]
        pieces = decode_file(self.server, self.path, self.bare)
        async with closing(pieces):
            async for piece in pieces:
                yield mixed([piece.channels[channel] for channel in heard])


def opening_with(
    server: ForkServer | None, max_ms: int, bare: InputFormat | None = None
) -> OpenRecording:
    """Return an ``OpenRecording`` for files no longer than ``max_ms``.

    ``bare`` is the format of a file without a header.
    """

    async def open_recording(path: Path) -> Recording:
        """Decode the file once to validate it: a damaged or too long one must not reach
        a recogniser.
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
    """Return the error for a recording over the limit."""
    return RemoteProtocolError(
        Status.TOO_LARGE, f"the recording is longer than {max_ms // 60_000} minutes of audio"
    )
