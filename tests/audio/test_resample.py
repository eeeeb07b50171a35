import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from voicechat.audio.resample import RateConverter, Resampler

RATES_HZ = (8000, 11025, 16000, 22050, 24000, 44100, 48000, 191999)


def sine(frequency_hz: float, rate_hz: int) -> bytes:
    """Half a second at half of full scale."""
    phase = 2 * np.pi * frequency_hz * np.arange(rate_hz // 2) / rate_hz
    return (np.sin(phase) * 16384).astype("<i2").tobytes()


def converted(pcm: bytes, in_rate_hz: int, out_rate_hz: int) -> NDArray[np.int16]:
    resampler = Resampler(in_rate_hz, out_rate_hz)
    return np.frombuffer(resampler.push_audio(pcm) + resampler.finish_stream(), "<i2")


def level_db(samples: NDArray[np.int16]) -> float:
    """Level of the middle half, against a sine at half of full scale."""
    middle = samples[len(samples) // 4 : 3 * len(samples) // 4].astype(float)
    return float(20 * np.log10(np.sqrt(np.mean(middle**2)) / (16384 / np.sqrt(2)) + 1e-9))


def noise(rate_hz: int, samples: int) -> bytes:
    return np.random.default_rng(rate_hz).integers(-9000, 9000, samples).astype("<i2").tobytes()


@settings(deadline=None)
@given(
    st.sampled_from(RATES_HZ),
    st.sampled_from(RATES_HZ),
    st.lists(st.integers(0, 1500), max_size=6),
)
def test_cutting_the_input_differently_never_changes_a_sample(
    in_rate_hz: int, out_rate_hz: int, piece_bytes: list[int]
) -> None:
    pcm = noise(in_rate_hz, 3000)
    resampler = Resampler(in_rate_hz, out_rate_hz)
    position, output = 0, b""
    for size in piece_bytes:
        output += resampler.push_audio(pcm[position : position + size])
        position += size
    output += resampler.push_audio(pcm[position:]) + resampler.finish_stream()
    assert output == converted(pcm, in_rate_hz, out_rate_hz).tobytes()


@pytest.mark.parametrize("in_rate_hz", RATES_HZ)
@pytest.mark.parametrize("out_rate_hz", [8000, 16000, 22050, 48000])
def test_duration_is_kept_to_a_sample(in_rate_hz: int, out_rate_hz: int) -> None:
    output = converted(noise(in_rate_hz, in_rate_hz), in_rate_hz, out_rate_hz)
    assert abs(len(output) - out_rate_hz) <= 1


@pytest.mark.parametrize(
    ("in_rate_hz", "out_rate_hz"), [(8000, 16000), (48000, 16000), (44100, 16000), (16000, 22050)]
)
@pytest.mark.parametrize("part_of_nyquist", [0.05, 0.5, 0.85])
def test_speech_passes_at_its_level(
    in_rate_hz: int, out_rate_hz: int, part_of_nyquist: float
) -> None:
    frequency_hz = min(in_rate_hz, out_rate_hz) / 2 * part_of_nyquist
    assert abs(level_db(converted(sine(frequency_hz, in_rate_hz), in_rate_hz, out_rate_hz))) < 0.1


@pytest.mark.parametrize("in_rate_hz", [22050, 24000, 44100, 48000])
@pytest.mark.parametrize("part_of_nyquist", [1.05, 1.2, 1.35])
def test_what_would_fold_back_into_speech_is_removed(
    in_rate_hz: int, part_of_nyquist: float
) -> None:
    assert level_db(converted(sine(8000 * part_of_nyquist, in_rate_hz), in_rate_hz, 16000)) < -80


@pytest.mark.parametrize(
    ("in_rate_hz", "out_rate_hz"), [(8000, 16000), (48000, 16000), (24000, 8000), (16000, 22050)]
)
def test_no_more_than_the_promised_delay_is_held_back(in_rate_hz: int, out_rate_hz: int) -> None:
    resampler = Resampler(in_rate_hz, out_rate_hz)
    piece_bytes = in_rate_hz // 50 * 2
    pcm = noise(in_rate_hz, in_rate_hz)
    got_bytes = 0
    for start in range(0, len(pcm), piece_bytes):
        got_bytes += len(resampler.push_audio(pcm[start : start + piece_bytes]))
        held_back_ms = 1000 * ((start + piece_bytes) / in_rate_hz - got_bytes / out_rate_hz) / 2
        assert held_back_ms <= resampler.delay_ms <= 5


def test_equal_rates_cost_nothing() -> None:
    resampler = Resampler(16000, 16000)
    pcm = noise(16000, 320)
    assert resampler.push_audio(pcm) is pcm
    assert (resampler.delay_ms, resampler.finish_stream()) == (0, b"")


def test_an_odd_byte_is_carried_at_equal_rates_too() -> None:
    resampler = Resampler(16000, 16000)
    assert [
        resampler.push_audio(b"abc"),
        resampler.push_audio(b""),
        resampler.push_audio(b"d"),
        resampler.push_audio(b"ef"),
    ] == [
        *(b"ab", b"", b"cd", b"ef"),
    ]


@pytest.mark.parametrize(
    ("in_rate_hz", "out_rate_hz"), [(7999, 16000), (16000, 192001), (0, 16000), (-8000, 8000)]
)
def test_a_rate_outside_the_range_is_a_value_error(in_rate_hz: int, out_rate_hz: int) -> None:
    with pytest.raises(ValueError, match="is outside 8000 to 192000"):
        Resampler(in_rate_hz, out_rate_hz)


def test_nothing_in_gives_nothing_out() -> None:
    resampler = Resampler(8000, 16000)
    assert resampler.push_audio(b"") + resampler.finish_stream() == b""


def test_a_change_of_rate_loses_no_audio() -> None:
    converter = RateConverter(16000)
    output = (
        converter.push_audio(noise(8000, 800), 8000)
        + converter.push_audio(noise(48000, 4800), 48000)
        + converter.finish_stream()
    )
    assert len(output) // 2 == 1600 + 1600


def test_a_rate_that_is_refused_leaves_the_stream_intact() -> None:
    converter = RateConverter(16000)
    output = converter.push_audio(noise(8000, 800), 8000)
    with pytest.raises(ValueError, match="sample rate 1 Hz"):
        converter.push_audio(b"\0\0", 1)
    assert len(output + converter.finish_stream()) // 2 == 1600
