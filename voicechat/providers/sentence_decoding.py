"""Dictation cut into sentences at pauses: voice detection in front of a decoder that knows only single utterances."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Protocol

from voicechat.audio.segment import (
    FRAME_BYTES,
    FRAME_MS,
    ONSET_WINDOW_MS,
    PRE_ROLL_MS,
    PauseDetector,
    SpeechBegan,
    SpeechPaused,
)
from voicechat.session.vocabulary import Transcript, Word

PARTIAL_EVERY_MS = 120
"""Audio between two looks at the partial result: six a second is what a reader can follow."""
MAX_SENTENCE_MS = 30_000
"""Speech without a pause is cut here: a decoder's lattice grows with the utterance."""

_HELD_FRAMES = (ONSET_WINDOW_MS + PRE_ROLL_MS) // FRAME_MS + 1
_FRAMES_PER_PARTIAL = PARTIAL_EVERY_MS // FRAME_MS


class UtteranceDecoder(Protocol):
    """A recogniser of one utterance at a time."""

    def begin(self) -> None:
        """Open an utterance."""

    def decode(self, pcm: bytes) -> None:
        """Take the next samples of the utterance (s16le mono 16 kHz)."""

    def words(self) -> tuple[Word, ...]:
        """Give the best hypothesis so far; times count from `begin`."""

    def end(self) -> None:
        """Close the utterance; `words` then gives the final hypothesis."""


class SentenceDecoding:
    """One stream of audio → transcripts. The same samples give the same transcripts, however they are cut.

    Only speech reaches the decoder: silence costs the voice detection alone. A sentence in which no word was
    understood gives nothing.
    """

    def __init__(self, decoder: UtteranceDecoder, pause_ms: int) -> None:
        self._decoder = decoder
        self._pauses = PauseDetector(pause_ms)
        self._cut_frame = b""
        self._now_ms = 0
        self._held: list[bytes] = []  # the last frames of silence: speech is noticed only after its onset
        self._sentence_from_ms: int | None = None  # where the decoder's utterance began; None: silence
        self._frames_to_partial = _FRAMES_PER_PARTIAL
        self._last: Transcript | None = None

    @property
    def in_sentence(self) -> bool:
        """Whether the decoder's utterance is open."""
        return self._sentence_from_ms is not None

    def push(self, pcm: bytes) -> Iterator[Transcript]:
        """Listen to the next piece, of any size."""
        audio = self._cut_frame + pcm
        whole_bytes = len(audio) - len(audio) % FRAME_BYTES
        self._cut_frame = audio[whole_bytes:]
        for start in range(0, whole_bytes, FRAME_BYTES):
            yield from self._take(audio[start : start + FRAME_BYTES])

    def finish(self) -> Iterator[Transcript]:
        """End the audio: an open sentence becomes final."""
        yield from self._close_sentence()

    def _take(self, frame: bytes) -> Iterator[Transcript]:
        self._now_ms += FRAME_MS
        if self.in_sentence:
            self._decoder.decode(frame)
        else:
            self._held = [*self._held[1 - _HELD_FRAMES :], frame]
        for event in self._pauses.push(frame):
            match event:
                case SpeechBegan(keep_from_ms=keep_from_ms):
                    self._open_sentence(keep_from_ms)
                case SpeechPaused():
                    yield from self._close_sentence()
        if self.in_sentence:
            yield from self._look()

    def _open_sentence(self, keep_from_ms: int) -> None:
        # What is held begins after the last sentence, so sentences never overlap.
        kept = min((self._now_ms - keep_from_ms) // FRAME_MS, len(self._held))
        frames = self._held[len(self._held) - kept :]
        self._held = []
        self._sentence_from_ms = self._now_ms - len(frames) * FRAME_MS
        self._decoder.begin()
        self._decoder.decode(b"".join(frames))

    def _look(self) -> Iterator[Transcript]:
        assert self._sentence_from_ms is not None
        if self._now_ms - self._sentence_from_ms >= MAX_SENTENCE_MS:
            yield from self._close_sentence()
            self._open_sentence(self._now_ms)
            return
        self._frames_to_partial -= 1
        if self._frames_to_partial > 0:
            return
        self._frames_to_partial = _FRAMES_PER_PARTIAL
        partial = self._hypothesis()
        if partial is not None and (self._last is None or partial.text != self._last.text):
            self._last = partial
            yield partial

    def _close_sentence(self) -> Iterator[Transcript]:
        if self._sentence_from_ms is None:
            return
        self._decoder.end()
        # A sentence that was shown is also closed, even if the decoder thinks better of it.
        best = self._hypothesis() or self._last
        self._sentence_from_ms = self._last = None
        if best is None:
            return
        words = tuple(replace(word, fixed=True) for word in best.words)
        yield replace(best, words=words, end_ms=words[-1].end_ms)

    def _hypothesis(self) -> Transcript | None:
        assert self._sentence_from_ms is not None
        words: list[Word] = []
        floor_ms = self._sentence_from_ms
        for word in self._decoder.words():
            begin_ms = min(max(word.begin_ms + self._sentence_from_ms, floor_ms), self._now_ms)
            floor_ms = min(max(word.end_ms + self._sentence_from_ms, begin_ms), self._now_ms)
            words.append(replace(word, begin_ms=begin_ms, end_ms=floor_ms))
        if not words:
            return None
        return Transcript(" ".join(word.text for word in words), words[0].begin_ms, None, tuple(words))
