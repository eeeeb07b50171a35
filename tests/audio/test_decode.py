import struct

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from voicechat.audio.decode import MAX_CLIPS_PER_FRAME, MAX_RATE_CHANGES, Decoder, open_decoder
from voicechat.audio.formats import InputContainer, InputFormat, parse_input_format
from voicechat.audio.riff import MAX_FORMAT_BYTES
from voicechat.audio.wav import wav_header
from voicechat.errors import RemoteProtocolError, Status

A = np.arange(1, 401, dtype="<i2").tobytes()
B = np.arange(-400, 0, dtype="<i2").tobytes()


def wav(rate_hz: int = 16000) -> Decoder:
    return open_decoder(parse_input_format("wav", rate_hz))


def clip(pcm: bytes, rate_hz: int = 16000) -> bytes:
    return wav_header(rate_hz, len(pcm)) + pcm


def chunk(name: bytes, body: bytes) -> bytes:
    return name + struct.pack("<I", len(body)) + body + bytes(len(body) % 2)


def fmt(
    *, tag: int = 1, channels: int = 1, rate_hz: int = 16000, bits: int = 16, more: bytes = b""
) -> bytes:
    frame_bytes = channels * bits // 8
    return chunk(
        b"fmt ",
        struct.pack(
            "<HHIIHH",
            tag,
            channels,
            rate_hz,
            rate_hz * frame_bytes & 0xFFFFFFFF,
            frame_bytes & 0xFFFF,
            bits,
        )
        + more,
    )


def riff(*chunks: bytes) -> bytes:
    body = b"WAVE" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def decoded(decoder: Decoder, *frames: bytes) -> bytes:
    return b"".join([decoder.decode(frame) for frame in frames]) + decoder.finish_turn()


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    frames, position = [], 0
    for size in sizes:
        frames.append(data[position : position + size])
        position += size
    return [*frames, data[position:]]


STREAMS = {
    "bare samples": A + B,
    "clip": clip(A),
    "clip of unknown size": wav_header(16000, None) + A,
    "clip of size nought": wav_header(16000, 0) + A,
    "clip whose samples alone have size nought": riff(fmt(), b"data\0\0\0\0" + A),
    "empty clip and another": clip(b"") + clip(A),
    "odd chunk of the format": riff(fmt(more=b"!"), chunk(b"data", A)),
    "two clips": clip(A) + clip(B),
    "two clips of two rates": clip(A, 8000) + clip(B, 48000),
    "chunks before and after": riff(
        chunk(b"LIST", b"odd"), fmt(), chunk(b"fact", b"1234"), chunk(b"data", A)
    )
    + riff(fmt(), chunk(b"data", B), chunk(b"LIST", b"tags, not audio")),
    "stereo 24 bit": riff(fmt(channels=2, bits=24), chunk(b"data", A + A + A)),
    "clip that goes on": clip(A) + B,
    "a few bytes": b"RIFFx",
}


@pytest.mark.parametrize("name", STREAMS)
def test_byte_by_byte_is_the_same_as_all_at_once(name: str) -> None:
    stream = STREAMS[name]
    assert decoded(wav(), *cut(stream, [1] * len(stream))) == decoded(wav(), stream)


@settings(deadline=None)
@given(st.sampled_from(sorted(STREAMS)), st.lists(st.integers(0, 900), max_size=8))
def test_any_cut_gives_the_same_samples(name: str, sizes: list[int]) -> None:
    assert decoded(wav(), *cut(STREAMS[name], sizes)) == decoded(wav(), STREAMS[name])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("bare samples", A + B),
        ("clip", A),
        ("clip of unknown size", A),
        ("clip of size nought", A),
        ("clip whose samples alone have size nought", A),
        ("empty clip and another", A),
        ("odd chunk of the format", A),
        ("two clips", A + B),
        ("chunks before and after", A + B),
        ("clip that goes on", A + B),
        ("a few bytes", b"RIFF"),
    ],
)
def test_samples_come_out_and_nothing_else(name: str, expected: bytes) -> None:
    assert decoded(wav(), STREAMS[name]) == expected


