import io
from typing import NamedTuple

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from voicechat.audio.encode import Encoder, open_encoder
from voicechat.audio.formats import OUTPUT_RATES_HZ, parse_output_format
from voicechat.audio.wav import wav_header

MP3_DELAY_SAMPLES = 1105
LAME_SCALE = 0.95
TONE_HZ = 1000


def tone(rate_hz: int, seconds: float) -> bytes:
    phase = 2 * np.pi * TONE_HZ * np.arange(int(rate_hz * seconds)) / rate_hz
    return (np.sin(phase) * 16384).astype("<i2").tobytes()


def encoded(encoder: Encoder, pcm: bytes, rate_hz: int, piece_ms: int = 40) -> bytes:
    piece_bytes = rate_hz * piece_ms // 1000 * 2
    return b"".join(packets(encoder, pcm, rate_hz, piece_bytes))


def packets(encoder: Encoder, pcm: bytes, rate_hz: int, piece_bytes: int) -> list[bytes]:
    pieces = [
        encoder.encode(pcm[start : start + piece_bytes], rate_hz)
        for start in range(0, len(pcm), piece_bytes)
    ]
    return [packet for piece in (*pieces, encoder.finish_stream()) for packet in piece]


def played(stream: bytes) -> tuple[int, NDArray[np.float64]]:
    """Rate and samples of an MP3 stream as FFmpeg decodes it."""
    with av.open(io.BytesIO(stream), "r", format="mp3") as container:
        frames = list(container.decode(audio=0))
    assert {frame.layout.nb_channels for frame in frames} == {1}
    (rate_hz,) = {frame.sample_rate for frame in frames}
    return rate_hz, np.concatenate([frame.to_ndarray()[0] for frame in frames]).astype(float)


class FrameHeader(NamedTuple):
    at_byte: int
    kbps: int
    rate_hz: int


