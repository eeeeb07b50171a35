"""Native FLAC (RFC 9639): metadata blocks, then frames that do not declare their
length.

A frame ends at the next frame header, which is verified by its checksum and its frame
number. So each frame is yielded once the following header has arrived. This delay of
one frame is inherent in the format.
"""

from collections.abc import Iterator

from voicechat.audio.demux.stream import (
    MAX_GARBAGE_BYTES,
    MAX_PACKET_BYTES,
    DemuxedItem,
    GarbageCounter,
    StreamStart,
    undecodable,
)

_MAGIC = b"fLaC"
_STREAMINFO_BYTES = 34
_MAX_METADATA_BYTES = 2 * 1024 * 1024
_MAX_HEADER_BYTES = 16
_CRC8_POLYNOMIAL = 0x07
_RESERVED_RATE, _BLOCK_8_BITS, _BLOCK_16_BITS = 15, 6, 7
_RATE_BYTES = {12: 1, 13: 2, 14: 2}
_LAST_ASSIGNMENT = 10


def _crc8_table() -> bytes:
    table = bytearray()
    for byte in range(256):
        for _ in range(8):
            byte = byte << 1 ^ (_CRC8_POLYNOMIAL if byte & 0x80 else 0)
            byte &= 0xFF
        table.append(byte)
    return bytes(table)


_CRC8 = _crc8_table()


class FlacDemuxer:
    """Reads STREAMINFO, skips other metadata, and splits frames at their headers."""

    def __init__(self) -> None:
        self._pending = bytearray()
        self._started = False
        self._skip_bytes = 0
        self._metadata_bytes = 0
        self._streaminfo = b""
        self._last_block = False
        self._searched_bytes = 0
        self._garbage = GarbageCounter("flac")

    def push_bytes(self, data: bytes) -> Iterator[DemuxedItem]:
        """Yield the items that these bytes complete."""
        self._pending += data
        if not self._started:
            if not self._read_metadata():
                return
            self._started = True
            yield StreamStart("flac", extradata=self._streaminfo)
        yield from self._frames()

    def finish_stream(self) -> Iterator[DemuxedItem]:
        """Yield the last frame, which has no successor. A cut off frame is lost."""
        if self._started and _header(self._pending, 0):
            yield bytes(self._pending)
        self._pending.clear()
        self._searched_bytes = 0

    def _read_metadata(self) -> bool:
        """Consume metadata blocks. Returns whether frames follow."""
        if self._metadata_bytes == 0:
            if not _MAGIC.startswith(self._pending[:4]):
                raise undecodable("flac", "the audio does not begin with 'fLaC'")
            if len(self._pending) < len(_MAGIC):
                return False
            self._take(len(_MAGIC))
        while True:  # terminates: each iteration consumes metadata, which is bounded
            self._skip_bytes -= self._take(min(self._skip_bytes, len(self._pending)))
            if self._skip_bytes:
                return False
            if self._last_block:
                return True
            if len(self._pending) < 4 or (
                not self._streaminfo and len(self._pending) < 4 + _STREAMINFO_BYTES
            ):
                return False
            kind, size_bytes = self._pending[0], int.from_bytes(self._pending[1:4], "big")
            if self._metadata_bytes + size_bytes > _MAX_METADATA_BYTES:
                raise undecodable(
                    "flac", f"its metadata is longer than {_MAX_METADATA_BYTES} bytes"
                )
            self._take(4)
            self._last_block = bool(kind & 0x80)
            if not self._streaminfo:
                if kind & 0x7F or size_bytes != _STREAMINFO_BYTES:
                    raise undecodable("flac", "its first metadata block is not STREAMINFO")
                self._streaminfo = bytes(self._pending[:_STREAMINFO_BYTES])
            self._skip_bytes = size_bytes

    def _take(self, size_bytes: int) -> int:
        del self._pending[:size_bytes]
        self._metadata_bytes += size_bytes
        return size_bytes

    def _frames(self) -> Iterator[bytes]:
        while (first := _header(self._pending, 0)) is not None:
            if not first:
                self._resync()
                continue
            end = self._next_header(first)
            if end is None:
                if len(self._pending) > MAX_PACKET_BYTES:
                    raise undecodable("flac", f"a frame is longer than {MAX_PACKET_BYTES} bytes")
                return
            frame = bytes(self._pending[:end])
            del self._pending[:end]
            self._searched_bytes = 0
            self._garbage.reset()
            yield frame

    def _resync(self) -> None:
        """Drop bytes up to the next possible header."""
        found = self._pending.find(0xFF, 1)
        drop_bytes = found if found > 0 else len(self._pending)
        self._garbage.count_bytes(min(drop_bytes, MAX_GARBAGE_BYTES + 1))
        del self._pending[:drop_bytes]
        self._searched_bytes = 0

    def _next_header(self, first: tuple[int, int]) -> int | None:
        """Return the position of the header after ``first``, which is at 0; None until
        it has arrived.
        """
        position = max(self._searched_bytes, 1)
        while (position := self._pending.find(0xFF, position)) >= 0:
            header = _header(self._pending, position)
            if header is None:
                break
            if header and header[0] == first[0] and header[1] > first[1]:
                return position
            position += 1
        self._searched_bytes = len(self._pending) if position < 0 else position
        return None


def _header(data: bytearray, at: int) -> tuple[int, int] | tuple[()] | None:
    """Parse a frame header. Returns the fields shared by all headers of a stream, and
    the frame number.

    Returns an empty tuple if there is no header here, and None if more bytes are
    needed.
    """
    head = bytes(data[at : at + _MAX_HEADER_BYTES])
    if len(head) < 5:
        return None if b"\xff\xf8".startswith(head[:2]) or b"\xff\xf9".startswith(head[:2]) else ()
    block, rate = head[2] >> 4, head[2] & 15
    if head[0] != 0xFF or head[1] & 0xFE != 0xF8 or block == 0 or rate == _RESERVED_RATE:
        return ()
    if head[3] >> 4 > _LAST_ASSIGNMENT or head[3] & 1 or head[3] >> 1 & 7 == 3:
        return ()
    # The number is encoded like a UTF-8 character, with up to 36 bits in 7 bytes.
    lead_ones = 8 - (head[4] ^ 0xFF).bit_length()
    if lead_ones == 1 or lead_ones == 8:
        return ()
    number_bytes = max(lead_ones, 1)
    size_bytes = (
        4
        + number_bytes
        + {_BLOCK_8_BITS: 1, _BLOCK_16_BITS: 2}.get(block, 0)
        + _RATE_BYTES.get(rate, 0)
    )
    if len(head) <= size_bytes:
        return None
    crc = 0
    for byte in head[: size_bytes + 1]:
        crc = _CRC8[crc ^ byte]
    if crc:  # the CRC of a header followed by its checksum is 0
        return ()
    number = head[4] & (0xFF >> (lead_ones + 1) if lead_ones else 0x7F)
    for byte in head[5 : 4 + number_bytes]:
        number = number << 6 | byte & 0x3F
    return head[1] << 8 | rate, number
