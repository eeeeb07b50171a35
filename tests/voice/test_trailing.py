import numpy as np
import pytest

from voicechat.voice.silero import RATE_HZ
from voicechat.voice.trailing import MOST_MS, WINDOW_MS, trailing_quiet_ms


def noise(length_ms: int, level_db: float) -> bytes:
    """White noise so many decibels below a loud voice."""
    samples = (
        np.random.default_rng(5).standard_normal(RATE_HZ * length_ms // 1000)
        * 8_000
        * 10 ** (level_db / 20)
    )
    return samples.clip(-32768, 32767).astype("<i2").tobytes()


SPEECH = noise(800, 0)


@pytest.mark.parametrize("quiet_ms", [0, 8, 40, 88, MOST_MS])
def test_quiet_after_the_last_sound_is_found(quiet_ms: int) -> None:
    assert trailing_quiet_ms(SPEECH + noise(quiet_ms, -60)) == quiet_ms


def test_a_faint_last_consonant_is_speech() -> None:
    assert trailing_quiet_ms(SPEECH + noise(80, -30)) == 0


def in_a_room(spoken: bytes, room_db: float) -> bytes:
    room = np.frombuffer(noise(len(spoken) // 32, room_db), "<i2")
    mixed: bytes = (room // 2 + np.frombuffer(spoken, "<i2") // 2).astype("<i2").tobytes()
    return mixed


def test_in_a_noisy_room_speech_ends_where_the_room_begins() -> None:
    talk = bytes(32 * 400) + SPEECH + bytes(32 * 64)
    assert 48 <= trailing_quiet_ms(in_a_room(talk, -25)) <= 64


def test_in_a_room_of_which_nothing_is_known_nothing_is_taken_back() -> None:
    assert trailing_quiet_ms(in_a_room(SPEECH + bytes(32 * 64), -25)) == 0


def test_a_faint_last_consonant_is_speech_in_a_room_too() -> None:
    talk = bytes(32 * 400) + SPEECH + noise(64, -26)
    assert trailing_quiet_ms(in_a_room(talk, -36)) == 0


def test_a_long_silence_is_not_taken_back_whole() -> None:
    assert trailing_quiet_ms(SPEECH + bytes(16_000)) == MOST_MS


def test_what_was_loud_long_ago_does_not_matter() -> None:
    assert trailing_quiet_ms(noise(500, 0) + noise(1_000, -50)) == 0


@pytest.mark.parametrize("pcm", [b"", bytes(2), bytes(254), bytes(3_200)])
def test_nothing_and_digital_silence_are_no_speech_to_measure(pcm: bytes) -> None:
    assert trailing_quiet_ms(pcm) % WINDOW_MS == 0
    assert trailing_quiet_ms(pcm) == 0
