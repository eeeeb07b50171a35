"""The level of a voice, against ITU-T P.56 itself."""

import wave
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from voicechat.audio.speech_level import LevelControl, SpeechLevel, VoiceLevels

RATE_HZ = 16_000


def p56_dbov(samples: NDArray[np.float64], rate_hz: int) -> float:
    """ITU-T P.56, method B: the envelope of two smoothings of 30 ms, a hangover of 200
    ms, and the threshold that is 15.9 dB below the level which it gives.
    """
    decay = np.exp(-1 / (rate_hz * 0.03))
    envelope = np.abs(samples)
    for _ in range(2):
        smooth, last = np.empty_like(envelope), 0.0
        for at, value in enumerate(envelope):
            last = decay * last + (1 - decay) * value
            smooth[at] = last
        envelope = smooth
    hangover = int(0.2 * rate_hz)
    energy = float(np.sum(samples**2))
    differences = []
    for threshold_db in np.arange(-70.0, -10.0, 0.25):
        above = np.flatnonzero(envelope >= 10 ** (threshold_db / 20))
        active = np.zeros(len(envelope) + hangover + 1, int)
        np.add.at(active, above, 1)
        np.add.at(active, above + hangover, -1)
        count = np.count_nonzero(np.cumsum(active)[: len(envelope)] > 0)
        if count:
            level = 10 * np.log10(energy / count)
            differences.append((abs(level - threshold_db - 15.9), level))
    return float(min(differences)[1])


def recording(path: Path) -> NDArray[np.float64]:
    with wave.open(str(path)) as file:
        return np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32767


def pcm_of(samples: NDArray[np.float64]) -> bytes:
    return np.rint(samples * 32767).astype("<i2").tobytes()


@pytest.mark.parametrize("name", ["austen-0870", "goforward", "something"])
@pytest.mark.parametrize("factor", [0.1, 1.0])
def test_the_level_agrees_with_the_standard(recordings: Path, name: str, factor: float) -> None:
    samples = recording(recordings / f"{name}.wav")[: 3 * RATE_HZ] * factor
    measured = SpeechLevel()
    for start in range(0, len(samples), 1_234):
        measured.add_audio(samples[start : start + 1_234], RATE_HZ)
    assert measured.dbov == pytest.approx(p56_dbov(samples, RATE_HZ), abs=1.0)


@pytest.mark.parametrize("factor", [0.3, 1.0, 2.5])
def test_every_voice_is_brought_to_the_level(recordings: Path, factor: float) -> None:
    samples = np.clip(recording(recordings / "austen-0870.wav")[: 3 * RATE_HZ] * factor, -1, 1)
    voices = VoiceLevels()

    def spoken() -> NDArray[np.float64]:
        control = LevelControl(-26.0, voices.level_of("", "anna"))
        pieces = [samples[start : start + 1_600] for start in range(0, len(samples), 1_600)]
        made = b"".join(control.apply(pcm_of(piece), RATE_HZ) for piece in pieces)
        return np.frombuffer(made, "<i2") / 32767

    first, second = spoken(), spoken()
    assert len(first) == len(samples)
    # Nothing is known of the voice at first, so the first words are at another level.
    assert p56_dbov(first, RATE_HZ) == pytest.approx(-26.0, abs=2.5)
    assert p56_dbov(second, RATE_HZ) == pytest.approx(-26.0, abs=1.0)
    assert np.abs(second).max() < 0.8, "nothing is clipped"
    jumps = np.abs(np.diff(second / np.where(np.abs(samples) > 0.01, samples, np.inf)))
    assert np.median(jumps) < 0.02, "the gain does not jump"


def test_silence_and_noise_are_no_voice() -> None:
    voice = VoiceLevels().level_of("", "anna")
    control = LevelControl(-26.0, voice)
    quiet = pcm_of(np.random.default_rng(1).normal(0, 1e-4, 1_600))
    for piece in (bytes(3_200), quiet, b""):
        assert control.apply(piece, RATE_HZ) == piece
    assert voice.dbov is None


def test_a_gain_has_bounds_and_what_is_too_loud_is_bent() -> None:
    tone = 0.01 * np.sin(np.arange(16_000) / 5)
    control = LevelControl(0.0, VoiceLevels().level_of("", "anna"))
    out = np.frombuffer(control.apply(pcm_of(tone), RATE_HZ), "<i2") / 32767
    assert np.abs(out).max() == pytest.approx(0.01 * 10 ** (12 / 20), rel=0.02)
    loud = LevelControl(0.0, VoiceLevels().level_of("", "anna"))
    made = np.frombuffer(loud.apply(pcm_of(60 * tone), RATE_HZ), "<i2")
    assert np.abs(made.astype(int)).max() < 32_767


def test_the_names_of_voices_fill_no_memory() -> None:
    voices = VoiceLevels()
    for number in range(1_000):
        voices.level_of("", str(number))
    assert len(voices._voices) <= 200
