"""Untrusted pictures: what is refused, and what is left of the others."""

import io
import struct
import zlib
from collections.abc import AsyncIterator

import pytest
from PIL import Image

from tests.pictures.bombs import written
from voicechat.errors import RemoteProtocolError, Status
from voicechat.pictures.inspection import PictureLimits, inspect_picture
from voicechat.pictures.inspector import PictureInspector
from voicechat.pictures.picture import CONTENT_TYPES


def png_claiming(width: int, height: int, pixels: bytes = b"") -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        crc = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(pixels))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("kind", CONTENT_TYPES)
def test_every_format_is_written_anew(kind: str) -> None:
    found = inspect_picture(written(kind), PictureLimits())
    assert (found.width, found.height) == (40, 20)
    assert found.content_type == ("image/jpeg" if kind == "JPEG" else "image/png")


def test_only_the_pixels_are_left_and_they_stand_upright() -> None:
    exif = Image.Exif()
    exif[0x010E] = "taken at home"
    exif[0x0112] = 6  # turned by 90 degrees
    found = inspect_picture(written("JPEG", exif=exif), PictureLimits())
    assert (found.width, found.height) == (20, 40)
    assert b"home" not in found.content
    assert b"Exif" not in found.content


ZIP = b"PK\x05\x06" + bytes(18)
REFUSED = {
    "svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", Status.UNSUPPORTED_FORMAT),
    "nothing": (b"", Status.UNSUPPORTED_FORMAT),
    "half a picture": (written()[:60], Status.UNSUPPORTED_FORMAT),
    "a picture and a ZIP": (written() + ZIP, Status.UNSUPPORTED_FORMAT),
    "a JPEG and a page": (
        written("JPEG", comment=b"<script>alert(1)</script>"),
        Status.UNSUPPORTED_FORMAT,
    ),
    "a JPEG and a PDF": (written("JPEG", comment=b"%PDF-1.7"), Status.UNSUPPORTED_FORMAT),
    "a GIF that is a script": (b"GIF89a=1;" + written("GIF")[6:], Status.UNSUPPORTED_FORMAT),
    "30,000 pixels": (png_claiming(30_000, 30_000), Status.TOO_LARGE),
    "too many pixels": (png_claiming(8_000, 8_000), Status.TOO_LARGE),
    "less pixels than claimed": (png_claiming(4_000, 4_000), Status.UNSUPPORTED_FORMAT),
}


@pytest.mark.parametrize("name", REFUSED)
def test_others_are_refused(name: str) -> None:
    content, status = REFUSED[name]
    with pytest.raises(RemoteProtocolError) as refused:
        inspect_picture(content, PictureLimits())
    assert refused.value.status is status


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (PictureLimits(least_side=30), "40 x 20 pixels; each side should have 30 to"),
        (PictureLimits(most_side=39), "each side should have 1 to 39"),
        (PictureLimits(least_ratio=2.1), "width is 2.00 of its height; it should be 2.1"),
        (PictureLimits(most_ratio=1.9), "it should be 0 to 1.9"),
    ],
)
def test_limits(limits: PictureLimits, message: str) -> None:
    with pytest.raises(RemoteProtocolError, match=message):
        inspect_picture(written(), limits)


@pytest.fixture
async def inspector() -> AsyncIterator[PictureInspector]:
    inspector = PictureInspector()
    yield inspector
    await inspector.aclose()


@pytest.mark.long
@pytest.mark.real_time
async def test_a_process_of_its_own_does_it(inspector: PictureInspector) -> None:
    found = await inspector.inspect(written("WEBP"), "image")
    assert (found.content_type, found.width) == ("image/png", 40)
    for content, status in REFUSED.values():
        with pytest.raises(RemoteProtocolError, match=r"^image: ") as refused:
            await inspector.inspect(content, "image")
        assert refused.value.status is status
    # One that is within the limits goes through after all these.
    noise = io.BytesIO()
    Image.effect_noise((2_000, 2_000), 50).save(noise, "JPEG")
    assert (await inspector.inspect(noise.getvalue(), "image")).width == 2_000
