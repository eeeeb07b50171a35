"""Recordings of any common format, decoded as a whole."""

import asyncio
import os
import struct
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import av
import numpy as np
import pytest

from tests.formats.material import ASSETS, RATE_HZ, encoded, likeness, speech, through_av
from voicechat.audio.ogg_pages import OggWriter
from voicechat.audio.wav import wav_header
from voicechat.errors import RemoteProtocolError, Status
from voicechat.processes.forked import ForkServer
from voicechat.runtime.decoding import decode_file, open_decoding

pytestmark = [
    pytest.mark.real_time,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a system that can fork"),
]

FORMATS = {
    "m4a": ("ipod", "aac", 44100),
    "mp4": ("mp4", "aac", 44100),
    "3gp": ("3gp", "libopencore_amrnb", 8000),
    "flv": ("flv", "aac", 44100),
    "wma": ("asf", "wmav2", 44100),
    "mp3": ("mp3", "libmp3lame", 44100),
    "flac": ("flac", "flac", 48000),
    "ogg": ("ogg", "libopus", 48000),
    "webm": ("webm", "libopus", 48000),
    "aac": ("adts", "aac", 44100),
    "amr": ("amr", "libopencore_amrnb", 8000),
    "wav": ("wav", "pcm_s16le", 22050),
}


@pytest.fixture
async def decoding() -> AsyncIterator[ForkServer]:
    server = open_decoding()
    await server.start()
    yield server
    await server.aclose()


async def channels_of(decoding: ForkServer, path: Path) -> list[bytes]:
    joined: list[bytes] = []
    async for piece in decode_file(decoding, path):
        before = joined or [b""] * len(piece.channels)
        joined = [old + new for old, new in zip(before, piece.channels, strict=True)]
    return joined


