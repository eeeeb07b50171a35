"""Fragmented MP4 while it arrives, as Safari's and Chromium's MediaRecorder send it."""

import io
import struct

import av
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.formats.material import RATE_HZ, decoded, encoded, likeness, speech, through_av
from voicechat.audio.compressed import CompressedDecoder
from voicechat.audio.demux.mp4 import Mp4Demuxer
from voicechat.audio.formats import InputContainer, parse_input_format
from voicechat.errors import RemoteProtocolError, Status

FRAGMENTED = {"movflags": "empty_moov+default_base_moof", "frag_duration": "200000"}


def with_pictures() -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format="mp4", options=FRAGMENTED) as output:
        pictures = output.add_stream("mpeg4", rate=10)
        sound = output.add_stream("aac", rate=44100, layout="mono")
        assert isinstance(sound, av.AudioStream)
        pictures.width, pictures.height, pictures.pix_fmt = 64, 64, "yuv420p"
        frame = av.AudioFrame("s16", "mono", len(speech()) // 2)
        frame.sample_rate = RATE_HZ
        frame.planes[0].update(speech())
        for part in av.AudioResampler("s16", "mono", 44100).resample(frame):
            part.pts = None
            output.mux(sound.encode(part))
        output.mux(sound.encode(None))
        for _ in range(30):
            output.mux(pictures.encode(av.VideoFrame(64, 64, "yuv420p")))
        output.mux(pictures.encode(None))
    return file.getvalue()


STREAMS = {
    "aac": encoded("mp4"),
    "opus": encoded("mp4-opus"),
    "flac": encoded("mp4-flac"),
    "with pictures": with_pictures(),
    "offsets from the beginning": through_av(
        speech(), "aac", "mp4", 44100, movflags="empty_moov", frag_duration="200000"
    ),
    "segments": through_av(speech(), "aac", "mp4", 44100, movflags="cmaf", frag_duration="200000"),
}


@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.parametrize("declared", [InputContainer.MP4, InputContainer.AAC])
def test_it_is_heard(name: str, declared: InputContainer) -> None:
    pcm = decoded(declared, STREAMS[name])
    assert likeness(pcm, speech()) > 0.9
    assert len(pcm) == pytest.approx(len(speech()), rel=0.05)


@settings(max_examples=20)
@given(st.sampled_from(sorted(STREAMS)), st.lists(st.integers(1, 3000), max_size=40))
def test_how_it_is_cut_changes_nothing(name: str, cuts: list[int]) -> None:
    whole = decoded(InputContainer.MP4, STREAMS[name])
    assert decoded(InputContainer.MP4, STREAMS[name], cuts) == whole


def test_a_packet_is_given_when_its_last_byte_has_come() -> None:
    demuxer, stream = Mp4Demuxer(), STREAMS["aac"]
    items = [item for byte in stream for item in demuxer.push_bytes(bytes([byte]))]
    packets = [item for item in items if isinstance(item, bytes)]
    with av.open(io.BytesIO(stream), "r") as container:
        expected = [bytes(packet) for packet in container.demux(container.streams.audio[0])]
    assert packets == [packet for packet in expected if packet]


def test_the_next_turn_may_begin_another_recording() -> None:
    decoder = CompressedDecoder(InputContainer.MP4)
    turns = [
        b"".join([*decoder.decode(STREAMS[name]), *decoder.finish_turn()])
        for name in ("aac", "opus")
    ]
    for pcm in turns:
        assert likeness(pcm, speech()) > 0.9


def test_m4a_is_another_name_of_it() -> None:
    assert parse_input_format("m4a", 16000).container is InputContainer.MP4


def index_first() -> bytes:
    """A recording with its index in front of the sound, as it is put on the web."""
    whole = through_av(speech(), "aac", "mp4", 44100)
    start = whole.index(b"moov") - 4
    first_bytes = int.from_bytes(whole[:4], "big")
    return whole[:first_bytes] + whole[start:] + whole[first_bytes:start]


REFUSED = {
    "recorded to its end": (through_av(speech(), "aac", "mp4", 44100), 41501, "not fragmented"),
    "index before the sound": (index_first(), 41501, "not fragmented"),
    "another codec": (
        through_av(speech(), "alac", "mp4", 44100, 1, 0, **FRAGMENTED), 41501, "carries 'alac'; supported: AAC"
    ),
    "no boxes": (b"\0\0\0\x08ftyp" + bytes(100), 41502, "what should be a box is none"),
    "a long index": (b"\0\0\0\x08ftyp" + struct.pack(">I4s", 1 << 24, b"moov"), 41502, "has 16777216"),
    "a long box": (b"\0\0\0\x08ftyp" + struct.pack(">I4s", 1 << 31, b"free"), 41502, "has 2147483648"),
    "a fragment first": (b"\0\0\0\x08ftyp\0\0\0\x08moof", 41502, "before the description"),
    "webm": (encoded("webm"), 41502, "declare format webm"),
    "wav": (b"RIFF\x24\0\0\0WAVEfmt ", 41502, "declare format wav"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_heard_while_it_arrives_is_told_at_once(name: str) -> None:
    content, status, reason = REFUSED[name]
    with pytest.raises(RemoteProtocolError, match=reason) as refused:
        decoded(InputContainer.MP4, content[:5000], [1000] * 5)
    assert refused.value.status is Status(status)


@settings(max_examples=60)
@given(st.data())
def test_any_damage_is_passed_over_or_refused(data: st.DataObject) -> None:
    stream = bytearray(STREAMS["aac"])
    places = data.draw(st.lists(st.integers(0, len(stream) - 1), min_size=1, max_size=12))
    for at in places:
        stream[at] ^= data.draw(st.integers(1, 255))
    decoder, first = CompressedDecoder(InputContainer.MP4), min(places)
    before = b"".join(decoder.decode(bytes(stream[:first])))
    assert decoded(InputContainer.MP4, STREAMS["aac"]).startswith(before)
    after, refused_as = b"", None
    try:
        after = b"".join([*decoder.decode(bytes(stream[first:])), *decoder.finish_turn()])
    except RemoteProtocolError as error:
        refused_as = error.status
    assert refused_as in (None, Status.UNDECODABLE_AUDIO, Status.UNSUPPORTED_FORMAT)
    # What is lost may become silence; nothing becomes longer than it was by a second.
    assert len(before + after) <= len(speech()) + 2 * RATE_HZ
