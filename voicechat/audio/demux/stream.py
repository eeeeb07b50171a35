"""What every demuxer gives and keeps to."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from voicechat.errors import RemoteProtocolError, Status

MAX_GARBAGE_BYTES = 64 * 1024
"""So much in a row may be no audio: a tag, padding, damage. Past it the stream is given
up.
"""
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
    """The codec's own header, as FFmpeg wants it; by it the decoder also drops what the
    encoder put in front.
    """
    source_rate_hz: int | None = None
    """Rate of the sound before it was encoded, where the codec always decodes to
    another one.
    """


@dataclass(frozen=True, slots=True)
class Silence:
    """Nothing was sent for this time: the container's times jump, because the sender
    left packets out.
    """

    length_s: float


DemuxedItem: TypeAlias = StreamStart | Silence | bytes
"""A packet is bytes."""

MIN_SILENCE_S = 0.1
"""A shorter difference between times and durations is rounding."""
MAX_SILENCE_S = 60.0
"""A longer one means that the clock was set, or that the sender stopped for a while."""


class PacketClock:
    """Compares the times of packets with the durations of the packets before them, all
    in seconds.
    """

    def __init__(self) -> None:
        self._next_s: float | None = None

    def silence_before(self, begin_s: float, length_s: float) -> Iterator[Silence]:
        """Give what was left out before packets that begin then; notes that they last
        so long.
        """
        missing_s = 0.0 if self._next_s is None else begin_s - self._next_s
        if MIN_SILENCE_S <= missing_s <= MAX_SILENCE_S:
            yield Silence(missing_s)
        elif abs(missing_s) < MIN_SILENCE_S:  # it may grow, packet by packet
            begin_s -= missing_s
        self._next_s = begin_s + length_s

    def skip_untimed(self, length_s: float) -> None:
        """Note packets without a time: they follow the ones before."""
        if self._next_s is not None:
            self._next_s += length_s


class Demuxer(Protocol):
    """Takes one stream of bytes apart."""

    def push_bytes(self, data: bytes) -> Iterator[DemuxedItem]:
        """Give what is complete with these bytes. Exhaust it before the next call.

        Raises ``RemoteProtocolError`` (``UNDECODABLE_AUDIO``, ``UNSUPPORTED_FORMAT``,
        ``TOO_LARGE``): give the stream up.
        """

    def finish_stream(self) -> Iterator[DemuxedItem]:
        """Give what is complete if nothing follows. More may be pushed afterwards."""


class GarbageCounter:
    """Counts bytes in a row that are no audio."""

    def __init__(self, name: str) -> None:
        """``name`` is the format that was expected."""
        self._name = name
        self._skipped_bytes = 0

    def count_bytes(self, size_bytes: int) -> None:
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