def frame_headers(stream: bytes) -> list[FrameHeader]:
    """Walk the bit stream by its frame headers; fails on anything between frames."""
    headers, position = [], 0
    while position < len(stream):
        word = int.from_bytes(stream[position : position + 4], "big")
        assert word >> 21 == 0x7FF, f"no frame begins at byte {position}"
        version, bitrate_index, rate_index, padding = (
            word >> 19 & 3,
            word >> 12 & 15,
            word >> 10 & 3,
            word >> 9 & 1,
        )
        kbps = (
            (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
            if version == 3
            else (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
        )[bitrate_index]
        rate_hz = (44100, 48000, 32000)[rate_index] // {3: 1, 2: 2, 0: 4}[version]
        headers.append(FrameHeader(position, kbps, rate_hz))
        position += (144 if version == 3 else 72) * kbps * 1000 // rate_hz + padding
    assert position == len(stream)
    return headers


@pytest.mark.parametrize("kind", ["PCM", "WAV"])
def test_samples_at_the_wanted_rate_pass_unchanged(kind: str) -> None:
    pcm = tone(16000, 0.3)
    encoder = open_encoder(parse_output_format(f"{kind}_16000HZ_MONO_16BIT"))
    header = wav_header(16000, None) if kind == "WAV" else b""
    assert encoded(encoder, pcm, 16000) == header + pcm


@pytest.mark.parametrize("kind", ["PCM", "WAV", "MP3"])
def test_no_audio_gives_no_bytes(kind: str) -> None:
    encoder = open_encoder(
        parse_output_format(f"{kind}_24000HZ_MONO_{'64KBPS' if kind == 'MP3' else '16BIT'}")
    )
    assert encoder.encode(b"", 16000) + encoder.finish_stream() == ()


def test_samples_of_another_rate_are_converted() -> None:
    encoder = open_encoder(parse_output_format("PCM_24000HZ_MONO_16BIT"))
    samples = np.frombuffer(encoded(encoder, tone(22050, 0.5), 22050), "<i2")
    assert len(samples) == 12000
    middle = samples[2000:10000].astype(float)
    assert np.allclose(np.sqrt(np.mean(middle**2)), 16384 / np.sqrt(2), rtol=0.01)


def test_only_mp3_wants_a_thread() -> None:
    names = ("PCM_8000HZ_MONO_16BIT", "WAV_8000HZ_MONO_16BIT", "MP3_8000HZ_MONO_16KBPS")
    assert [open_encoder(parse_output_format(name)).heavy for name in names] == [False, False, True]


@pytest.mark.parametrize("rate_hz", OUTPUT_RATES_HZ)
@pytest.mark.parametrize("wished_kbps", [8, 64, 320])
def test_mp3_is_whole_frames_of_the_named_rates_from_the_first_byte(
    rate_hz: int, wished_kbps: int
) -> None:
    wanted = parse_output_format(f"MP3_{rate_hz}HZ_MONO_{wished_kbps}KBPS")
    stream = encoded(open_encoder(wanted), tone(22050, 0.5), 22050)
    assert wanted.bitrate_bps is not None
    assert {header[1:] for header in frame_headers(stream)} == {
        (wanted.bitrate_bps // 1000, rate_hz)
    }
    assert b"Xing" not in stream
    assert b"Info" not in stream


@pytest.mark.parametrize("rate_hz", OUTPUT_RATES_HZ)
def test_mp3_plays_as_long_as_the_speech_plus_the_codecs_delay(rate_hz: int) -> None:
    encoder = open_encoder(parse_output_format(f"MP3_{rate_hz}HZ_MONO_64KBPS"))
    played_rate_hz, samples = played(encoded(encoder, tone(22050, 1.0), 22050))
    assert played_rate_hz == rate_hz
    surplus_samples = len(samples) - rate_hz
    frame_samples = 1152 if rate_hz >= 32000 else 576
    assert MP3_DELAY_SAMPLES <= surplus_samples < MP3_DELAY_SAMPLES + frame_samples


@pytest.mark.parametrize("kind", ["PCM", "MP3"])
def test_the_last_millisecond_of_a_reply_is_heard(kind: str) -> None:
    silence, knock = bytes(24000), np.full(24, 16384, "<i2").tobytes()
    encoder = open_encoder(
        parse_output_format(f"{kind}_8000HZ_MONO_{'64KBPS' if kind == 'MP3' else '16BIT'}")
    )
    stream = encoded(encoder, silence + knock, 24000)
    samples = played(stream)[1] if kind == "MP3" else np.frombuffer(stream, "<i2") / 32768
    assert np.abs(samples).max() > 0.2


@pytest.mark.parametrize("rate_hz", [8000, 22050, 48000])
def test_a_tone_survives_mp3_without_a_click_at_the_joins(rate_hz: int) -> None:
    encoder = open_encoder(parse_output_format(f"MP3_{rate_hz}HZ_MONO_64KBPS"))
    _, samples = played(encoded(encoder, tone(rate_hz, 1.0), rate_hz, piece_ms=50))
    steady = samples[MP3_DELAY_SAMPLES + 2000 : rate_hz - 2000]
    phase = 2 * np.pi * TONE_HZ * np.arange(len(steady)) / rate_hz
    basis = np.stack([np.sin(phase), np.cos(phase)], axis=1)
    weights, *_ = np.linalg.lstsq(basis, steady, rcond=None)
    assert np.hypot(*weights) == pytest.approx(0.5 * LAME_SCALE, rel=0.005)
    assert (
        np.abs(steady - basis @ weights).max() < 0.01
    )  # a click would stand out of the fitted sine


def test_an_mp3_stream_may_be_cut_at_any_frame() -> None:
    encoder = open_encoder(parse_output_format("MP3_22050HZ_MONO_32KBPS"))
    stream = encoded(encoder, tone(22050, 1.0), 22050)
    _, whole = played(stream)
    _, late = played(stream[frame_headers(stream)[10].at_byte :])
    settled = 2 * 576
    assert np.allclose(whole[len(whole) - len(late) + settled :], late[settled:], atol=1e-3)


@pytest.mark.parametrize("rate_hz", OUTPUT_RATES_HZ)
@pytest.mark.parametrize("piece_ms", [7, 20, 200])
def test_padding_by_what_is_held_back_brings_a_sentence_out_whole(
    rate_hz: int, piece_ms: int
) -> None:
    for speech_ms in np.random.default_rng(piece_ms).integers(100, 700, 4):
        encoder = open_encoder(parse_output_format(f"MP3_{rate_hz}HZ_MONO_64KBPS"))
        padded_ms = int(speech_ms) + encoder.held_back_ms
        fed = tone(24000, padded_ms / 1000)
        piece_bytes = 24 * piece_ms * 2
        stream = b"".join(
            packet
            for at in range(0, len(fed), piece_bytes)
            for packet in encoder.encode(fed[at : at + piece_bytes], 24000)
        )
        frame_samples = 1152 if rate_hz >= 32000 else 576
        out_samples = len(frame_headers(stream)) * frame_samples - MP3_DELAY_SAMPLES
        assert out_samples / rate_hz * 1000 >= speech_ms


def test_samples_that_keep_their_rate_are_not_padded() -> None:
    encoder = open_encoder(parse_output_format("PCM_16000HZ_MONO_16BIT"))
    assert encoder.held_back_ms > 0, "any rate may come"
    encoder.encode(bytes(320), 16_000)
    assert encoder.held_back_ms == 0
    encoder.encode(bytes(441), 22_050)
    assert encoder.held_back_ms > 0


def test_what_is_held_back_is_not_padded_beyond_need() -> None:
    held_back_ms = {
        rate_hz: open_encoder(parse_output_format(f"MP3_{rate_hz}HZ_MONO_64KBPS")).held_back_ms
        for rate_hz in OUTPUT_RATES_HZ
    }
    assert held_back_ms == {8000: 287, 16000: 144, 22050: 106, 24000: 97, 44100: 81, 48000: 74}


@pytest.mark.parametrize("usual_hz", [None, 16_000, 24_000])
@pytest.mark.parametrize(
    "name", [*(f"MP3_{hz}HZ_MONO_64KBPS" for hz in OUTPUT_RATES_HZ), "OGG_OPUS_24KHZ_MONO_48KBPS"]
)
def test_an_encoder_knows_how_much_its_first_output_takes(name: str, usual_hz: int | None) -> None:
    wanted = parse_output_format(name)
    rate_hz = usual_hz or wanted.rate_hz
    needed_ms = open_encoder(wanted, usual_hz).first_ms
    assert open_encoder(wanted, usual_hz).encode(bytes(rate_hz * needed_ms // 1000 * 2), rate_hz)
    assert not open_encoder(wanted, usual_hz).encode(
        bytes(rate_hz * (needed_ms - 8) // 1000 * 2), rate_hz
    )


@pytest.mark.parametrize("kind", ["PCM", "MP3"])
def test_a_synthesisers_impossible_rate_is_a_value_error(kind: str) -> None:
    encoder = open_encoder(
        parse_output_format(f"{kind}_24000HZ_MONO_{'64KBPS' if kind == 'MP3' else '16BIT'}")
    )
    with pytest.raises(ValueError, match="sample rate 4000 Hz"):
        encoder.encode(b"\0\0", 4000)
