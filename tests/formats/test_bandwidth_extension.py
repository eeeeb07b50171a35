"""Telephone speech: 8 kHz, and nothing above 4."""

from pathlib import Path

import numpy as np
import pytest

from tests.formats.material import samples
from tests.formats.words import words
from voicechat.audio.bandwidth_extension import BandwidthExtension
from voicechat.audio.decode import open_decoder
from voicechat.audio.formats import InputContainer, InputFormat
from voicechat.audio.resample import Resampler
from voicechat.audio.wav import read_wav


def tone(frequency_hz: int, rate_hz: int, seconds: float = 1) -> bytes:
    phase = 2 * np.pi * frequency_hz * np.arange(int(rate_hz * seconds)) / rate_hz
    return (np.sin(phase) * 8000).astype("<i2").tobytes()


def level(pcm: bytes, frequency_hz: int) -> float:
    """Amplitude at one frequency of s16le mono 16 kHz, away from both ends."""
    steady = samples(pcm)[1000:-1000]
    wave = np.exp(-2j * np.pi * frequency_hz * np.arange(len(steady)) / 16000)
    return float(2 * np.abs(steady @ wave) / len(steady))


@pytest.mark.parametrize("frequency_hz", [100, 300, 1000, 2000, 3000, 3400, 3600])
def test_the_telephone_band_comes_through_at_its_level(frequency_hz: int) -> None:
    decoder = open_decoder(InputFormat(InputContainer.PCM, 8000))
    pcm = decoder.decode(tone(frequency_hz, 8000)) + decoder.finish_turn()
    assert 20 * np.log10(level(pcm, frequency_hz) / 8000) == pytest.approx(0, abs=0.5)


@pytest.mark.parametrize(
    ("container", "full_scale"), [(InputContainer.MU_LAW, 0x80), (InputContainer.A_LAW, 0xAA)]
)
def test_telephone_codes_are_read(container: InputContainer, full_scale: int) -> None:
    decoder = open_decoder(InputFormat(container, 16000))
    assert samples(decoder.decode(bytes([full_scale])))[0] > 32000


def test_quiet_and_loud_stretches_keep_their_distance() -> None:
    decoder = open_decoder(InputFormat(InputContainer.PCM, 8000))
    loud, quiet = tone(1000, 8000), (samples(tone(1000, 8000)) / 100).astype("<i2").tobytes()
    levels = [level(decoder.decode(pcm), 1000) for pcm in (loud, quiet, loud)]
    assert levels[0] / levels[1] == pytest.approx(100, rel=0.05)
    assert levels[2] == pytest.approx(levels[0], rel=0.01)


def test_the_missing_band_is_filled_with_a_weaker_image_and_the_rest_is_untouched() -> None:
    extended = BandwidthExtension().push_audio(tone(2500, 16000))
    assert level(extended, 2500) == pytest.approx(8000, rel=0.01)
    assert 0.3 < level(extended, 5500) / 8000 < 0.7
    assert level(BandwidthExtension().push_audio(tone(300, 16000)), 300) == pytest.approx(
        8000, rel=0.01
    )


@pytest.mark.parametrize("piece_bytes", [2, 62, 318, 4000])
def test_the_cut_changes_no_sample(piece_bytes: int) -> None:
    pcm = np.random.default_rng(3).integers(-9000, 9000, 5001).astype("<i2").tobytes()
    pieces = BandwidthExtension()
    cut = b"".join(
        pieces.push_audio(pcm[at : at + piece_bytes]) for at in range(0, len(pcm), piece_bytes)
    )
    assert cut == BandwidthExtension().push_audio(pcm)
    assert len(cut) == len(pcm)


def test_a_command_over_the_telephone_is_understood(recordings: Path) -> None:
    down = Resampler(16000, 8000)
    narrow = (
        down.push_audio(read_wav(recordings.joinpath("goforward.wav").read_bytes()))
        + down.finish_stream()
    )
    decoder = open_decoder(InputFormat(InputContainer.PCM, 8000))
    pcm = decoder.decode(narrow) + decoder.finish_turn()
    assert words(pcm) != "go forward ten meters"  # or the extension would be of no use
    assert words(BandwidthExtension().push_audio(pcm)) == "go forward ten meters"


def test_a_real_call_gives_words(recordings: Path) -> None:
    pcm = read_wav(recordings.joinpath("vad-8k.wav").read_bytes())[: 4 * 32_000]
    assert len(words(BandwidthExtension().push_audio(pcm)).split()) >= 6
