from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voicechat.providers.sentence_decoding import (
    MAX_SENTENCE_MS,
    PARTIAL_EVERY_MS,
    SentenceDecoding,
)
from voicechat.session.types import Transcript, Word

PAUSE_MS = 700


class CountingDecoder:
    """Understands a word in every ``word_ms`` of audio; with ``mute``, none at all."""

    def __init__(self, word_ms: int = 200) -> None:
        self.word_ms = word_ms
        self.mute = False
        self.forgets_at_end = False
        self.is_open = False
        self.heard_ms = 0
        self.total_ms = 0
        self.utterances = 0

    def begin_utterance(self) -> None:
        assert not self.is_open
        self.is_open = True
        self.utterances += 1
        self.heard_ms = 0

    def decode(self, pcm: bytes) -> None:
        assert self.is_open
        assert pcm, "a recogniser may refuse an empty buffer"
        self.heard_ms += len(pcm) // 32
        self.total_ms += len(pcm) // 32

    def words(self) -> tuple[Word, ...]:
        if self.mute:
            return ()
        starts = range(0, self.heard_ms - self.word_ms + 1, self.word_ms)
        return tuple(
            Word(f"w{start // self.word_ms}", start, start + self.word_ms) for start in starts
        )

    def end_utterance(self) -> None:
        assert self.is_open
        self.is_open = False
        self.mute = self.mute or self.forgets_at_end


def voice(duration_ms: int) -> bytes:
    """A hummed vowel: harmonics of 120 Hz under two formants."""
    time_s = np.arange(duration_ms * 16) / 16000
    harmonics_hz = 120 * np.arange(1, 30)
    gains = sum(np.exp(-(((harmonics_hz - formant_hz) / 200) ** 2)) for formant_hz in (700, 1200))
    tone = (np.asarray(gains)[:, None] * np.sin(2 * np.pi * harmonics_hz[:, None] * time_s)).sum(
        axis=0
    )
    swelling = 0.7 + 0.3 * np.sin(2 * np.pi * 4 * time_s)
    return np.asarray(tone * swelling * 3000, "<i2").tobytes()


def silence(duration_ms: int) -> bytes:
    return bytes(duration_ms * 32)


DICTATION = silence(600) + voice(1000) + silence(1200) + voice(800) + silence(300)


def transcribe(
    pcm: bytes, decoder: CountingDecoder | None = None, piece_bytes: int = 3200
) -> list[Transcript]:
    decoding = SentenceDecoding(decoder or CountingDecoder(), PAUSE_MS)
    found: list[Transcript] = []
    for start in range(0, len(pcm), piece_bytes):
        found += decoding.push_audio(pcm[start : start + piece_bytes])
    return [*found, *decoding.finish_audio()]


def test_a_pause_ends_a_sentence_and_the_end_of_the_audio_ends_the_last() -> None:
    finals = [transcript for transcript in transcribe(DICTATION) if transcript.final]
    assert len(finals) == 2
    assert 300 <= finals[0].begin_ms <= 700
    assert 2400 <= finals[1].begin_ms <= 2900
    for transcript in finals:
        assert all(word.fixed for word in transcript.words)
        assert transcript.end_ms == transcript.words[-1].end_ms


def test_the_first_syllable_reaches_the_decoder() -> None:
    decoder = CountingDecoder(word_ms=20)
    (final,) = [
        transcript
        for transcript in transcribe(silence(1000) + voice(500), decoder)
        if transcript.final
    ]
    assert (
        final.begin_ms <= 1000 - 200
    )  # with pre-roll, although the onset was noticed 140 ms late or more


def test_silence_gives_nothing_and_costs_no_decoding() -> None:
    decoder = CountingDecoder()
    assert transcribe(silence(5000), decoder) == []
    assert decoder.utterances == 0


def test_between_sentences_nothing_is_decoded() -> None:
    decoder = CountingDecoder()
    transcribe(voice(500) + silence(60_000) + voice(500), decoder)
    assert decoder.utterances == 2
    assert decoder.total_ms < 4_000


def test_partial_results_come_only_when_the_text_changed_and_not_too_often() -> None:
    decoder = CountingDecoder(word_ms=20)
    partials = [
        transcript for transcript in transcribe(voice(3000), decoder) if not transcript.final
    ]
    assert 3000 / PARTIAL_EVERY_MS - 5 <= len(partials) <= 3000 / PARTIAL_EVERY_MS
    slow = [
        transcript
        for transcript in transcribe(voice(3000), CountingDecoder(1000))
        if not transcript.final
    ]
    assert [len(transcript.words) for transcript in slow] == [1, 2]


def test_speech_in_which_no_word_was_understood_gives_nothing() -> None:
    decoder = CountingDecoder()
    decoder.mute = True
    assert transcribe(DICTATION, decoder) == []
    assert decoder.utterances == 2


