import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.providers.humming import silence, voice
from voicechat.audio.pause_detection import PauseDetector, SpeechBegan
from voicechat.providers.utterance_segmentation import (
    SpeechSegment,
    UtteranceSegmenter,
    quietest_place,
)

PAUSE_MS = 700
DICTATION = silence(600) + voice(1000) + silence(1200) + voice(800) + silence(300)


def utterances(pcm: bytes, sizes: list[int], max_ms: int = 28_000) -> list[SpeechSegment]:
    cutter, position = UtteranceSegmenter(PAUSE_MS, max_ms), 0
    for size in sizes:
        cutter.push_audio(pcm[position : position + size])
        position += size
    cutter.push_audio(pcm[position:])
    cutter.finish_audio()
    return list(cutter.waiting)


def test_an_utterance_is_what_lies_between_two_pauses_with_its_first_syllable() -> None:
    first, second = utterances(DICTATION, [])
    assert first.closed
    assert second.closed
    assert 300 <= first.begin_ms <= 400  # 200 ms or more before the first sound
    for utterance in (first, second):
        begin = utterance.begin_ms * 32
        assert bytes(utterance.pcm) == DICTATION[begin : begin + len(utterance.pcm)]
    assert first.begin_ms + first.heard_ms <= second.begin_ms <= 2800
    assert second.begin_ms + second.heard_ms == len(DICTATION) // 32


@settings(deadline=None)
@given(st.lists(st.integers(0, 5000), max_size=30))
def test_the_cut_of_the_audio_does_not_matter(sizes: list[int]) -> None:
    assert utterances(DICTATION, sizes) == utterances(DICTATION, [])


def test_silence_makes_no_utterance() -> None:
    assert utterances(silence(3000), []) == []


def test_an_utterance_goes_on_until_its_pause() -> None:
    cutter = UtteranceSegmenter(PAUSE_MS, 28_000)
    cutter.push_audio(voice(1000))
    (utterance,) = cutter.waiting
    assert not utterance.closed
    heard_ms = utterance.heard_ms
    cutter.push_audio(voice(500))
    assert utterance.heard_ms == heard_ms + 500
    cutter.push_audio(silence(1000))
    assert utterance.closed


def test_what_never_pauses_is_cut_at_its_quietest_place_and_nothing_is_lost() -> None:
    # A gap of 240 ms is no pause. Detection goes on for 60 to 80 ms after a sound.
    speech = voice(5000) + silence(240) + voice(4000) + silence(1500)
    first, second = utterances(speech, [], max_ms=6000)
    assert first.begin_ms + first.heard_ms == second.begin_ms
    assert 5000 <= second.begin_ms <= 5240
    assert (
        bytes(first.pcm + second.pcm)
        == speech[first.begin_ms * 32 :][: len(first.pcm + second.pcm)]
    )
    assert first.closed
    assert second.closed


def test_no_utterance_is_longer_than_allowed() -> None:
    pieces = utterances(voice(20_000), [], max_ms=6000)
    assert all(4000 <= piece.heard_ms <= 6000 for piece in pieces[:-1])
    assert sum(piece.heard_ms for piece in pieces) == 20_000 - pieces[0].begin_ms


@pytest.mark.parametrize("gap_ms", [300, 2700, 4300])
def test_the_quietest_place_is_found_after_the_given_time(gap_ms: int) -> None:
    samples = np.random.default_rng(3).normal(size=16 * 5000) * 3000
    samples[16 * gap_ms : 16 * (gap_ms + 200)] *= 0.1
    place_ms = quietest_place(samples.astype("<i2").tobytes(), 2000)
    assert 2000 <= place_ms <= 5000
    if gap_ms >= 2000:
        assert place_ms == pytest.approx(gap_ms + 100, abs=20)


def test_the_onset_is_the_detectors() -> None:
    (began, *_) = PauseDetector(PAUSE_MS).push_audio(DICTATION)
    assert isinstance(began, SpeechBegan)
    assert utterances(DICTATION, [])[0].begin_ms == began.keep_from_ms