def test_bare_samples_under_the_name_wav_have_the_declared_rate() -> None:
    assert len(decoded(wav(8000), bytes(16000))) == 32000


def test_a_clip_has_its_own_rate_whatever_was_declared() -> None:
    assert len(decoded(wav(16000), clip(bytes(16000), rate_hz=8000))) == 32000


def test_a_frame_that_begins_as_a_clip_ends_one_that_promised_more() -> None:
    lying = wav_header(16000, 1_000_000) + A
    assert decoded(wav(), lying, lying, clip(B)) == A + A + B


def test_a_frame_that_begins_as_a_clip_ends_bare_samples_and_half_a_header() -> None:
    assert decoded(wav(), A, clip(B)[:30], clip(B)) == A + B


def test_half_a_sample_at_the_end_of_a_clip_does_not_shift_the_next() -> None:
    stream = riff(fmt(), chunk(b"data", A + b"\x7f")) + clip(B)
    assert decoded(wav(), stream) == A + B


def test_successive_clips_of_one_rate_are_one_stream() -> None:
    tone = (np.sin(2 * np.pi * 440 * np.arange(9600) / 48000) * 16384).astype("<i2").tobytes()
    pieces = [clip(tone[start : start + 1920], 48000) for start in range(0, len(tone), 1920)]
    assert decoded(wav(), *pieces) == decoded(wav(), clip(tone, 48000))


@pytest.mark.parametrize(
    ("header", "data"),
    [
        (fmt(bits=8), np.array([128, 192], np.uint8).tobytes()),
        (fmt(bits=24), b"\0\0\0" + b"\0\0\x40"),
        (fmt(bits=32), struct.pack("<2i", 0, 2**30)),
        (fmt(tag=3, bits=32), struct.pack("<2f", 0.0, 0.5)),
        (fmt(tag=3, bits=64), struct.pack("<2d", 0.0, 0.5)),
        (fmt(channels=8), struct.pack("<16h", *[0] * 8, *[16384] * 8)),
        (
            fmt(
                tag=0xFFFE,
                more=struct.pack("<HHIH", 22, 16, 4, 1)
                + bytes.fromhex("000000001000800000aa00389b71"),
            ),
            struct.pack("<2h", 0, 16384),
        ),
    ],
)
def test_the_common_encodings_are_understood(header: bytes, data: bytes) -> None:
    assert struct.unpack("<2h", decoded(wav(), riff(header, chunk(b"data", data)))) == (0, 16384)


@pytest.mark.parametrize("tag", [6, 7])
def test_telephone_encodings_are_understood(tag: int) -> None:
    samples = np.frombuffer(
        decoded(wav(), riff(fmt(tag=tag, bits=8), chunk(b"data", b"\x00\x80"))), "<i2"
    )
    assert samples[0] == -samples[1] != 0


BAD_HEADERS = [
    (fmt(tag=0x11, bits=4), Status.UNSUPPORTED_FORMAT, "0x0011 with 4 bits"),
    (fmt(bits=12), Status.UNSUPPORTED_FORMAT, "12 bits"),
    (
        fmt(tag=0xFFFE, more=struct.pack("<HHIH", 22, 16, 4, 1) + bytes(14)),
        Status.UNSUPPORTED_FORMAT,
        "0xFFFE",
    ),
    (fmt(channels=0), Status.UNDECODABLE_AUDIO, "0 channels"),
    (fmt(channels=9), Status.UNDECODABLE_AUDIO, "9 channels"),
    (fmt(rate_hz=7999), Status.UNDECODABLE_AUDIO, "7999 Hz"),
    (fmt(rate_hz=192001), Status.UNDECODABLE_AUDIO, "192001 Hz"),
    (chunk(b"fmt ", bytes(15)), Status.UNDECODABLE_AUDIO, "15 bytes"),
    (b"", Status.UNDECODABLE_AUDIO, "no 'fmt ' chunk"),
    (chunk(b"LIST", bytes(MAX_FORMAT_BYTES)), Status.UNDECODABLE_AUDIO, "no 'fmt ' chunk"),
    (b"LIST\xff\xff\xff\xff", Status.UNDECODABLE_AUDIO, "has 4294967295 bytes"),
    (b"fmt \xff\xff\xff\x7f", Status.UNDECODABLE_AUDIO, "longer than 65536"),
    (chunk(b"tiny", b"") * 9000, Status.UNDECODABLE_AUDIO, "more than 1000 chunks"),
]


