"""Which channels are the same sound."""

import numpy as np
import pytest
from numpy.typing import NDArray

from voicechat.audio.channels import ChannelComparison, mixed

RATE_HZ = 16000
Signal = NDArray[np.float64]


def talk(seed: int, seconds: int = 6) -> Signal:
    """Noise in syllables and pauses, as loud as speech."""
    chance = np.random.default_rng(seed)
    syllables = np.repeat(chance.uniform(0, 1, seconds * 5) ** 2, RATE_HZ // 5)
    return np.asarray(syllables * chance.normal(0, 3000, len(syllables)))


def pcm(signal: Signal) -> bytes:
    return np.clip(signal, -32768, 32767).astype("<i2").tobytes()


def compared(*channels: Signal, piece_samples: int = 80_000) -> tuple[tuple[int, int], ...]:
    comparison = ChannelComparison()
    for at in range(0, len(channels[0]), piece_samples):
        comparison.push_audio([pcm(channel[at : at + piece_samples]) for channel in channels])
    return comparison.distinct_channels()


A, B = talk(1), talk(2)
NOISE = np.random.default_rng(3).normal(0, 30, len(A))
ALIKE = {
    "dual mono": (A, A),
    "half as loud": (A, A / 2),
    "turned around": (A, -A),
    "later by 10 ms": (A, np.roll(A, 160)),
    "with noise of its own": (A, A + NOISE),
}


@pytest.mark.parametrize("name", ALIKE)
def test_the_same_sound_is_given_once(name: str) -> None:
    ((number, _),) = compared(*ALIKE[name])
    assert number == 0


def test_the_loudest_of_like_channels_is_heard_under_the_first_ones_number() -> None:
    assert compared(A / 8, A) == ((0, 1),)
    assert compared(A, B, A * 2, B / 2) == ((0, 2), (1, 1))


DIFFERENT = {
    "two who speak at once": (A, B),
    "two in turn": (
        np.where(np.arange(len(A)) < len(A) // 2, A, 0),
        np.where(np.arange(len(A)) < len(A) // 2, 0, B),
    ),
    "with each other's echo": (A + B / 8, B + A / 8),
    "one and silence": (A, np.zeros(len(A))),
    "one and hum": (A, 100 * np.sin(np.arange(len(A)) * 0.02)),
    "silence twice": (np.zeros(len(A)), np.zeros(len(A))),
}


@pytest.mark.parametrize("name", DIFFERENT)
@pytest.mark.parametrize("piece_samples", [999, 80_000])
def test_sounds_of_their_own_are_kept_apart(name: str, piece_samples: int) -> None:
    assert compared(*DIFFERENT[name], piece_samples=piece_samples) == ((0, 0), (1, 1))


def test_a_recording_of_a_moment_has_its_channels() -> None:
    assert compared(A[:100], B[:100]) == ((0, 0), (1, 1))


def test_channels_are_averaged() -> None:
    assert mixed([pcm(np.full(3, 100.0)), pcm(np.full(3, -300.0))]) == pcm(np.full(3, -100.0))
    assert mixed([pcm(A)]) == pcm(A)