def record(path: Path, *, video: bool = False) -> None:
    """Write the speech as one track, beside a track of pictures if ``video``."""
    muxer, codec, rate_hz = FORMATS[path.suffix[1:]]
    with av.open(str(path), "w", format=muxer) as output:
        pictures = output.add_stream("mpeg4", rate=10) if video else None
        if pictures is not None:
            pictures.width, pictures.height, pictures.pix_fmt = 64, 64, "yuv420p"
        stream = output.add_stream(codec, rate=rate_hz, layout="mono")
        assert isinstance(stream, av.AudioStream)
        if codec in ("libopencore_amrnb", "wmav2"):
            stream.bit_rate = 12_200 if codec == "libopencore_amrnb" else 64_000
        frame = av.AudioFrame("s16", "mono", len(speech()) // 2)
        frame.sample_rate = RATE_HZ
        frame.planes[0].update(speech())
        for part in av.AudioResampler("s16", "mono", rate_hz).resample(frame):
            part.pts = None
            output.mux(stream.encode(part))
        output.mux(stream.encode(None))
        if pictures is not None:
            for _ in range(10):
                output.mux(pictures.encode(av.VideoFrame(64, 64, "yuv420p")))
            output.mux(pictures.encode(None))


@pytest.mark.parametrize("suffix", FORMATS)
async def test_every_uploaded_format_is_decoded(suffix: str, decoding: ForkServer, tmp_path: Path) -> None:
    path = tmp_path / f"speech.{suffix}"
    record(path, video=suffix == "mp4")
    (pcm,) = await channels_of(decoding, path)
    assert likeness(pcm, speech()) > 0.9
    assert len(pcm) == pytest.approx(len(speech()), rel=0.05)


@pytest.mark.parametrize("name", ["speech.spx", "speech.awb"])
async def test_what_is_shipped_is_decoded(name: str, decoding: ForkServer) -> None:
    (pcm,) = await channels_of(decoding, ASSETS / name)
    assert likeness(pcm, speech()) > 0.9


async def test_the_name_of_a_file_says_nothing(decoding: ForkServer, tmp_path: Path) -> None:
    path = tmp_path / "speech.mp3"
    path.write_bytes(encoded("flac"))
    (pcm,) = await channels_of(decoding, path)
    assert pcm == speech()


async def test_channels_are_kept_apart(decoding: ForkServer, tmp_path: Path) -> None:
    caller = np.frombuffer(speech(), "<i2")
    agent = np.roll(caller, RATE_HZ)
    path = tmp_path / "call.wav"
    both = np.stack([caller, agent], axis=1).tobytes()
    header = wav_header(RATE_HZ, len(both))
    # two channels: four bytes for a frame of samples
    header = header[:22] + struct.pack("<HIIH", 2, RATE_HZ, RATE_HZ * 4, 4) + header[34:]
    path.write_bytes(header + both)
    assert await channels_of(decoding, path) == [caller.tobytes(), agent.tobytes()]


async def test_a_stream_whose_header_knows_no_size_is_read_to_its_end(decoding: ForkServer, tmp_path: Path) -> None:
    path = tmp_path / "reply.wav"
    path.write_bytes(wav_header(RATE_HZ, None) + speech())
    assert await channels_of(decoding, path) == [speech()]


def a_wav(rate_hz: int, data_bytes: int) -> bytes:
    return wav_header(rate_hz, data_bytes) + bytes(100_000)


def an_opus_file(packet: bytes, *, honest: bool) -> bytes:
    """25 MB that last for days, and say so at their end if they are ``honest``."""
    ogg = OggWriter(1)
    head = b"OpusHead" + bytes([1, 1]) + (312).to_bytes(2, "little") + (48000).to_bytes(4, "little") + bytes(3)
    start = ogg.pages([head], 0) + ogg.pages([b"OpusTags" + bytes(8)], 0)
    pages = b"".join(ogg.pages([packet] * 255, 0) for _ in range(50))
    end = ogg.pages([packet], 48_000 * 3600 * 60 if honest else 0)
    return start + pages * (25_000_000 // len(pages)) + end


PLAYLIST = b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n"
NO_RECORDING = (Status.UNDECODABLE_AUDIO, "no recording of a known format")
BAD_FILES: dict[str, tuple[Callable[[], bytes], Status, str]] = {
    "text": (lambda: b"This is no recording.\n" * 1000, *NO_RECORDING),
    "nothing": (bytes, *NO_RECORDING),
    "a playlist": (lambda: PLAYLIST, *NO_RECORDING),
    "a list of files": (lambda: b"ffconcat version 1.0\nfile /etc/passwd\n", *NO_RECORDING),
    "10 Hz": (lambda: a_wav(10, 100_000), Status.UNDECODABLE_AUDIO, "its rate is 10 Hz"),
    "10 MHz": (lambda: a_wav(10_000_000, 100_000), Status.UNDECODABLE_AUDIO, "its rate is 10000000 Hz"),
    "4 GB of wav": (lambda: a_wav(16000, 4_000_000_000), Status.TOO_LARGE, "its header promises 4000000000 bytes"),
    "days": (lambda: an_opus_file(b"\x0b\x06", honest=True), Status.TOO_LARGE, "hours long; allowed: 5"),
    "secret days": (lambda: an_opus_file(b"\x0b\x06", honest=False), Status.TOO_LARGE, "the file unfolds"),
    "secret hours": (lambda: an_opus_file(b"\x08", honest=False), Status.TOO_LARGE, "the file unfolds"),
}


@pytest.mark.parametrize("name", BAD_FILES)
async def test_what_is_no_recording_or_too_much_of_one_is_refused_quickly(
    name: str, decoding: ForkServer, tmp_path: Path
) -> None:
    content, status, reason = BAD_FILES[name]
    path = tmp_path / "file"
    path.write_bytes(content())
    began_s = asyncio.get_running_loop().time()
    with pytest.raises(RemoteProtocolError, match=reason) as refused:
        await channels_of(decoding, path)
    assert refused.value.status is status
    assert asyncio.get_running_loop().time() - began_s < 2  # on a machine of its own: half a second at most


async def test_only_containers_that_are_listed_are_opened(decoding: ForkServer, tmp_path: Path) -> None:
    path = tmp_path / "speech.rso"
    path.write_bytes(through_av(speech(), "pcm_u8", "rso", RATE_HZ))
    with av.open(str(path)) as container:  # FFmpeg could
        assert container.format.name == "rso"
    with pytest.raises(RemoteProtocolError, match="no recording of a known format"):
        await channels_of(decoding, path)


async def test_300_mb_of_tags_are_refused_unread(decoding: ForkServer, tmp_path: Path) -> None:
    path = tmp_path / "file.mp3"
    largest = b"ID3\x04\0\0\x7f\x7f\x7f\x7f"
    with path.open("wb") as file:
        file.write(largest)
        file.truncate(300 << 20)
    with pytest.raises(RemoteProtocolError, match="268435465 bytes of ID3 tags"):
        await channels_of(decoding, path)


async def test_a_file_that_is_not_there_is_told_as_such(decoding: ForkServer, tmp_path: Path) -> None:
    with pytest.raises(RemoteProtocolError, match="it cannot be read: No such file") as refused:
        await channels_of(decoding, tmp_path / "nothing")
    assert refused.value.status is Status.NOT_FOUND


async def test_whoever_stops_reading_leaves_nothing_behind(decoding: ForkServer, tmp_path: Path) -> None:
    path = tmp_path / "long.flac"
    path.write_bytes(encoded("flac"))
    reading = decode_file(decoding, path)
    assert (await anext(reading)).channels
    await reading.aclose()
