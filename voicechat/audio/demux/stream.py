"""The interface, the output and the limits shared by all demuxers."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from voicechat.errors import Fault, RemoteProtocolError

MAX_GARBAGE_BYTES = 64 * 1024
"""Maximum of consecutive bytes without audio, such as tags, padding and damage. Beyond
it decoding fails.
"""
MAX_PACKET_BYTES = 256 * 1024
"""Maximum size of a packet, and the approximate bound of a demuxer's buffer."""


@dataclass(frozen=True, slots=True)
class StreamStart:
    """Packets of a new stream follow. ``codec`` is FFmpeg's name of the decoder."""

    codec: str
    rate_hz: int | None = None
    """None if the packets declare it."""
    channels: int | None = None
    extradata: bytes = b""
    """The codec's header in FFmpeg's form. From it the decoder also knows the encoder
    delay to drop.
    """
    source_rate_hz: int | None = None
    """The original sample rate, if the codec always decodes to another rate."""


@dataclass(frozen=True, slots=True)
class Silence:
    """A gap in the container's timestamps, because the sender omitted packets."""

    length_s: float


DemuxedItem: TypeAlias = StreamStart | Silence | bytes
"""A packet is bytes."""

MIN_SILENCE_S = 0.1
"""A smaller gap is rounding."""
MAX_SILENCE_S = 60.0
"""A larger gap means that the clock was changed or that the sender paused."""


class PacketClock:
    """Compares the timestamps of packets with the durations of earlier packets, in
    seconds.
    """

    def __init__(self) -> None:
        self._next_s: float | None = None

    def silence_before(self, begin_s: float, length_s: float) -> Iterator[Silence]:
        """Yield the gap before packets that begin at ``begin_s``, and advance by
        ``length_s``.
        """
        missing_s = 0.0 if self._next_s is None else begin_s - self._next_s
        if MIN_SILENCE_S <= missing_s <= MAX_SILENCE_S:
            yield Silence(missing_s)
        elif abs(missing_s) < MIN_SILENCE_S:  # keep small differences, which may add up
            begin_s -= missing_s
        self._next_s = begin_s + length_s

    def skip_untimed(self, length_s: float) -> None:
        """Advance by packets without a timestamp."""
        if self._next_s is not None:
            self._next_s += length_s


class Demuxer(Protocol):
    """Splits one stream of bytes into packets."""

    def push_bytes(self, data: bytes) -> Iterator[DemuxedItem]:
        """Yield the items that these bytes complete. Exhaust the iterator before the
        next call.

        Raises ``RemoteProtocolError`` (``UNDECODABLE_AUDIO``, ``UNSUPPORTED_FORMAT``,
        ``TOO_LARGE``), after which the demuxer must not be used.
        """

    def finish_stream(self) -> Iterator[DemuxedItem]:
        """Yield the items that the end of input completes. More bytes may follow."""


class GarbageCounter:
    """Counts consecutive bytes that are not audio."""

    def __init__(self, name: str) -> None:
        """``name`` is the expected format, for errors."""
        self._name = name
        self._skipped_bytes = 0

    def count_bytes(self, size_bytes: int) -> None:
        """Count bytes. Raises ``RemoteProtocolError`` beyond ``MAX_GARBAGE_BYTES``."""
        self._skipped_bytes += size_bytes
        if self._skipped_bytes > MAX_GARBAGE_BYTES:
            raise undecodable(self._name, f"{MAX_GARBAGE_BYTES} bytes in a row are no such audio")

    def reset(self) -> None:
        """Restart the count, because audio was found."""
        self._skipped_bytes = 0


def undecodable(name: str, reason: str) -> RemoteProtocolError:
    """Create the error for audio that does not match its declared format."""
    return RemoteProtocolError(Fault.UNDECODABLE_AUDIO, f"{name}: {reason}")


def unsupported(name: str, reason: str) -> RemoteProtocolError:
    """Create the error for audio of a known but unsupported format."""
    return RemoteProtocolError(Fault.UNSUPPORTED_FORMAT, f"{name}: {reason}")
