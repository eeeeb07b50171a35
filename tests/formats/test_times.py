"""Where sound stands in time when its container says so: late tracks, packets left
out.
"""

import io
import os
from collections.abc import AsyncIterator
from pathlib import Path

import av
import numpy as np
import pytest
import pytest_asyncio

from tests.formats.material import RATE_HZ, decoded, encoded, samples, speech, through_av
from voicechat.audio.formats import InputContainer
from voicechat.audio.ogg_pages import OggWriter
from voicechat.processes.forked import ForkServer
from voicechat.runtime.decoding import decode_file, open_decoding

pytestmark = [
    pytest.mark.real_time,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a system that can fork"),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def decoding() -> AsyncIterator[ForkServer]:
    server = open_decoding()
    await server.start()
    yield server
    await server.aclose()


async def first_channel(decoding: ForkServer, path: Path) -> bytes:
    return b"".join([piece.channels[0] async for piece in decode_file(decoding, path)])


def sound_at(pcm: bytes) -> list[float]:
    """Seconds at which sound begins after half a second without any."""
    step = RATE_HZ // 100
    signal = np.abs(samples(pcm[: len(pcm) // 2 // step * step * 2]))
    loud = signal.reshape(-1, step).max(axis=1) > 1500
    begins = [at for at in np.flatnonzero(loud) if not loud[max(0, at - 50) : at].any()]
    return [at / 100 for at in begins]


TONE = (np.sin(np.arange(RATE_HZ) * 0.3) * 12000).astype("<i2").tobytes()


def timed(
    container: str, codec: str, rate_hz: int, *begins_s: float, with_video: bool = False
) -> bytes:
    """A second of sound at each of these times, and no packets between them."""
    sound = through_av(TONE, codec, CARRIERS.get(container, container), rate_hz, bit_rate=64_000)
    file = io.BytesIO()
    with (
        av.open(file, "w", format=container) as output,
        av.open(io.BytesIO(sound), "r") as template,
    ):
        pictures = output.add_stream("mpeg4", rate=10) if with_video else None
        stream = output.add_stream_from_template(template.streams.audio[0])
        if pictures is not None:
            pictures.width, pictures.height, pictures.pix_fmt = 64, 64, "yuv420p"
            for _ in range(10):
                output.mux(pictures.encode(av.VideoFrame(64, 64, "yuv420p")))
            output.mux(pictures.encode(None))
        for begin_s in begins_s:
            with av.open(io.BytesIO(sound), "r") as source:
                for packet in source.demux(source.streams.audio[0]):
                    if packet.pts is None or packet.dts is None:
                        continue
                    shift = round(begin_s / packet.time_base)
                    packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                    packet.stream = stream
                    output.mux(packet)
    return file.getvalue()


CARRIERS = {"mpegts": "adts", "matroska": "matroska", "flv": "mp4"}
"""Of the sound, where the container itself would not give back what it was given."""

TIMED = {
    "mka": ("matroska", "libopus", 48000),
    "webm": ("webm", "libopus", 48000),
    "mka of samples": ("matroska", "pcm_s16le", 16000),
    "mp4": ("mp4", "aac", 48000),
    "mov": ("mov", "aac", 48000),
}


@pytest.mark.parametrize("name", TIMED)
async def test_a_track_that_begins_late_and_a_gap_in_it_are_silence(
    name: str, decoding: ForkServer, tmp_path: Path
) -> None:
    path = tmp_path / "file"
    path.write_bytes(timed(*TIMED[name], 5.0, 9.0))
    begins = sound_at(await first_channel(decoding, path))
    assert begins == pytest.approx([5.0, 9.0], abs=0.1)


@pytest.mark.parametrize(
    "kind",
    [
        ("mpegts", "aac", 48000),
        ("flv", "aac", 44100),
        ("asf", "wmav2", 44100),
        ("ogg", "libopus", 48000),
    ],
)
async def test_a_clock_that_begins_anywhere_counts_from_its_beginning(
    kind: tuple[str, str, int], decoding: ForkServer, tmp_path: Path
) -> None:
    path = tmp_path / "file"
    path.write_bytes(timed(*kind, 700.0, 704.0))
    begins = sound_at(await first_channel(decoding, path))
    assert begins == pytest.approx([0.0, 4.0], abs=0.15)


async def test_sound_that_begins_after_the_pictures_stands_where_they_are(
    decoding: ForkServer, tmp_path: Path
) -> None:
    path = tmp_path / "file"
    path.write_bytes(timed("mpegts", "aac", 48000, 3.0, with_video=True))
    assert sound_at(await first_channel(decoding, path)) == pytest.approx([3.0], abs=0.15)


def left_out(container: str, from_s: float, to_s: float) -> bytes:
    """The tone for twelve seconds in Opus, without the packets of some time, as DTX
    leaves them out.
    """
    sound = through_av(
        TONE * 12, "libopus", container, 48000, page_duration="20000" if container == "ogg" else "0"
    )
    file = io.BytesIO()
    options = {"page_duration": "20000"} if container == "ogg" else {}
    with (
        av.open(file, "w", format=container, options=options) as output,
        av.open(io.BytesIO(sound), "r") as source,
    ):
        stream = output.add_stream_from_template(source.streams.audio[0])
        for packet in source.demux(source.streams.audio[0]):
            if packet.pts is not None and not from_s <= packet.pts * packet.time_base < to_s:
                packet.stream = stream
                output.mux(packet)
    return file.getvalue()


@pytest.mark.parametrize("container", ["ogg", "webm"])
@pytest.mark.parametrize("frame_bytes", [97, 100_000])
async def test_packets_left_out_of_a_stream_are_silence(container: str, frame_bytes: int) -> None:
    stream = left_out(container, 3.0, 8.0)
    declared = InputContainer.OPUS if container == "ogg" else InputContainer.WEBM
    pcm = decoded(declared, stream, [frame_bytes] * (len(stream) // frame_bytes))
    assert sound_at(pcm) == pytest.approx([0.0, 8.0], abs=0.1)
    assert len(pcm) / 32_000 == pytest.approx(12.0, abs=0.1)


async def test_a_silence_of_hours_is_a_clock_that_was_set() -> None:
    ogg = OggWriter(1)
    head = (
        b"OpusHead"
        + bytes([1, 1])
        + (0).to_bytes(2, "little")
        + (48000).to_bytes(4, "little")
        + bytes(3)
    )
    packet = b"\x08"  # 20 ms of silence
    positions = [960, 1920, 1920 + 48_000 * 3600, 1920 + 48_000 * 3600 + 960, 960]
    stream = ogg.pages([head], 0) + ogg.pages([b"OpusTags" + bytes(8)], 0)
    stream += b"".join(ogg.pages([packet], position) for position in positions)
    assert len(decoded(InputContainer.OPUS, stream)) / 32 == pytest.approx(100, abs=5)


async def test_a_clock_that_was_set_forward_or_back_leaves_no_silence(
    decoding: ForkServer, tmp_path: Path
) -> None:
    path = tmp_path / "file"
    path.write_bytes(timed("matroska", "pcm_s16le", 16000, 0.0, 10_000.0, 10_003.0))
    assert sound_at(await first_channel(decoding, path)) == pytest.approx([0.0, 4.0], abs=0.1)
    path.write_bytes(encoded("opus") + encoded("opus"))  # the second one's times begin anew
    pcm = await first_channel(decoding, path)
    assert len(pcm) == pytest.approx(2 * len(speech()), rel=0.02)