@pytest.mark.parametrize(("header", "status", "named"), BAD_HEADERS)
def test_a_bad_header_is_named_once_and_the_next_clip_is_heard(
    header: bytes, status: Status, named: str
) -> None:
    decoder = wav()
    with pytest.raises(RemoteProtocolError, match=named) as refused:
        decoder.decode(riff(header, chunk(b"data", A)))
    assert refused.value.status is status
    assert decoder.decode(A) == b""
    assert decoded(decoder, clip(B)) == B


def test_samples_before_a_bad_header_are_not_lost() -> None:
    decoder = wav()
    with pytest.raises(RemoteProtocolError):
        decoder.decode(clip(A) + riff(fmt(channels=0), chunk(b"data", A)))
    assert decoder.decode(clip(B)) == A + B


def test_a_frame_made_of_headers_is_refused() -> None:
    decoder = wav()
    for _ in range(3):
        assert decoder.decode(clip(A) * MAX_CLIPS_PER_FRAME) == A * MAX_CLIPS_PER_FRAME
    with pytest.raises(RemoteProtocolError, match="more than 16 clips in one frame") as refused:
        decoder.decode(clip(A) * (MAX_CLIPS_PER_FRAME + 1))
    assert refused.value.status is Status.UNDECODABLE_AUDIO


def test_a_rate_that_changes_all_the_time_is_refused() -> None:
    decoder = wav(48000)
    for turn in range(MAX_RATE_CHANGES):
        decoder.decode(clip(A, (8000, 48000)[turn % 2]))
    decoder.decode(clip(A, 48000))
    with pytest.raises(
        RemoteProtocolError, match="sample rate changed more than 16 times"
    ) as refused:
        decoder.decode(clip(A, 8000))
    assert refused.value.status is Status.UNDECODABLE_AUDIO


def test_pcm_in_the_middle_of_a_stream_is_never_taken_for_a_clip() -> None:
    decoder = open_decoder(parse_input_format("pcm", 16000))
    assert decoded(decoder, A, clip(B)) == A + clip(B)


@settings(deadline=None)
@given(st.lists(st.integers(0, 900), max_size=8))
def test_pcm_carries_half_a_sample_into_the_next_frame(sizes: list[int]) -> None:
    whole = decoded(open_decoder(parse_input_format("pcm", 48000)), A + B)
    assert decoded(open_decoder(parse_input_format("pcm", 48000)), *cut(A + B, sizes)) == whole


HEADER_FIELDS = st.builds(
    lambda tag, channels, rate_hz, bits, more: fmt(
        tag=tag, channels=channels, rate_hz=rate_hz, bits=bits, more=more
    ),
    st.sampled_from([0, 1, 1, 3, 6, 7, 0xFFFE]),
    st.integers(0, 9),
    st.sampled_from([0, 8000, 16000, 44100, 2**32 - 1]),
    st.sampled_from([0, 8, 16, 24, 32, 64]),
    st.binary(max_size=30),
)
ANY_CHUNK = st.builds(
    lambda name, size, body: name + struct.pack("<I", size) + body,
    st.sampled_from([b"data", b"fmt ", b"LIST", b"RIFF", b"\0\0\0\0"]),
    st.sampled_from([0, 1, 2, 7, 16, 40, 2**31, 2**32 - 1]),
    st.binary(max_size=50),
)
ANY_FRAME = st.one_of(
    st.binary(max_size=60),
    st.just(b""),
    st.builds(
        lambda chunks: riff(*chunks), st.lists(st.one_of(HEADER_FIELDS, ANY_CHUNK), max_size=4)
    ),
    st.builds(
        lambda chunks: b"".join(chunks), st.lists(st.one_of(HEADER_FIELDS, ANY_CHUNK), max_size=4)
    ),
)


