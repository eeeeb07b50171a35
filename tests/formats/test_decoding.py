import random
from itertools import accumulate
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.formats.checksums import crc
from tests.formats.material import (
    NAMES,
    RATE_HZ,
    container_of,
    decoded,
    encoded,
    likeness,
    samples,
    speech,
    through_av,
)
from tests.formats.words import words
from voicechat.audio.bandwidth_extension import BandwidthExtension
from voicechat.audio.compressed import SPARE_AUDIO_S, CompressedDecoder
from voicechat.audio.formats import InputContainer
from voicechat.audio.ogg_pages import OggWriter
from voicechat.audio.wav import read_wav
from voicechat.errors import RemoteProtocolError, Status

LOSSY_LIKENESS = 0.9
CODEC_FRAMES_S = 0.1
"""Two frames of the slowest codec (AAC and MP3 at 16 kHz: 64 and 72 ms) and its
padding.
"""


def random_cuts(size_bytes: int, seed: int) -> list[int]:
    chance = random.Random(seed)
    return [chance.randint(1, 5000) for _ in range(size_bytes // 1000)]


@pytest.mark.parametrize("name", NAMES)
def test_every_format_sounds_like_what_was_said(name: str) -> None:
    pcm = decoded(container_of(name), encoded(name))
    assert len(pcm) / 2 / RATE_HZ == pytest.approx(len(speech()) / 2 / RATE_HZ, abs=CODEC_FRAMES_S)
    assert likeness(pcm, speech()) > LOSSY_LIKENESS


@pytest.mark.parametrize(
    "name", ["mp3", "opus", "flac-48k-stereo", "aac-44k-stereo", "webm", "g722"]
)
def test_the_level_is_kept_and_two_equal_channels_are_as_loud_as_one(name: str) -> None:
    levels = [
        np.sqrt(np.mean(samples(pcm) ** 2))
        for pcm in (decoded(container_of(name), encoded(name)), speech())
    ]
    assert 20 * np.log10(levels[0] / levels[1]) == pytest.approx(0, abs=1)


@pytest.mark.parametrize("name", NAMES)
def test_bytes_one_by_one_give_the_same_samples(name: str) -> None:
    start = encoded(name)[:3000]
    assert decoded(container_of(name), start, [1] * len(start)) == decoded(
        container_of(name), start
    )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", [1, 2])
def test_random_cuts_give_the_same_samples(name: str, seed: int) -> None:
    stream = encoded(name)
    assert decoded(container_of(name), stream, random_cuts(len(stream), seed)) == decoded(
        container_of(name), stream
    )


@settings(max_examples=40, deadline=None)
@given(
    name=st.sampled_from(NAMES), cuts=st.lists(st.integers(1, 5000), max_size=12), data=st.data()
)
def test_no_cut_changes_a_sample_not_even_of_a_damaged_stream(
    name: str, cuts: list[int], data: st.DataObject
) -> None:
    stream = bytearray(encoded(name)[:8000])
    for at in data.draw(st.lists(st.integers(0, len(stream) - 1), max_size=3)):
        stream[at] ^= 0xFF
    assert outcome(container_of(name), bytes(stream), cuts) == outcome(
        container_of(name), bytes(stream), []
    )


def outcome(container: InputContainer, stream: bytes, cuts: list[int]) -> bytes | Status:
    try:
        return decoded(container, stream, cuts)
    except RemoteProtocolError as error:
        return error.status


@pytest.mark.parametrize("name", ["mp3", "opus", "aac", "amr-nb", "flac", "webm", "g722"])
def test_a_recording_gives_the_words_that_pcm_gives(name: str, recordings: Path) -> None:
    pcm = read_wav(recordings.joinpath("goforward.wav").read_bytes())
    codecs = {
        "opus": "libopus",
        "webm": "libopus",
        "mp3": "libmp3lame",
        "amr-nb": "libopencore_amrnb",
    }
    muxers = {"opus": "ogg", "aac": "adts", "amr-nb": "amr"}
    rate_hz = {"opus": 48000, "webm": 48000, "amr-nb": 8000}.get(name, RATE_HZ)
    bit_rate = {"amr-nb": 12_200, "flac": 0}.get(name, 64_000 if name == "g722" else 32_000)
    stream = through_av(pcm, codecs.get(name, name), muxers.get(name, name), rate_hz, 1, bit_rate)
    heard = decoded(container_of(name), stream, random_cuts(len(stream), 3))
    assert (
        words(BandwidthExtension().push_audio(heard) if rate_hz < RATE_HZ else heard)
        == words(pcm)
        == "go forward ten meters"
    )


@pytest.mark.parametrize("name", ["mp3", "opus", "speex", "aac", "amr-nb", "flac", "webm"])
def test_the_next_turn_may_send_another_stream(name: str) -> None:
    container, stream = container_of(name), encoded(name)
    decoder = CompressedDecoder(container)
    first = [*decoder.decode(stream), *decoder.finish_turn()]
    # This one is broken off in the middle of a packet, the next begins anew.
    broken_off = [*decoder.decode(stream[: len(stream) // 2]), *decoder.finish_turn()]
    second = [*decoder.decode(stream), *decoder.finish_turn()]
    assert 0 < len(b"".join(broken_off)) < len(b"".join(first))
    assert likeness(b"".join(second), b"".join(first)) > 0.99


@pytest.mark.parametrize("name", ["mp3", "opus", "speex", "aac", "amr-nb", "webm", "g722"])
def test_one_stream_may_go_on_over_several_turns(name: str) -> None:
    container, stream = container_of(name), encoded(name)
    decoder = CompressedDecoder(container)
    middle = len(stream) // 2
    parts = [
        *decoder.decode(stream[:middle]),
        *decoder.finish_turn(),
        *decoder.decode(stream[middle:]),
        *decoder.finish_turn(),
    ]
    assert likeness(b"".join(parts), decoded(container, stream)) > 0.95


@pytest.mark.parametrize("name", ["mp3", "opus", "speex", "aac", "amr-nb", "flac"])
def test_damage_costs_what_is_damaged_and_no_more(name: str) -> None:
    stream = bytearray(encoded(name))
    at = len(stream) // 3
    stream[at : at + 40] = bytes(byte ^ 0x5A for byte in stream[at : at + 40])
    pcm = decoded(container_of(name), bytes(stream))
    tail_bytes = len(speech()) // 6 * 2  # a page of Ogg holds a second, and is damaged as a whole
    assert likeness(pcm[-tail_bytes:], speech()[-tail_bytes:]) > LOSSY_LIKENESS - 0.05
    if name in ("opus", "speex"):  # these have times, which hold although a page is lost
        assert len(pcm) == pytest.approx(len(speech()), rel=0.05)


@pytest.mark.parametrize("name", ["opus", "webm", "flac", "amr-nb", "mp3"])
def test_what_declares_another_format_is_told_which(name: str) -> None:
    declared = InputContainer.AAC
    stream = read_wav_start() if name == "mp3" else encoded(name)
    expected = {"opus": "opus or speex", "amr-nb": "amr", "mp3": "wav"}.get(name, name)
    with pytest.raises(
        RemoteProtocolError, match=f"^aac: the audio is something else; declare format {expected}$"
    ):
        decoded(declared, stream)


def read_wav_start() -> bytes:
    return b"RIFF\x24\0\0\0WAVEfmt "


@pytest.mark.parametrize(
    "container",
    [
        c
        for c in InputContainer
        if c.compressed and c not in (InputContainer.G722, InputContainer.OPUS_RAW)
    ],
)
def test_noise_is_given_up_after_a_bounded_number_of_bytes(container: InputContainer) -> None:
    noise = np.random.default_rng(7).integers(0, 256, 400_000, np.uint8).tobytes()
    with pytest.raises(RemoteProtocolError) as refused:
        decoded(container, noise, [4096] * 100)
    assert refused.value.status in (Status.UNDECODABLE_AUDIO, Status.UNSUPPORTED_FORMAT)


def opus_packets() -> list[bytes]:
    """The packets of an Ogg stream whose pages hold whole packets, as ours do."""
    stream, packets, at = encoded("opus-ours"), list[bytes](), 0
    while at < len(stream):
        lacing = stream[at + 27 : at + 27 + stream[at + 26]]
        body = at + 27 + len(lacing)
        at = body + sum(lacing)
        start = 0
        for end in [
            total for total, size in zip(accumulate(lacing), lacing, strict=True) if size < 255
        ]:
            packets.append(stream[body + start : body + end])
            start = end
    return packets[2:]


def test_bare_opus_packets_are_heard_one_for_each_frame() -> None:
    decoder = CompressedDecoder(InputContainer.OPUS_RAW)
    pcm = b"".join(b"".join(decoder.decode(packet)) for packet in opus_packets()) + b"".join(
        decoder.finish_turn()
    )
    assert likeness(pcm, speech()) > LOSSY_LIKENESS


def test_a_packet_that_cannot_be_one_is_too_long() -> None:
    with pytest.raises(RemoteProtocolError, match="opus_raw: a packet of 70000 bytes"):
        decoded(InputContainer.OPUS_RAW, bytes(70_000))


# --- what is made to hurt -------------------------------------------------------------


def test_a_few_bytes_do_not_unfold_to_hours() -> None:
    # FLAC has one sample value for a whole block of 65535 samples: 8 s at 8 kHz in some
    # 14 bytes.
    silence = through_av(bytes(RATE_HZ * 2 * 600), "flac", "flac", 8000)
    ogg = OggWriter(1)
    head = (
        b"OpusHead"
        + bytes([1, 1])
        + (312).to_bytes(2, "little")
        + (48000).to_bytes(4, "little")
        + bytes(3)
    )
    bomb = ogg.pages([head], 0) + ogg.pages([b"OpusTags" + bytes(8)], 0)
    # Two bytes make 120 ms; pages, too, cost a little.
    bomb += b"".join(ogg.pages([b"\x0b\x06"] * 255, 0) for _ in range(40))
    assert len(decoded(InputContainer.FLAC, silence)) / 2 / RATE_HZ == pytest.approx(600, abs=1)
    seconds = len(bomb) / 25  # what this sparsest form of Opus really takes
    assert len(decoded(InputContainer.OPUS, bomb)) / 2 / RATE_HZ == pytest.approx(seconds, rel=0.05)
    assert seconds > SPARE_AUDIO_S


def constant_flac(blocks: int) -> bytes:
    """Blocks of 65535 equal samples at 8 kHz: 8.2 s each."""
    streaminfo = (
        (65535).to_bytes(2, "big") * 2
        + bytes(6)
        + (8000 << 44 | 15 << 36).to_bytes(8, "big")
        + bytes(16)
    )
    stream = b"fLaC\x80\0\0\x22" + streaminfo
    for number in range(blocks):
        header = b"\xff\xf8\x74\x08" + bytes([number]) + (65534).to_bytes(2, "big")
        frame = header + crc(header, 8, 0x07) + b"\0\x12\x34"
        stream += frame + crc(frame, 16, 0x8005)
    return stream


def test_what_is_sparser_than_any_audio_is_refused() -> None:
    assert len(decoded(InputContainer.FLAC, constant_flac(3))) == pytest.approx(
        3 * 65535 * 2 * 2, abs=10
    )
    with pytest.raises(
        RemoteProtocolError, match=r"bytes hold more than [34][0-9] s of audio"
    ) as refused:
        decoded(InputContainer.FLAC, constant_flac(100), [100, 50, 50, 50])
    assert refused.value.status is Status.TOO_LARGE


@pytest.mark.parametrize("tag_bytes", [3 << 20, (1 << 28) - 1])
def test_tags_are_refused_by_their_length_before_they_have_come(tag_bytes: int) -> None:
    length = bytes(tag_bytes >> shift & 0x7F for shift in (21, 14, 7, 0))
    with pytest.raises(RemoteProtocolError, match="bytes of ID3 tags; allowed: 2097152") as refused:
        decoded(InputContainer.MP3, b"ID3\x04\0\0" + length)
    assert refused.value.status is Status.TOO_LARGE


def test_small_tags_before_an_mp3_are_skipped() -> None:
    tag = b"ID3\x03\0\0\0\0\x4e\x20" + bytes(10_016)
    assert decoded(InputContainer.MP3, tag + tag + encoded("mp3")) == decoded(
        InputContainer.MP3, encoded("mp3")
    )


@pytest.mark.parametrize("rate_hz", [10, 10_000_000])
def test_a_forged_rate_is_refused(rate_hz: int) -> None:
    packet = bytearray(encoded("speex")[28 : 28 + 80])
    packet[36:40] = rate_hz.to_bytes(4, "little")
    forged = OggWriter(1).pages([bytes(packet)], 0)
    with pytest.raises(
        RemoteProtocolError, match=f"its rate is {rate_hz} Hz; allowed: 8000 to 192000"
    ):
        decoded(InputContainer.SPEEX, forged)


def test_forged_channels_are_refused() -> None:
    head = b"OpusHead" + bytes([1, 200]) + bytes(9)
    with pytest.raises(RemoteProtocolError, match="its header names 200 channels"):
        decoded(InputContainer.OPUS, OggWriter(1).pages([head], 0))


def test_vorbis_is_known_and_not_offered() -> None:
    with pytest.raises(RemoteProtocolError, match="it carries Vorbis") as refused:
        decoded(InputContainer.OPUS, OggWriter(1).pages([b"\x01vorbis" + bytes(23)], 0))
    assert refused.value.status is Status.UNSUPPORTED_FORMAT
