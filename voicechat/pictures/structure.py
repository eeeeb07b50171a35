"""Refuses PNG, GIF and TIFF files that take far longer to read than others, without
reading them.

Pillow reads the parts of these formats in Python, one by one: chunks, extensions and
tables of strips. A file of a few megabytes may have millions of them.
"""

import struct

from voicechat.errors import Fault, RemoteProtocolError

MOST_CHUNKS = 20_000
"""Of a PNG: encoders write chunks of 8 KiB and more."""
MOST_METADATA_BYTES = 4 << 20
"""Of each chunk of a PNG that holds no pixels."""
MOST_BLOCKS = 20_000
"""Of the extensions before a GIF's first frame: each block holds 255 bytes."""
MOST_ENTRIES = 1_000
"""Of a TIFF's table: about 20 are usual."""
MOST_NUMBERS = 50_000
"""Of each entry of a TIFF: one for each row and colour at most."""

_PNG = b"\x89PNG\r\n\x1a\n"
_CHUNK_HEAD = struct.Struct(">I4s")
_CHUNK_CRC_BYTES = 4
_GIF = (b"GIF87a", b"GIF89a")
_GIF_HEAD_BYTES = 13
_EXTENSION = 0x21
_TIFF = {b"II": "<", b"MM": ">"}
_TIFF_VERSION = 42
_TIFF_HEAD_BYTES = 8
_TIFF_TEXTS = (1, 2, 6, 7)
"""The types BYTE, ASCII, SBYTE and UNDEFINED, which Pillow reads at once."""


def check_structure(content: bytes) -> None:
    """Check a file of any format. Raises ``RemoteProtocolError``
    (``UNSUPPORTED_FORMAT``).
    """
    if content.startswith(_PNG):
        _check_png(content)
    elif content.startswith(_GIF):
        _check_gif(content)
    elif content[:2] in _TIFF:
        _check_tiff(content, _TIFF[content[:2]])


def _check_png(content: bytes) -> None:
    begin = len(_PNG)
    for _ in range(MOST_CHUNKS):
        if begin + _CHUNK_HEAD.size > len(content):
            return
        length, kind = _CHUNK_HEAD.unpack_from(content, begin)
        if kind == b"IEND":
            return
        if kind != b"IDAT" and length > MOST_METADATA_BYTES:
            raise _refused(f"metadata of more than {MOST_METADATA_BYTES} bytes")
        begin += _CHUNK_HEAD.size + length + _CHUNK_CRC_BYTES
    raise _refused(f"more than {MOST_CHUNKS} chunks")


def _check_gif(content: bytes) -> None:
    if len(content) < _GIF_HEAD_BYTES:
        return
    flags = content[10]
    begin = _GIF_HEAD_BYTES + (3 * (2 << (flags & 7)) if flags & 0x80 else 0)
    blocks = 0
    while begin + 2 < len(content) and content[begin] == _EXTENSION:
        begin += 2
        while begin < len(content) and (length := content[begin]):
            begin += 1 + length
            blocks += 1
            if blocks > MOST_BLOCKS:
                raise _refused(f"more than {MOST_BLOCKS} blocks before its first frame")
        begin += 1
        blocks += 1


def _check_tiff(content: bytes, order: str) -> None:
    if len(content) < _TIFF_HEAD_BYTES:
        return
    version, table = struct.unpack_from(f"{order}HI", content, 2)
    if version != _TIFF_VERSION:
        raise _refused("the form of a TIFF above 4 GiB")
    if table + 2 > len(content):
        return
    (entries,) = struct.unpack_from(f"{order}H", content, table)
    if entries > MOST_ENTRIES:
        raise _refused(f"more than {MOST_ENTRIES} entries in its table")
    for number in range(entries):
        begin = table + 2 + 12 * number
        if begin + 12 > len(content):
            return
        _, kind, count = struct.unpack_from(f"{order}HHI", content, begin)
        if kind not in _TIFF_TEXTS and count > MOST_NUMBERS:
            raise _refused(f"more than {MOST_NUMBERS} numbers in an entry of its table")


def _refused(what: str) -> RemoteProtocolError:
    return RemoteProtocolError(Fault.UNSUPPORTED_FORMAT, f"the picture has {what}")