@settings(deadline=None)
@given(st.sampled_from(["wav", "pcm"]), st.lists(ANY_FRAME, max_size=6))
@example(
    "wav", [b"RIFF\0\0\0\0WAVE", fmt(channels=3, bits=24), b"data\x07\0\0\0" + bytes(9), b"RIF"]
)
def test_any_bytes_are_decoded_or_refused_and_never_anything_else(
    name: str, frames: list[bytes]
) -> None:
    decoder = open_decoder(parse_input_format(name, 16000))
    output = b""
    refusals: list[RemoteProtocolError] = []
    for frame in frames:
        try:
            output += decoder.decode(frame)
        except RemoteProtocolError as refused:
            refusals.append(refused)
    assert {refused.status for refused in refusals} <= {
        Status.UNDECODABLE_AUDIO,
        Status.UNSUPPORTED_FORMAT,
    }
    assert all(len(refused.message) < 300 for refused in refusals)
    output += decoder.finish_turn()
    assert len(output) % 2 == 0
    assert len(output) <= 4 * sum(map(len, frames)) + 64


def promising(data_bytes: int) -> bytes:
    header = bytearray(wav_header(16000, None))
    header[40:44] = data_bytes.to_bytes(4, "little")
    return bytes(header)


@pytest.mark.parametrize("data_bytes", [(1 << 30) + 2, 3_000_000_000, 4_000_000_000])
def test_a_clip_that_promises_too_much_is_refused_by_its_header(data_bytes: int) -> None:
    with pytest.raises(
        RemoteProtocolError, match=f"its header promises {data_bytes} bytes"
    ) as refused:
        wav().decode(promising(data_bytes) + A)
    assert refused.value.status is Status.TOO_LARGE


@pytest.mark.parametrize("data_bytes", [0x7FFFFFFF, 0x80000000 - 44, 0xFFFFFFFF - 44, 0xFFFFFFFF])
def test_sizes_that_recorders_write_for_want_of_a_better_one_are_taken_for_unknown(
    data_bytes: int,
) -> None:
    assert decoded(wav(), promising(data_bytes) + A, B) == A + B


@pytest.mark.parametrize("name", ["mulaw", "alaw"])
def test_telephone_codes_are_one_byte_a_sample_at_any_cut(name: str) -> None:
    code = bytes(range(256))
    whole = decoded(open_decoder(parse_input_format(name, 16000)), code)
    assert len(whole) == 512
    assert (
        decoded(
            open_decoder(parse_input_format(name, 16000)), *[code[at : at + 1] for at in range(256)]
        )
        == whole
    )
    # The sign is the code's highest bit, and the table falls on both of its sides.
    samples = np.frombuffer(whole, "<i2").astype(int)
    assert sorted(samples[:128] + samples[128:]) == sorted([0] * 128)


