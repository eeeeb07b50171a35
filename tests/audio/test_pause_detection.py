import wave
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voicechat.audio.pause_detection import (
    PRE_ROLL_MS,
    PauseDetector,
    SpeechBegan,
    SpeechEvent,
    SpeechPaused,
)
from voicechat.audio.wav import read_wav


def voice(duration_ms: int) -> bytes:
    """A hummed vowel: harmonics of 120 Hz under two formants, swelling four times a
    second.
    """
    time_s = np.arange(duration_ms * 16) / 16000
    harmonics = 120 * np.arange(1, 30)
    gains = sum(np.exp(-(((harmonics - formant_hz) / 200) ** 2)) for formant_hz in (700, 1200))
    wave_form = (np.asarray(gains)[:, None] * np.sin(2 * np.pi * harmonics[:, None] * time_s)).sum(
        axis=0
    )
    swelling = 0.7 + 0.3 * np.sin(2 * np.pi * 4 * time_s)
    return np.asarray(wave_form * swelling * 3000, "<i2").tobytes()


def silence(duration_ms: int) -> bytes:
    return bytes(duration_ms * 32)


def heard(pcm: bytes, pause_ms: int = 700) -> list[SpeechEvent]:
    return PauseDetector(pause_ms).push_audio(pcm)


SPEECH = silence(500) + voice(1000) + silence(1000) + voice(600) + silence(1000)


def test_speech_and_its_pauses_are_found_where_they_are() -> None:
    began, paused, began_again, paused_again = heard(SPEECH)
    assert isinstance(began, SpeechBegan)
    assert isinstance(paused, SpeechPaused)
    assert isinstance(began_again, SpeechBegan)
    assert isinstance(paused_again, SpeechPaused)
    assert began.at_ms == pytest.approx(500, abs=60)
    assert paused.at_ms == pytest.approx(1500, abs=160)
    assert began_again.at_ms == pytest.approx(2500, abs=60)
    assert paused_again.at_ms == pytest.approx(3100, abs=160)


@settings(deadline=None)
@given(st.lists(st.integers(0, 3000), max_size=60))
def test_any_cut_gives_the_same_events(sizes: list[int]) -> None:
    detector, position, events = PauseDetector(), 0, []
    for size in sizes:
        events += detector.push_audio(SPEECH[position : position + size])
        position += size
    assert events + detector.push_audio(SPEECH[position:]) == heard(SPEECH)


def test_silence_is_not_speech() -> None:
    assert heard(silence(3000)) == []


@pytest.mark.parametrize("click_ms", [20, 60])
def test_a_click_is_not_speech(click_ms: int) -> None:
    assert heard(silence(500) + voice(click_ms) + silence(1000)) == []


def test_a_short_word_is_speech() -> None:
    began, paused = heard(silence(500) + voice(250) + silence(1000))
    assert isinstance(began, SpeechBegan)
    assert isinstance(paused, SpeechPaused)


def test_a_breath_within_a_sentence_does_not_end_it() -> None:
    assert len(heard(voice(800) + silence(350) + voice(800))) == 1


def test_the_pause_that_ends_a_sentence_can_be_chosen() -> None:
    audio = voice(800) + silence(600) + voice(800)
    assert len(heard(audio, pause_ms=300)) == 3
    assert len(heard(audio, pause_ms=1000)) == 1


def test_a_click_within_a_pause_does_not_lengthen_it() -> None:
    plain, clicked = (
        heard(voice(800) + silence(400) + middle + silence(600))
        for middle in (silence(20), voice(20))
    )
    assert [event.at_ms for event in clicked] == pytest.approx(
        [event.at_ms for event in plain], abs=40
    )


def test_the_first_syllable_is_kept_but_never_the_last_sentence() -> None:
    first, _, second, *_ = heard(SPEECH)
    assert isinstance(first, SpeechBegan)
    assert isinstance(second, SpeechBegan)
    assert first.keep_from_ms == first.at_ms - PRE_ROLL_MS
    close = heard(voice(800) + silence(400) + voice(800), pause_ms=200)
    assert isinstance(close[1], SpeechPaused)
    assert isinstance(close[2], SpeechBegan)
    assert close[2].at_ms - PRE_ROLL_MS < close[1].at_ms == close[2].keep_from_ms


@pytest.mark.parametrize("pause_ms", [200, 700])
def test_a_pause_is_reported_when_it_has_lasted_and_not_before(pause_ms: int) -> None:
    detector = PauseDetector(pause_ms)
    audio = silence(500) + voice(100) + silence(2000)
    (paused_at_ms,) = [
        start // 32 + 20
        for start in range(0, len(audio), 640)
        if any(
            isinstance(event, SpeechPaused)
            for event in detector.push_audio(audio[start : start + 640])
        )
    ]
    assert 600 + pause_ms <= paused_at_ms <= 700 + pause_ms


def test_hiss_and_mains_hum_are_not_speech() -> None:
    hiss = np.random.default_rng(7).normal(size=16 * 2000) * 1000
    hum = np.sin(2 * np.pi * 50 * np.arange(16 * 2000) / 16000) * 3000
    assert heard(hiss.astype("<i2").tobytes()) == []
    assert heard(hum.astype("<i2").tobytes()) == []


def test_speaking_says_what_the_last_event_said() -> None:
    detector = PauseDetector()
    states = [detector.speaking]
    for piece in (voice(500), silence(1500)):
        detector.push_audio(piece)
        states.append(detector.speaking)
    assert states == [False, True, False]


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 900)), max_size=12),
    st.sampled_from([20, 200, 700]),
)
def test_events_alternate_and_time_never_goes_back(
    parts: list[tuple[bool, int]], pause_ms: int
) -> None:
    events = heard(
        b"".join(voice(size) if spoken else silence(size) for spoken, size in parts), pause_ms
    )
    assert [isinstance(event, SpeechBegan) for event in events] == [
        n % 2 == 0 for n in range(len(events))
    ]
    times = [event.at_ms for event in events]
    assert times == sorted(times)
    for before, event in pairwise(events):
        if isinstance(event, SpeechBegan):
            assert before.at_ms <= event.keep_from_ms <= event.at_ms


@pytest.mark.parametrize(
    "name",
    [
        "austen-0870",
        "austen-0880",
        "austen-0890",
        "austen-0920",
        "austen-0930",
        "goforward",
        "numbers",
    ],
)
def test_a_sentence_read_by_a_person_is_one_piece(recordings: Path, name: str) -> None:
    path = recordings / f"{name}.wav"
    with wave.open(str(path)) as clip:
        duration_ms = clip.getnframes() * 1000 // clip.getframerate()
    began, paused = heard(read_wav(path.read_bytes()) + silence(1000))
    assert began.at_ms <= 500
    assert duration_ms * 0.8 <= paused.at_ms <= duration_ms
