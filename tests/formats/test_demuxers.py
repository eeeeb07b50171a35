"""What only a look at the packets shows."""

import io

import av
import pytest

from tests.formats.checksums import crc
from tests.formats.material import RATE_HZ, encoded, speech, through_av
from voicechat.audio.demux.flac import FlacDemuxer
from voicechat.audio.demux.ogg import OggDemuxer
from voicechat.audio.demux.stream import Demuxer, StreamStart
from voicechat.audio.demux.webm import WebmDemuxer
from voicechat.audio.ogg_pages import OggWriter


def packets(demuxer: Demuxer, stream: bytes) -> list[bytes]:
    return [
        item
        for item in [*demuxer.push_bytes(stream), *demuxer.finish_stream()]
        if isinstance(item, bytes)
    ]


def as_ffmpeg_has_them(stream: bytes) -> list[bytes]:
    with av.open(io.BytesIO(stream), "r") as container:
        return [
            bytes(packet) for packet in container.demux(container.streams.audio[0]) if packet.size
        ]


@pytest.mark.parametrize("bit_rate", [8_000, 256_000])
@pytest.mark.parametrize(("container", "demuxer"), [("ogg", OggDemuxer), ("webm", WebmDemuxer)])
def test_packets_are_those_that_were_put_in(
    container: str, demuxer: type[OggDemuxer] | type[WebmDemuxer], bit_rate: int
) -> None:
    stream = through_av(speech(), "libopus", container, 48000, 1, bit_rate)
    found = packets(demuxer(), stream)
    assert found == as_ffmpeg_has_them(stream)
    assert (max(map(len, found)) > 255) == (bit_rate > 100_000)  # with Ogg's lacing and without


def test_flac_frames_are_those_that_were_put_in() -> None:
    assert packets(FlacDemuxer(), encoded("flac")) == as_ffmpeg_has_them(encoded("flac"))


def test_a_damaged_page_is_left_out_and_the_next_one_is_not() -> None:
    ogg = OggWriter(7)
    head = b"OpusHead" + bytes([1, 1]) + bytes(9)
    pages = [ogg.pages([packet], 0) for packet in (head, b"OpusTags", b"one", b"two", b"three")]
    pages[3] = pages[3].replace(b"two", b"twO")
    assert packets(OggDemuxer(), b"".join(pages)) == [b"one", b"three"]


def test_a_packet_over_several_pages_is_put_together_unless_a_part_is_missing() -> None:
    ogg = OggWriter(7)
    head = b"OpusHead" + bytes([1, 1]) + bytes(9)
    long = bytes(range(255)) + b"end"
    first, second = ogg.pages([head], 0) + ogg.pages([b"OpusTags"], 0), ogg.pages([long], 0)
    assert packets(OggDemuxer(), first + second) == [long]


def test_only_the_first_opus_track_of_a_webm_file_is_heard() -> None:
    file = io.BytesIO()
    with av.open(file, "w", format="webm") as output:
        streams = [output.add_stream("libopus", rate=48000, layout="mono") for _ in range(2)]
        for stream in streams:
            assert isinstance(stream, av.AudioStream)
            frame = av.AudioFrame("s16", "mono", 48000)
            frame.sample_rate = 48000
            frame.planes[0].update(bytes(96000))
            output.mux(stream.encode(frame))
            output.mux(stream.encode(None))
    both = file.getvalue()
    assert packets(WebmDemuxer(), both) == as_ffmpeg_has_them(both)


def flac_frame(number: int, samples: bytes) -> bytes:
    """A frame of verbatim 16-bit samples, at most 256, at 8 kHz."""
    header = b"\xff\xf8\x64\x08" + bytes([number, len(samples) // 2 - 1])
    frame = header + crc(header, 8, 0x07) + b"\x02" + samples
    return frame + crc(frame, 16, 0x8005)


def test_samples_that_look_like_a_frames_header_do_not_end_a_frame() -> None:
    streaminfo = (
        (16).to_bytes(2, "big") * 2
        + bytes(6)
        + (8000 << 44 | 15 << 36).to_bytes(8, "big")
        + bytes(16)
    )
    header = flac_frame(1, bytes(64))[:7]
    frames = [flac_frame(0, bytes(64)), flac_frame(1, header + bytes(57)), flac_frame(2, bytes(64))]
    assert packets(FlacDemuxer(), b"fLaC\x80\0\0\x22" + streaminfo + b"".join(frames)) == frames


def test_a_stream_says_how_it_is_to_be_decoded_once() -> None:
    for demuxer, name in (
        (OggDemuxer(), "speex"),
        (WebmDemuxer(), "webm"),
        (FlacDemuxer(), "flac"),
    ):
        items = list(demuxer.push_bytes(encoded(name)))
        assert isinstance(items[0], StreamStart)
        assert not any(isinstance(item, StreamStart) for item in items[1:])
        assert items[0].rate_hz in (None, RATE_HZ, 48000)
