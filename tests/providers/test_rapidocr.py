"""RapidOCR with the models of its package, on a small page."""

import io
from pathlib import Path

import pylopdf_fonts_zh_cn
import pytest
from PIL import Image, ImageDraw, ImageFont

from voicechat.pictures.inspection import read_size
from voicechat.pictures.picture import Picture
from voicechat.providers.rapidocr import open_text_reader

pytestmark = [pytest.mark.long, pytest.mark.real_time]
FONT = Path(pylopdf_fonts_zh_cn.__file__).with_name("NotoSansSC-Regular.otf")
LINES = ("图片里的文字按顺序输出", "The library opens at nine")


def page(*lines: str) -> Picture:
    image = Image.new("RGBA", (480, 160), (255, 255, 255, 0))
    draw = ImageDraw.Draw(image)
    font = ImageFont.truetype(str(FONT), 28)
    for number, line in enumerate(lines):
        draw.text((30, 20 + 70 * number), line, fill="black", font=font)
    written = io.BytesIO()
    image.save(written, "PNG")
    return read_size(written.getvalue())


async def test_text_is_read_with_its_place() -> None:
    reader = open_text_reader(threads=1)
    try:
        first, second = await reader.read_text(page(*LINES))
        assert (first.text, second.text) == LINES
        assert abs(first.left - 30) < 12
        assert abs(first.top - 24) < 15
        assert first.bottom <= second.top < second.bottom <= 160
        assert await reader.read_text(page()) == ()
    finally:
        await reader.aclose()