def rf64(data: bytes, *, form: bytes = b"RF64", rate_hz: int = 16000) -> bytes:
    """A clip in the 64-bit form: the true sizes stand in a chunk of their own."""
    sizes = chunk(b"ds64", struct.pack("<QQQI", 72 + len(data), len(data), len(data) // 2, 0))
    head = form + b"\xff\xff\xff\xff" + b"WAVE"
    return head + sizes + fmt(rate_hz=rate_hz) + b"data\xff\xff\xff\xff" + data


@pytest.mark.parametrize("form", [b"RF64", b"BW64"])
def test_the_64_bit_forms_are_clips(form: bytes) -> None:
    stream = rf64(A, form=form) + clip(B)
    assert decoded(wav(), stream) == A + B
    assert decoded(wav(), *cut(stream, [1] * len(stream))) == A + B


@pytest.mark.parametrize("tags_bytes", [70_000, 5_000_001])
def test_tags_of_any_size_before_and_after_the_samples_are_skipped(tags_bytes: int) -> None:
    tags = chunk(b"LIST", bytes(tags_bytes))
    before = riff(fmt(), tags, chunk(b"data", A))
    after = riff(fmt(), chunk(b"data", A), tags)
    for stream in (before, after):
        assert decoded(wav(), stream + clip(B)) == A + B
        assert decoded(wav(), *cut(stream + clip(B), [100_000] * 60)) == A + B


def test_samples_after_a_size_that_was_never_set_right_are_heard() -> None:
    written_early = riff(fmt(), chunk(b"data", A), B * 1000)
    assert decoded(wav(), written_early) == A + B * 1000


def test_a_clip_under_another_name_of_samples_is_read_as_a_clip() -> None:
    for container in (InputContainer.PCM, InputContainer.MU_LAW):
        decoder = open_decoder(InputFormat(container, 16000))
        assert decoded(decoder, clip(A, 8000)) == decoded(wav(), clip(A, 8000))
        assert decoder.source_rate_hz == 8000


AN_MP3_FRAME = b"\xff\xfb\x90\x00" + bytes(413)
AN_ADTS_FRAME = b"\xff\xf1\x50\x80\x08\x1f\xfc" + bytes(57)
OTHERS = {
    "mp3 with a tag": (b"ID3\x04" + bytes(400), "declare format mp3"),
    "mp3": (AN_MP3_FRAME * 2, "declare format mp3"),
    "aac": (AN_ADTS_FRAME * 2, "declare format aac"),
    "ogg": (b"OggS" + bytes(400), "declare format opus or speex"),
    "flac": (b"fLaC" + bytes(400), "declare format flac"),
    "webm": (b"\x1a\x45\xdf\xa3" + bytes(400), "declare format webm"),
    "mp4": (b"\0\0\0\x18ftypmp42" + bytes(400), "declare format mp4"),
    "aiff": (b"FORM\0\0\0\0AIFF" + bytes(400), "send it as a whole recording"),
    "big-endian wav": (b"RIFX\0\0\0\0WAVE" + bytes(400), "send it as a whole recording"),
    "w64": (b"riff\x2e\x91\xcf\x11" + bytes(400), "send it as a whole recording"),
    "au": (b".snd" + bytes(400), "send it as a whole recording"),
}


@pytest.mark.parametrize("declared", ["pcm", "wav", "mulaw", "alaw"])
@pytest.mark.parametrize("name", OTHERS)
def test_what_is_no_samples_is_refused_and_not_heard(name: str, declared: str) -> None:
    content, advice = OTHERS[name]
    decoder = open_decoder(InputFormat(InputContainer(declared), 16000))
    with pytest.raises(RemoteProtocolError, match=f"^{declared}: .*{advice}") as refused:
        decoder.decode(content)
    assert refused.value.status is Status.UNDECODABLE_AUDIO
    assert decoder.decode(bytes(640)) == b""
    assert decoder.finish_turn() == b""


def test_the_rate_of_a_stream_is_what_its_header_says_or_what_was_declared() -> None:
    decoder = wav(16000)
    decoder.decode(clip(A, 8000)[:30])
    assert decoder.source_rate_hz == 16000
    decoder.decode(clip(A, 8000)[30:])
    assert decoder.source_rate_hz == 8000
    bare = wav(8000)
    bare.decode(A)
    assert bare.source_rate_hz == 8000
