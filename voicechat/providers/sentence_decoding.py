"""Cuts continuous speech into sentences at pauses: voice activity detection in front of
a decoder of single utterances.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from typing import Protocol

from voicechat.audio.pause_detection import (
    FRAME_BYTES,
    FRAME_MS,
    ONSET_WINDOW_MS,
    PRE_ROLL_MS,
    PauseDetector,
    SpeechBegan,
    SpeechPaused,
)
from voicechat.providers.utterance_segmentation import quietest_place
from voicechat.session.types import Transcript, Word

PARTIAL_EVERY_MS = 120
"""Audio between two partial results; a reader cannot follow more than about six a
second.
"""
MAX_SENTENCE_MS = 30_000
"""Speech without a pause is cut at this length, because a decoder's lattice grows with
the utterance.
"""
CUT_FROM_MS = MAX_SENTENCE_MS * 2 // 3
"""The cut is at the quietest place after this. The audio after it is decoded again, as
a new utterance.
"""
CATCH_UP_FRAMES = 3
"""Frames decoded per arriving frame while audio is decoded again. Bounded, so that
other streams of the process do not wait for all of it.
"""

_HELD_FRAMES = (ONSET_WINDOW_MS + PRE_ROLL_MS) // FRAME_MS + 1
_FRAMES_PER_PARTIAL = PARTIAL_EVERY_MS // FRAME_MS


class UtteranceDecoder(Protocol):
    """A recogniser of one utterance at a time."""

    def begin_utterance(self) -> None:
        """Open an utterance."""

    def decode(self, pcm: bytes) -> None:
        """Decode the next samples of the utterance (s16le mono 16 kHz)."""

    def words(self) -> tuple[Word, ...]:
        """Return the best hypothesis so far; times count from `begin_utterance`."""

    def end_utterance(self) -> None:
        """Close the utterance; `words` then returns the final hypothesis."""


class SentenceDecoding:
    """Converts one stream of audio to transcripts. The result does not depend on how
    the samples are split.

    Only speech reaches the decoder: silence costs only the voice activity detection. A
    sentence without words yields nothing.
    """

    def __init__(self, decoder: UtteranceDecoder, pause_ms: int) -> None:
        self._decoder = decoder
        self._pauses = PauseDetector(pause_ms)
        self._cut_frame = b""
        self._now_ms = 0
        self._held: list[
            bytes
        ] = []  # the last frames of silence: speech is detected only after its onset
        self._late: deque[bytes] = deque()  # frames of the last third of the sentence
        self._undecoded: deque[bytes] = deque()  # frames of the sentence that have not been decoded
        self._sentence_from_ms: int | None = (
            None  # where the decoder's utterance began; None: silence
        )
        self._frames_to_partial = _FRAMES_PER_PARTIAL
        self._last: Transcript | None = None

    @property
    def in_sentence(self) -> bool:
        """Whether the decoder's utterance is open."""
        return self._sentence_from_ms is not None

    def push_audio(self, pcm: bytes) -> Iterator[Transcript]:
        """Process the next audio, of any length."""
        audio = self._cut_frame + pcm
        whole_bytes = len(audio) - len(audio) % FRAME_BYTES
        self._cut_frame = audio[whole_bytes:]
        for start in range(0, whole_bytes, FRAME_BYTES):
            yield from self._take(audio[start : start + FRAME_BYTES])

    def finish_audio(self) -> Iterator[Transcript]:
        """End the audio: an open sentence becomes final."""
        yield from self._close_sentence()

    def _take(self, frame: bytes) -> Iterator[Transcript]:
        self._now_ms += FRAME_MS
        if self.in_sentence:
            self._undecoded.append(frame)
            if self._now_ms - self._sentence_start_ms > CUT_FROM_MS:
                self._late.append(frame)
            self._decode(CATCH_UP_FRAMES)
        else:
            self._held = [*self._held[1 - _HELD_FRAMES :], frame]
        for event in self._pauses.push_audio(frame):
            match event:
                case SpeechBegan(keep_from_ms=keep_from_ms):
                    self._open_sentence(keep_from_ms)
                case SpeechPaused():
                    yield from self._close_sentence()
        if self.in_sentence:
            yield from self._look()

    def _open_sentence(self, keep_from_ms: int) -> None:
        # The held frames begin after the last sentence, so sentences never overlap.
        kept = min((self._now_ms - keep_from_ms) // FRAME_MS, len(self._held))
        frames = self._held[len(self._held) - kept :]
        self._held = []
        self._sentence_from_ms = self._now_ms - len(frames) * FRAME_MS
        self._decoder.begin_utterance()
        self._decoder.decode(b"".join(frames))

    def _decode(self, most_frames: int) -> None:
        """Decode pending frames in order, at most ``most_frames``."""
        count = min(most_frames, len(self._undecoded))
        if count:
            self._decoder.decode(b"".join(self._undecoded.popleft() for _ in range(count)))

    def _look(self) -> Iterator[Transcript]:
        if self._now_ms - self._sentence_start_ms >= MAX_SENTENCE_MS:
            yield from self._cut_sentence()
            return
        self._frames_to_partial -= 1
        if self._frames_to_partial > 0:
            return
        self._frames_to_partial = _FRAMES_PER_PARTIAL
        partial = self._hypothesis()
        if partial is not None and (self._last is None or partial.text != self._last.text):
            self._last = partial
            yield partial

    def _cut_sentence(self) -> Iterator[Transcript]:
        """End a long sentence at the quietest place of its last third; the next one
        begins there.
        """
        late = list(self._late)
        late_from_ms = self._now_ms - len(late) * FRAME_MS
        place = quietest_place(b"".join(late), 0) // FRAME_MS
        place_ms = late_from_ms + place * FRAME_MS
        self._undecoded.clear()
        self._decoder.end_utterance()
        said = self._hypothesis(until_ms=place_ms)
        if said is not None:
            self._last = None
            yield _final(said)
        self._sentence_from_ms = place_ms
        self._late.clear()
        self._undecoded.extend(late[place:])
        self._decoder.begin_utterance()

    def _close_sentence(self) -> Iterator[Transcript]:
        if self._sentence_from_ms is None:
            return
        self._decode(len(self._undecoded))
        self._late.clear()
        self._decoder.end_utterance()
        # A sentence that was shown is closed even if the decoder withdraws it.
        best = self._hypothesis() or self._last
        self._sentence_from_ms = self._last = None
        if best is not None:
            yield _final(best)

    @property
    def _sentence_start_ms(self) -> int:
        assert self._sentence_from_ms is not None
        return self._sentence_from_ms

    def _hypothesis(self, until_ms: int | None = None) -> Transcript | None:
        """Return the transcript of the sentence so far; with ``until_ms``, only words
        whose middle is before it.
        """
        assert self._sentence_from_ms is not None
        words: list[Word] = []
        floor_ms = self._sentence_from_ms
        for word in self._decoder.words():
            middle_ms = self._sentence_from_ms + (word.begin_ms + word.end_ms) // 2
            if until_ms is not None and middle_ms >= until_ms:
                break
            begin_ms = min(max(word.begin_ms + self._sentence_from_ms, floor_ms), self._now_ms)
            floor_ms = min(max(word.end_ms + self._sentence_from_ms, begin_ms), self._now_ms)
            words.append(replace(word, begin_ms=begin_ms, end_ms=floor_ms))
        if not words:
            return None
        return Transcript(
            " ".join(word.text for word in words), words[0].begin_ms, None, tuple(words)
        )


def _final(sentence: Transcript) -> Transcript:
    words = tuple(replace(word, fixed=True) for word in sentence.words)
    return replace(sentence, words=words, end_ms=words[-1].end_ms)
