"""Recordings of any common format, decoded as a whole."""

import asyncio
import os
import struct
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import av
import numpy as np
import pytest
import pytest_asyncio

from tests.formats.material import (
    ASSETS,
    RATE_HZ,
    encoded,
    encoded_from,
    likeness,
    speech,
    through_av,
)
from voicechat.audio.formats import InputContainer, InputFormat
from voicechat.audio.ogg_pages import OggWriter
from voicechat.audio.signatures import SIGNATURE_BYTES, is_refused
from voicechat.audio.wav import wav_header
from voicechat.errors import RemoteProtocolError, Status
from voicechat.processes.forked import ForkServer
from voicechat.runtime.decoding import decode_file, open_decoding

pytestmark = [
    pytest.mark.real_time,
    pytest.mark.asyncio(loop_scope="module"),
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


def fragmented_mp4() -> bytes:
    flags = "frag_keyframe+empty_moov+default_base_moof"
    return through_av(speech(), "aac", "mp4", 44100, movflags=flags)


AN_APE_TAG = b"APETAGEX" + struct.pack("<IIII", 2000, 32, 0, 0xA0000000) + bytes(8) + bytes(32)


def with_tags(pcm: bytes) -> bytes:
    header = wav_header(RATE_HZ, len(pcm))
    return header[:36] + b"LIST" + struct.pack("<I", 70_000) + bytes(70_000) + header[36:] + pcm


OTHER_FORMATS: dict[str, Callable[[], bytes]] = {
    "aiff": lambda: through_av(speech(), "pcm_s16be", "aiff", RATE_HZ),
    "caf": lambda: through_av(speech(), "pcm_s16le", "caf", RATE_HZ),
    "rf64": lambda: through_av(speech(), "pcm_s16le", "wav", RATE_HZ, rf64="always"),
    "w64": lambda: through_av(speech(), "pcm_s16le", "w64", RATE_HZ),
    "au": lambda: through_av(speech(), "pcm_s16be", "au", RATE_HZ),
    "voc": lambda: through_av(speech(), "pcm_s16le", "voc", RATE_HZ),
    "ts": lambda: through_av(speech(), "aac", "mpegts", 44100),
    "mpeg": lambda: through_av(speech(), "mp2", "mpeg", 44100),
    "avi": lambda: through_av(speech(), "libmp3lame", "avi", 44100),
    "nut": lambda: through_av(speech(), "libmp3lame", "nut", 44100),
    "ac3": lambda: through_av(speech(), "ac3", "ac3", 44100),
    "wv": lambda: through_av(speech(), "wavpack", "wv", 44100),
    "tta": lambda: through_av(speech(), "tta", "tta", 44100),
    "fragmented mp4": lambda: fragmented_mp4(),
    "mov with an atom before its own": lambda: b"\0\0\0\x08skip" + fragmented_mp4(),
    "mp3 after an APE tag": lambda: AN_APE_TAG + encoded("mp3"),
    "wav with long tags": lambda: with_tags(speech()),
}


@pytest.mark.parametrize("name", OTHER_FORMATS)
async def test_whatever_ffmpeg_reads_by_itself_is_a_recording(
    name: str, decoding: ForkServer, tmp_path: Path
) -> None:
    path = tmp_path / "file"
    path.write_bytes(OTHER_FORMATS[name]())
    assert not is_refused(path.read_bytes()[:SIGNATURE_BYTES])
    (pcm,) = await channels_of(decoding, path)
    assert likeness(pcm, speech()) > 0.9


JOINED = {
    "mp3, then of two channels": (encoded("mp3") + encoded("mp3-44k-stereo"), 1),
    "mp3 of two channels, then of one": (encoded("mp3-44k-stereo") + encoded("mp3"), 2),
    "opus, then of two channels": (encoded("opus") + encoded("opus-stereo"), 1),
    "opus of two channels, then of one": (encoded("opus-stereo") + encoded("opus"), 2),
    "aac, then of two channels": (encoded("aac") + encoded("aac-44k-stereo"), 1),
}


@pytest.mark.parametrize("name", JOINED)
async def test_a_file_whose_channels_change_is_heard_to_its_end(
    name: str, decoding: ForkServer, tmp_path: Path
) -> None:
    content, count = JOINED[name]
    path = tmp_path / "file"
    path.write_bytes(content)
    channels = await channels_of(decoding, path)
    assert len(channels) == count
    for pcm in channels:
        assert len(pcm) == pytest.approx(2 * len(speech()), rel=0.05)
        assert likeness(pcm[-len(speech()) :], speech()) > 0.9


def bare(codec: str, container: str) -> bytes:
    return through_av(speech(), codec, container, RATE_HZ)


BARE: dict[str, tuple[InputFormat, Callable[[], bytes]]] = {
    "pcm": (InputFormat(InputContainer.PCM, 16000), speech),
    "mulaw": (InputFormat(InputContainer.MU_LAW, 16000), lambda: bare("pcm_mulaw", "mulaw")),
    "alaw": (InputFormat(InputContainer.A_LAW, 16000), lambda: bare("pcm_alaw", "alaw")),
    "g722": (InputFormat(InputContainer.G722, 16000), lambda: encoded("g722")),
}


@pytest.mark.parametrize("name", BARE)
async def test_samples_without_a_header_are_read_as_they_are_declared(
    name: str, decoding: ForkServer, tmp_path: Path
) -> None:
    declared, content = BARE[name]
    path = tmp_path / "file"
    path.write_bytes(content())
    pieces = [piece async for piece in decode_file(decoding, path, declared)]
    assert likeness(b"".join(piece.channels[0] for piece in pieces), speech()) > 0.9
    assert pieces[0].source_rate_hz == 16000


async def test_a_header_goes_before_what_is_declared(decoding: ForkServer, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(encoded("flac"))
    declared = InputFormat(InputContainer.PCM, 8000)
    pieces = [piece async for piece in decode_file(decoding, path, declared)]
    assert b"".join(piece.channels[0] for piece in pieces) == speech()
    assert pieces[0].source_rate_hz == 16000


@pytest.mark.parametrize(
    ("content", "rate_hz"),
    [
        (wav_header(8000, None) + bytes(8000), 8000),
        (encoded("amr-nb"), 8000),
        (encoded_from("opus", 8000), 8000),
    ],
)
async def test_a_recording_tells_the_rate_of_its_sound(
    content: bytes, rate_hz: int, decoding: ForkServer, tmp_path: Path
) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    pieces = [piece async for piece in decode_file(decoding, path)]
    assert {piece.source_rate_hz for piece in pieces} == {rate_hz}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
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
async def test_every_uploaded_format_is_decoded(
    suffix: str, decoding: ForkServer, tmp_path: Path
) -> None:
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


async def test_a_stream_whose_header_knows_no_size_is_read_to_its_end(
    decoding: ForkServer, tmp_path: Path
) -> None:
    path = tmp_path / "reply.wav"
    path.write_bytes(wav_header(RATE_HZ, None) + speech())
    assert await channels_of(decoding, path) == [speech()]


def a_wav(rate_hz: int, data_bytes: int) -> bytes:
    return wav_header(rate_hz, data_bytes) + bytes(100_000)


def an_opus_file(packet: bytes, *, honest: bool) -> bytes:
    """25 MB that last for days, and say so at their end if they are ``honest``."""
    ogg = OggWriter(1)
    head = (
        b"OpusHead"
        + bytes([1, 1])
        + (312).to_bytes(2, "little")
        + (48000).to_bytes(4, "little")
        + bytes(3)
    )
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
    "10 MHz": (
        lambda: a_wav(10_000_000, 100_000),
        Status.UNDECODABLE_AUDIO,
        "its rate is 10000000 Hz",
    ),
    "4 GB of wav": (
        lambda: a_wav(16000, 4_000_000_000),
        Status.TOO_LARGE,
        "its header promises 4000000000 bytes",
    ),
    "days": (
        lambda: an_opus_file(b"\x0b\x06", honest=True),
        Status.TOO_LARGE,
        "hours long; allowed: 5",
    ),
    "secret days": (
        lambda: an_opus_file(b"\x0b\x06", honest=False),
        Status.TOO_LARGE,
        "the file unfolds",
    ),
    "secret hours": (
        lambda: an_opus_file(b"\x08", honest=False),
        Status.TOO_LARGE,
        "the file unfolds",
    ),
}


@pytest.mark.parametrize("name", BAD_FILES)
async def test_what_is_no_recording_or_too_much_of_one_is_refused_quickly(
    name: str, decoding: ForkServer, tmp_path: Path
) -> None:
    content, status, reason = BAD_FILES[name]
    path = tmp_path / "file"
    path.write_bytes(content())
    async with asyncio.timeout(30):  # on a machine of its own: half a second at most
        with pytest.raises(RemoteProtocolError, match=reason) as refused:
            await channels_of(decoding, path)
    assert refused.value.status is status


async def test_only_containers_that_are_listed_are_opened(
    decoding: ForkServer, tmp_path: Path
) -> None:
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


async def test_a_file_that_is_not_there_is_told_as_such(
    decoding: ForkServer, tmp_path: Path
) -> None:
    with pytest.raises(RemoteProtocolError, match="it cannot be read: No such file") as refused:
        await channels_of(decoding, tmp_path / "nothing")
    assert refused.value.status is Status.NOT_FOUND


async def test_whoever_stops_reading_leaves_nothing_behind(
    decoding: ForkServer, tmp_path: Path
) -> None:
    path = tmp_path / "long.flac"
    path.write_bytes(encoded("flac"))
    reading = decode_file(decoding, path)
    assert (await anext(reading)).channels
    await reading.aclose()
