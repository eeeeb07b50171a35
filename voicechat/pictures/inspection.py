"""Checks an untrusted picture and writes it anew, without anything but its pixels.

Run it in a process with limits (`voicechat.pictures.child`). The size is read from the
header before any pixel is decoded, so that a decompression bomb is refused for what it
says of itself. One that lies exceeds the memory of the process, or the CPU time that a
picture of the size it claims may take. Files that take long for their size in other
ways are known by their structure (`voicechat.pictures.structure`), and by the number
of their scans.
"""

import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image, ImageOps, UnidentifiedImageError

from voicechat.errors import Fault, RemoteProtocolError
from voicechat.pictures.picture import CONTENT_TYPES, Picture
from voicechat.pictures.structure import check_structure

MOST_PIXELS = 24_000_000
"""Decoded, 96 MB at four bytes each: what most cameras make, and a second's work."""
MOST_SIDE = 12_000
"""The longest side in pixels."""
JPEG_QUALITY = 95
Image.MAX_IMAGE_PIXELS = None  # the limits above are checked instead
HEADER_CPU_S = 0.25
"""CPU time for everything before the pixels: usual files take some milliseconds."""
PICTURE_CPU_S = 0.3
MEGAPIXEL_CPU_S = 0.15
"""CPU time for decoding and encoding: a constant, and for each million pixels. WebP of
noise, the slowest, takes 0.1 s for a million pixels; JPEG 0.02 s.
"""
MOST_SCANS = 32
"""Progressive JPEG files have about 10 scans, and encoders that search for the best
ones at most 23. Each goes through the whole picture.
"""
_KEPT = ("JPEG",)
"""Formats that are written in the same format; all others become PNG."""
_TAIL_BYTES = 66_000
"""A ZIP archive's directory ends within its last 65,557 bytes (APPNOTE.TXT, 4.3.16)."""
_HEAD_BYTES = 1024
"""Readers of PDF look for its mark this far into a file (ISO 32000-1, annex H)."""
_SCAN = b"\xff\xda"
"""The marker of a scan. In a JPEG's compressed data a byte 0 follows each 0xFF."""
_RUN_LENGTHS = (1, 2)
"""BI_RLE8 and BI_RLE4, which Pillow decodes in Python."""
_OTHERS = (b"<script", b"<?php", b"<html", b"<svg", b"<!doctype html")


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureLimits:
    """What a picture must be like."""

    least_side: int = 1
    most_side: int = MOST_SIDE
    least_ratio: float = 0.0
    most_ratio: float = float(MOST_SIDE)
    """Width to height."""


def no_bound(_: float) -> None:
    """Do not bound CPU time."""