def test_a_sentence_that_was_shown_is_closed_although_its_words_are_taken_back() -> None:
    decoder = CountingDecoder()
    decoder.forgets_at_end = True
    *partials, final = transcribe(voice(1000), decoder)
    assert final.final
    assert final.text == partials[-1].text


def test_speech_without_a_pause_is_cut_and_nothing_is_lost() -> None:
    decoder = CountingDecoder()
    duration_ms = 2 * MAX_SENTENCE_MS + 5_000
    finals = [
        transcript for transcript in transcribe(voice(duration_ms), decoder) if transcript.final
    ]
    assert len(finals) == decoder.utterances
    assert decoder.total_ms >= duration_ms - 200
    words = [word for final in finals for word in final.words]
    assert len(words) >= duration_ms / decoder.word_ms - 2 * len(finals)
    assert all(one.end_ms <= other.begin_ms for one, other in pairwise(words))
    assert all((final.end_ms or 0) - final.begin_ms <= MAX_SENTENCE_MS for final in finals)


@pytest.mark.parametrize("quiet_at_ms", [21_000, 25_500, 29_000])
def test_speech_without_a_pause_is_cut_where_it_is_quietest(quiet_at_ms: int) -> None:
    decoder = CountingDecoder(word_ms=100)
    speech = np.frombuffer(voice(40_000), "<i2").copy()
    speech[quiet_at_ms * 16 : (quiet_at_ms + 200) * 16] //= 4
    first, second = (found for found in transcribe(speech.tobytes(), decoder) if found.final)
    assert first.end_ms == pytest.approx(quiet_at_ms + 100, abs=100)
    assert second.begin_ms == pytest.approx(quiet_at_ms + 100, abs=100)
    assert second.words[-1].end_ms == pytest.approx(40_000, abs=200)


def test_what_is_decoded_again_is_spread_over_the_audio_that_follows() -> None:
    class Timed(CountingDecoder):
        longest_ms = 0

        def decode(self, pcm: bytes) -> None:
            super().decode(pcm)
            self.longest_ms = max(self.longest_ms, len(pcm) // 32)

    decoder = Timed()
    transcribe(voice(MAX_SENTENCE_MS + 10_000), decoder, piece_bytes=640)
    assert decoder.longest_ms <= 500


def test_a_sentence_of_which_nothing_was_understood_before_the_cut_goes_on() -> None:
    class Late(CountingDecoder):
        def words(self) -> tuple[Word, ...]:
            return (Word("last", self.heard_ms - 200, self.heard_ms - 100),)

    found = transcribe(voice(MAX_SENTENCE_MS + 2_000) + silence(1_000), Late())
    assert [transcript.text for transcript in found if transcript.final] == ["last"]


@pytest.mark.long
def test_an_hour_without_a_pause_is_recognised() -> None:
    decoder = CountingDecoder(word_ms=1_000)
    decoding = SentenceDecoding(decoder, PAUSE_MS)
    minute = voice(60_000)
    finals: list[Transcript] = []
    for _ in range(60):
        finals += [found for found in decoding.push_audio(minute) if found.final]
        assert len(decoding._late) + len(decoding._undecoded) <= 2 * MAX_SENTENCE_MS / 3 / 20
    finals += decoding.finish_audio()
    assert sum(len(final.words) for final in finals) > 3_300
    assert finals[-1].words[-1].end_ms == pytest.approx(3_600_000, abs=1_100)


@pytest.mark.parametrize("gap_ms", [760, 1200])
def test_sentences_never_overlap_although_a_decoder_stretches_words(gap_ms: int) -> None:
    class Stretching(CountingDecoder):
        def words(self) -> tuple[Word, ...]:
            return (Word("first", -500, 300), Word("second", 100, 200), Word("last", 250, 99_999))

    dictation = silence(600) + voice(1000) + silence(gap_ms) + voice(800) + silence(300)
    finals = [transcript for transcript in transcribe(dictation, Stretching()) if transcript.final]
    assert len(finals) == 2
    times = [
        time for final in finals for word in final.words for time in (word.begin_ms, word.end_ms)
    ]
    assert times == sorted(times)
    assert times[-1] <= len(dictation) // 32


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 2000).map(lambda half: 2 * half))
def test_the_cut_of_the_audio_does_not_matter(piece_bytes: int) -> None:
    assert transcribe(DICTATION, piece_bytes=piece_bytes) == transcribe(DICTATION)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 80)), max_size=4))
def test_times_go_forward_whatever_is_said(turns: list[tuple[int, int]]) -> None:
    pcm = b"".join(voice(20 * voiced) + silence(20 * quiet) for voiced, quiet in turns)
    found = transcribe(pcm)
    for before, after in pairwise(found):
        if before.final:
            assert before.end_ms is not None
            assert before.end_ms <= after.begin_ms
        else:
            assert before.begin_ms == after.begin_ms
    assert not found or found[-1].final
