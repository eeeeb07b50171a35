"""Checks an untrusted picture and writes it anew, without anything but its pixels.

Run it in a process with limits (`voicechat.pictures.child`). The size is read from the
header before any pixel is decoded, so that a decompression bomb is refused for what it
says of itself; one that lies exceeds the process' limits.
"""

import io
import warnings
from dataclasses import dataclass

from PIL import Image, ImageOps, UnidentifiedImageError

from voicechat.errors import Fault, RemoteProtocolError
from voicechat.pictures.picture import CONTENT_TYPES, Picture

MOST_PIXELS = 24_000_000
"""Decoded, 96 MB at four bytes each: what most cameras make, and a second's work."""
MOST_SIDE = 12_000
"""The longest side in pixels."""
JPEG_QUALITY = 95
Image.MAX_IMAGE_PIXELS = None  # the limits above are checked instead
_KEPT = ("JPEG",)
"""Formats that are written in the same format; all others become PNG."""
_TAIL_BYTES = 66_000
"""A ZIP archive's directory ends within its last 65,557 bytes (APPNOTE.TXT, 4.3.16)."""
_HEAD_BYTES = 1024
"""Readers of PDF look for its mark this far into a file (ISO 32000-1, annex H)."""
_OTHERS = (b"<script", b"<?php", b"<html", b"<svg", b"<!doctype html")


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureLimits:
    """What a picture must be like."""

    least_side: int = 1
    most_side: int = MOST_SIDE
    least_ratio: float = 0.0
    most_ratio: float = float(MOST_SIDE)
    """Width to height."""


def inspect_picture(content: bytes, limits: PictureLimits) -> Picture:
    """Decode a picture and write it anew: JPEG as JPEG, anything else as PNG, of an
    animation the first frame, turned as its EXIF data say.

    Raises ``RemoteProtocolError``: ``UNSUPPORTED_FORMAT`` for what is no picture of a
    known format or also a file of another kind, ``TOO_LARGE`` for too many pixels,
    ``INVALID_PARAMETER`` for another size or ratio than ``limits`` allow.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # damaged metadata; they are not kept
            with Image.open(io.BytesIO(content), formats=tuple(CONTENT_TYPES)) as image:
                _refuse_polyglots(content)
                _check_size(image.width, image.height, limits)
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
