"""What every demuxer gives and keeps to."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from voicechat.errors import RemoteProtocolError, Status

MAX_GARBAGE_BYTES = 64 * 1024
"""So much in a row may be no audio: a tag, padding, damage. Past it the stream is given up."""
MAX_PACKET_BYTES = 256 * 1024
"""Longer than any codec's packet of speech; what a demuxer keeps is about this."""


@dataclass(frozen=True, slots=True)
class StreamStart:
    """Packets of a new stream follow; ``codec`` is FFmpeg's name of its decoder."""

    codec: str
    rate_hz: int | None = None
    """None: the packets say it."""
    channels: int | None = None
    extradata: bytes = b""
    """The codec's own header, as FFmpeg wants it; by it the decoder also drops what the encoder put in front."""
    source_rate_hz: int | None = None
    """Rate of the sound before it was encoded, where the codec always decodes to another one."""


DemuxedItem: TypeAlias = StreamStart | bytes
"""A packet is bytes."""


class Demuxer(Protocol):
    """Takes one stream of bytes apart."""

    def push(self, data: bytes) -> Iterator[DemuxedItem]:
        """Give what is complete with these bytes. Exhaust it before the next call.

        Raises ``RemoteProtocolError`` (``UNDECODABLE_AUDIO``, ``UNSUPPORTED_FORMAT``, ``TOO_LARGE``): give the
        stream up.
        """

    def finish(self) -> Iterator[DemuxedItem]:
        """Give what is complete if nothing follows. More may be pushed afterwards."""


class GarbageCounter:
    """Counts bytes in a row that are no audio."""

    def __init__(self, name: str) -> None:
        """``name`` is the format that was expected."""
        self._name = name
        self._skipped_bytes = 0

    def skip(self, size_bytes: int) -> None:
        """Note garbage. Raises ``RemoteProtocolError`` past ``MAX_GARBAGE_BYTES``."""
        self._skipped_bytes += size_bytes
        if self._skipped_bytes > MAX_GARBAGE_BYTES:
            raise undecodable(self._name, f"{MAX_GARBAGE_BYTES} bytes in a row are no such audio")

    def reset(self) -> None:
        """Note that audio was found."""
        self._skipped_bytes = 0


def undecodable(name: str, reason: str) -> RemoteProtocolError:
    """Make the error for audio that is not what it was declared to be."""
    return RemoteProtocolError(Status.UNDECODABLE_AUDIO, f"{name}: {reason}")


def unsupported(name: str, reason: str) -> RemoteProtocolError:
    """Make the error for audio that is understood but not offered."""
    return RemoteProtocolError(Status.UNSUPPORTED_FORMAT, f"{name}: {reason}")
