"""A picture in memory."""

from dataclasses import dataclass

CONTENT_TYPES = {
    "JPEG": "image/jpeg",
    "PNG": "image/png",
    "WEBP": "image/webp",
    "GIF": "image/gif",
    "BMP": "image/bmp",
    "TIFF": "image/tiff",
}
"""The formats that are read, by Pillow's names."""

SUFFIXES = {
    "image/jpeg": "jpg",
    "image/png": "png",
    "image/webp": "webp",
    "image/gif": "gif",
    "image/bmp": "bmp",
    "image/tiff": "tiff",
    "video/mp4": "mp4",
}
"""Endings of file names, by media type."""


@dataclass(frozen=True, slots=True, repr=False)
class Picture:
    """A picture file and its size in pixels."""

    content: bytes
    content_type: str
    width: int
    height: int