def inspect_picture(
    content: bytes, limits: PictureLimits, bound_cpu: Callable[[float], None] = no_bound
) -> Picture:
    """Decode a picture and write it anew: JPEG as JPEG, anything else as PNG, of an
    animation the first frame, turned as its EXIF data say.

    ``bound_cpu`` is called with how many seconds of CPU time the next stage may take.
    Raises ``RemoteProtocolError``: ``UNSUPPORTED_FORMAT`` for what is no picture of a
    known format or also a file of another kind, ``TOO_LARGE`` for too many pixels,
    ``INVALID_PARAMETER`` for another size or ratio than ``limits`` allow.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # damaged metadata; they are not kept
            bound_cpu(HEADER_CPU_S)
            check_structure(content)
            with Image.open(io.BytesIO(content), formats=tuple(CONTENT_TYPES)) as image:
                _refuse_polyglots(content)
                _check_size(image.width, image.height, limits)
                _refuse_slow(image, content)
                bound_cpu(PICTURE_CPU_S + MEGAPIXEL_CPU_S * image.width * image.height / 1e6)
                return _written_anew(image)
    except UnidentifiedImageError:
        raise _no_picture() from None
    except (OSError, ValueError, SyntaxError, LookupError, ArithmeticError, MemoryError) as error:
        # What Pillow's decoders raise for damaged files.
        raise RemoteProtocolError(
            Fault.UNSUPPORTED_FORMAT, "the picture is damaged and cannot be decoded"
        ) from error


def read_size(content: bytes) -> Picture:
    """Return a picture of a trusted service as it is, with the size that its header
    says. Raises ``ValueError`` when it is none of a known format.
    """
    try:
        with Image.open(io.BytesIO(content), formats=tuple(CONTENT_TYPES)) as image:
            return Picture(content, CONTENT_TYPES[image.format or ""], image.width, image.height)
    except (OSError, SyntaxError, LookupError) as error:
        raise ValueError("is no picture of a known format") from error


def _written_anew(image: Image.Image) -> Picture:
    kept = image.format in _KEPT
    image.load()
    upright = ImageOps.exif_transpose(image)
    has_alpha = "A" in upright.getbands() or "transparency" in upright.info
    pixels = upright.convert("RGBA" if has_alpha and not kept else "RGB")
    pixels.info = {}
    written = io.BytesIO()
    if kept:
        pixels.save(written, "JPEG", quality=JPEG_QUALITY)
    else:
        pixels.save(written, "PNG", compress_level=1)
    name = "JPEG" if kept else "PNG"
    return Picture(written.getvalue(), CONTENT_TYPES[name], pixels.width, pixels.height)


def _check_size(width: int, height: int, limits: PictureLimits) -> None:
    if max(width, height) > MOST_SIDE or width * height > MOST_PIXELS:
        raise RemoteProtocolError(
            Fault.TOO_LARGE,
            f"the picture has {width} x {height} pixels; {MOST_PIXELS} in all and "
            f"{MOST_SIDE} on a side are allowed",
        )
    if not all(limits.least_side <= side <= limits.most_side for side in (width, height)):
        raise RemoteProtocolError(
            Fault.INVALID_PARAMETER,
            f"the picture has {width} x {height} pixels; each side should have "
            f"{limits.least_side} to {limits.most_side}",
        )
    if not limits.least_ratio <= width / height <= limits.most_ratio:
        raise RemoteProtocolError(
            Fault.INVALID_PARAMETER,
            f"the picture's width is {width / height:.2f} of its height; it should be "
            f"{limits.least_ratio:g} to {limits.most_ratio:g}",
        )


def _refuse_slow(image: Image.Image, content: bytes) -> None:
    """Refuse a file that takes far longer than others of its size."""
    if image.format in ("JPEG", "TIFF") and content.count(_SCAN) > MOST_SCANS:
        raise RemoteProtocolError(
            Fault.UNSUPPORTED_FORMAT, f"the picture has more than {MOST_SCANS} scans"
        )
    if image.format == "BMP" and image.info.get("compression") in _RUN_LENGTHS:
        raise RemoteProtocolError(
            Fault.UNSUPPORTED_FORMAT, "the picture is a BMP with run-length encoding"
        )


def _refuse_polyglots(content: bytes) -> None:
    """Refuse a file that is a page, program, archive or document as well."""
    head, tail = content[:_HEAD_BYTES], content[-_TAIL_BYTES:]
    markup = (content[:_TAIL_BYTES] + tail).lower()
    if (
        b"%PDF-" in head
        or b"PK\x05\x06" in tail
        or any(mark in markup for mark in _OTHERS)
        or head.startswith((b"GIF89a=", b"GIF87a=", b"GIF89a/*", b"BM=", b"BM/*"))
    ):
        raise RemoteProtocolError(
            Fault.UNSUPPORTED_FORMAT,
            "the picture is a page, a program, an archive or a document as well",
        )


def _no_picture() -> RemoteProtocolError:
    known = ", ".join(CONTENT_TYPES)
    return RemoteProtocolError(Fault.UNSUPPORTED_FORMAT, f"is no picture of a format in {known}")
