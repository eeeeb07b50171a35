"""Pictures enlarged and sharpened by classical filters, without a model.

A median filter removes noise, Lanczos resampling enlarges the picture, and an unsharp
mask sharpens its edges. Unlike super-resolution models, this adds nothing that the
picture does not show: a blurred text becomes larger and clearer, but not readable.
"""

import asyncio
import io
from typing import Annotated

from PIL import Image, ImageFilter
from pydantic import Field

from voicechat.pictures.picture import Picture
from voicechat.providers.media import ImageEnhancer

MOST_PIXELS = 24_000_000
"""Bound of a result. A large picture is enlarged less, or not at all."""


def open_enhancer(
    *,
    scale: Annotated[float, Field(ge=1, le=4)] = 2.0,
    sharpness_percent: Annotated[int, Field(ge=0, le=500)] = 120,
) -> "SharpeningEnhancer":
    """Open the enhancer. ``scale``: how much larger the result is on each side.
    ``sharpness_percent``: the strength of the unsharp mask.
    """
    return SharpeningEnhancer(scale, sharpness_percent)


class SharpeningEnhancer(ImageEnhancer):
    """An `ImageEnhancer` that computes in a thread."""

    def __init__(self, scale: float, sharpness_percent: int) -> None:
        self._scale = scale
        self._sharpness_percent = sharpness_percent

    async def enhance_image(self, picture: Picture) -> Picture:
        """Return a PNG. Pillow's filters release the interpreter lock."""
        return await asyncio.to_thread(self._enhanced, picture)

    def _enhanced(self, picture: Picture) -> Picture:
        scale = min(self._scale, (MOST_PIXELS / (picture.width * picture.height)) ** 0.5)
        with Image.open(io.BytesIO(picture.content)) as image:
            pixels = image.convert("RGBA" if "A" in image.getbands() else "RGB")
        pixels = pixels.filter(ImageFilter.MedianFilter(3))
        if scale > 1:
            size = (round(picture.width * scale), round(picture.height * scale))
            pixels = pixels.resize(size, Image.Resampling.LANCZOS)
        pixels = pixels.filter(ImageFilter.UnsharpMask(2, self._sharpness_percent, 2))
        written = io.BytesIO()
        pixels.save(written, "PNG", compress_level=1)
        return Picture(written.getvalue(), "image/png", pixels.width, pixels.height)
