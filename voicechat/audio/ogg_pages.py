"""Writes Ogg pages from packets (RFC 3533, section 6)."""

import struct
import zlib
from collections.abc import Sequence

CHECKSUM_AT = 22
_FIRST, _LAST = 2, 4
_FULL = 255
_MAX_SEGMENTS = 255
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


class OggWriter:
    """Writes one logical stream. Every page is complete and can be sent at once."""

    def __init__(self, serial: int) -> None:
        self._serial = serial
        self._pages = 0

    def pages(self, packets: Sequence[bytes], position: int, *, last: bool = False) -> bytes:
        """Write whole packets into as few pages as possible; an empty page if there are
        none.

        ``position`` is the granule position after the last packet. If several pages are
        needed, all carry it, which only affects seeking. Raises ``ValueError`` for a
        packet that does not fit into a page.
        """
        made: list[bytes] = []
        lacing, body = bytearray(), bytearray()
        for packet in packets:
            segments = len(packet) // _FULL + 1
            if segments > _MAX_SEGMENTS:
                raise ValueError(f"a packet of {len(packet)} bytes does not fit a page")
            if len(lacing) + segments > _MAX_SEGMENTS:
                made.append(self._page(0, position, lacing, body))
                lacing, body = bytearray(), bytearray()
            lacing += bytes([_FULL] * (segments - 1)) + bytes([len(packet) % _FULL])
            body += packet
        made.append(self._page(_LAST if last else 0, position, lacing, body))
        return b"".join(made)

    def _page(
        self, flags: int, position: int, lacing: bytes | bytearray, body: bytes | bytearray
    ) -> bytes:
        flags |= 0 if self._pages else _FIRST
        head = struct.pack(
            "<4sBBQIIIB", b"OggS", 0, flags, position, self._serial, self._pages, 0, len(lacing)
        )
        self._pages += 1
        page = head + lacing + body
        return page[:CHECKSUM_AT] + page_checksum(page) + page[CHECKSUM_AT + 4 :]


def page_checksum(page: bytes) -> bytes:
    """Compute a page's checksum in its byte order.

    It uses zlib's polynomial with reversed bits, the initial value 0 and no final
    inversion.
    """
    without = page[:CHECKSUM_AT] + bytes(4) + page[CHECKSUM_AT + 4 :]
    inverted = zlib.crc32(without.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return inverted.to_bytes(4, "big").translate(_REVERSED)
