"""Pictures made to take much time or memory, or to be something else as well."""

import io
import struct
import zlib
from collections.abc import Callable, Iterator
from functools import cache

from PIL import Image


def written(kind: str = "PNG", size: tuple[int, int] = (40, 20), **more: object) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, "teal").save(out, kind, **more)
    return out.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    crc = zlib.crc32(kind + data)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)


def png(
    width: int = 64,
    height: int = 64,
    *,
    before: bytes = b"",
    after: bytes = b"",
    zipped: bytes = b"",
) -> bytes:
    """A PNG of black pixels, with chunks before and after them."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zipped or zlib.compress(bytes(height * (1 + 3 * width)))
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", head),
            before,
            chunk(b"IDAT", pixels),
            after,
            chunk(b"IEND", b""),
        )
    )


@cache
def zeros(megabytes: int) -> bytes:
    """So many megabytes of zeros, compressed to a thousandth."""
    packer = zlib.compressobj(9)
    pieces = [packer.compress(bytes(1 << 20)) for _ in range(megabytes)]
    return b"".join((*pieces, packer.flush()))


def many_scans(scans: int = 400, size: tuple[int, int] = (4_800, 4_800)) -> bytes:
    """A progressive JPEG whose last scan comes again and again: each goes through the
    whole picture.
    """
    out = io.BytesIO()
    Image.new("L", size, 128).save(out, "JPEG", progressive=True)
    content = out.getvalue()
    last_scan = content[content.rindex(b"\xff\xda") : -2]
    return content[:-2] + last_scan * scans + content[-2:]


def gif_of_extensions(blocks: int = 6_000_000) -> bytes:
    """A GIF with a comment in blocks of one byte."""
    whole = written("GIF")
    start = 13 + 3 * (2 << (whole[10] & 7))
    return whole[:start] + b"\x21\xfe" + b"\x01x" * blocks + b"\x00" + whole[start:]


def tiff_of_strips(strips: int = 5_000_000) -> bytes:
    """A TIFF that lists millions of strips."""
    entries = [
        (256, 3, 1, 64),
        (257, 3, 1, 64),
        (258, 3, 1, 8),
        (259, 3, 1, 1),
        (262, 3, 1, 1),
        (273, 4, strips, 8),
        (277, 3, 1, 1),
        (278, 3, 1, 1),
        (279, 4, strips, 8),
    ]
    offsets = struct.pack("<I", 8) * strips
    table = struct.pack("<H", len(entries)) + b"".join(
        struct.pack("<HHII", *entry) for entry in entries
    )
    return b"II*\x00" + struct.pack("<I", 8 + len(offsets)) + offsets + table + bytes(4)


def tiff_of_entries(entries: int = 65_535) -> bytes:
    """A TIFF whose table has as many entries as it can, all of the same megabyte."""
    shared = bytes(1 << 20)
    table = struct.pack("<H", entries) + b"".join(
        struct.pack("<HHII", number, 7, len(shared), 8) for number in range(entries)
    )
    return b"II*\x00" + struct.pack("<I", 8 + len(shared)) + shared + table + bytes(4)


def bmp_of_runs(side: int = 2_500) -> bytes:
    """A BMP whose runs have one pixel each, which Pillow decodes in Python."""
    runs = b"\x01\x00" * (side * side)
    palette = bytes(1024)
    head = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 8, 1, len(runs), 0, 0, 256, 0)
    offset = 14 + len(head) + len(palette)
    return b"BM" + struct.pack("<IHHI", offset + len(runs), 0, 0, offset) + head + palette + runs


def webp_claiming(width: int, height: int) -> bytes:
    """An animated WebP of a canvas that it does not fill."""
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    out = io.BytesIO()
    frames[0].save(out, "WEBP", save_all=True, append_images=frames[1:])
    content = bytearray(out.getvalue())
    at = content.index(b"VP8X") + 12
    content[at : at + 6] = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return bytes(content)


def gif_claiming(width: int, height: int, frames: int = 200) -> bytes:
    """An animated GIF of a screen that its frames do not fill."""
    images = [Image.new("P", (16, 16), number % 200) for number in range(frames)]
    out = io.BytesIO()
    images[0].save(out, "GIF", save_all=True, append_images=images[1:])
    content = bytearray(out.getvalue())
    content[6:10] = struct.pack("<HH", width, height)
    return bytes(content)


TEXT = b"key\x00\x00"
PROFILE = b"profile\x00\x00"
BOMBS: dict[str, Callable[[], bytes]] = {
    "a PNG of 30,000 pixels a side": lambda: png(30_000, 30_000, zipped=zeros(20)),
    "a PNG of 8,000 pixels a side": lambda: png(8_000, 8_000, zipped=zeros(20)),
    "a PNG with half of its pixels": lambda: png(4_000, 4_000, zipped=zeros(20)[:-2_000]),
    "a PNG with a colour profile of 20 megabytes": lambda: png(
        before=chunk(b"iCCP", PROFILE + zeros(20))
    ),
    "a PNG with a text of 20 megabytes": lambda: png(before=chunk(b"zTXt", TEXT + zeros(20))),
    "a PNG with a text of 20 megabytes behind its pixels": lambda: png(
        after=chunk(b"zTXt", TEXT + zeros(20))
    ),
    "a PNG with a million texts": lambda: png(before=chunk(b"tEXt", b"k\x00v") * 1_000_000),
    "a PNG with 24 megapixels and a million chunks behind": lambda: png(
        6_000, 4_000, after=chunk(b"prIv", b"") * 1_000_000, zipped=zeros(20)
    ),
    "a PNG with a large EXIF block": lambda: png(after=chunk(b"eXIf", bytes(8 << 20))),
    "a JPEG with 400 scans": many_scans,
    "half a JPEG": lambda: written("JPEG", (4_000, 4_000))[:60_000],
    "a GIF with a comment of six million blocks": gif_of_extensions,
    "an animated GIF of 60,000 pixels a side": lambda: gif_claiming(60_000, 60_000),
    "an animated WebP of 16,000 pixels a side": lambda: webp_claiming(16_000, 16_000),
    "a TIFF with five million strips": tiff_of_strips,
    "a TIFF with 65,535 entries": tiff_of_entries,
    "a TIFF of the large form": lambda: written("TIFF").replace(b"II*\x00", b"II+\x00", 1),
    "a BMP of single pixels": bmp_of_runs,
    "an SVG": lambda: b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>",
    "an SVG with entities": lambda: (
        b'<?xml version="1.0"?><!DOCTYPE svg [<!ENTITY a "' + b"a" * 1_000 + b'">'
        b'<!ENTITY b "' + b"&a;" * 1_000 + b'">]><svg>&b;</svg>'
    ),
    "a picture that is a ZIP too": lambda: written() + b"PK\x05\x06" + bytes(18),
    "a picture that is a PDF too": lambda: written("JPEG", comment=b"%PDF-1.7"),
    "a picture that is a page too": lambda: written("JPEG", comment=b"<script>alert(1)</script>"),
    "a GIF that is a script too": lambda: b"GIF89a=1;" + written("GIF")[6:],
    "nothing": lambda: b"",
    "noise": lambda: bytes(range(256)) * 4_000,
}
"""What must be refused, by what it is."""


def every_bomb() -> Iterator[tuple[str, bytes]]:
    """Make each of ``BOMBS``."""
    for name, make in BOMBS.items():
        yield name, make()
