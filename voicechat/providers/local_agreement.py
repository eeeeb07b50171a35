"""LocalAgreement: partial results of an utterance show only words on which two passes
in a row agree.

A recogniser of whole utterances can give partial results if it is called repeatedly
with the growing audio; the last words of each pass are guesses that the next pass
withdraws. LocalAgreement-2 shows the longest common prefix of two consecutive passes
(Liu, Spanakis and Niehues, "Low-Latency Sequence-to-Sequence Speech Recognition and
Translation by Partial Hypothesis Selection", Interspeech 2020; Macháček, Dabre and
Bojar, "Turning Whisper into Real-Time Transcription System", IJCNLP-AACL 2023).
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import takewhile

from voicechat.session.types import Word
from voicechat.text.characters import is_mark


class LocalAgreement:
    """The passes over one utterance, each from its beginning. Shown words stay: later
    words are only added.

    Words agree if they have the same position and the same letters and digits. A shown
    word keeps its place even if later passes differ; the final result, which is not
    made here, corrects it.
    """

    def __init__(self) -> None:
        self._shown: tuple[Word, ...] = ()
        self._before: Sequence[Word] = ()

    def push_pass(self, words: Sequence[Word]) -> tuple[Word, ...]:
        """Add a pass; returns all words that may be shown, including those of earlier
        calls.

        The last word has no punctuation, because the next word decides it. Times never
        go back.
        """
        pairs = zip(self._before, words, strict=False)
        agreed = sum(
            1 for _ in takewhile(lambda pair: _letters(pair[0]) == _letters(pair[1]), pairs)
        )
        self._before = words
        for place in range(len(self._shown), agreed):
            self._show(words, place)
        return self._shown

    def _show(self, words: Sequence[Word], place: int) -> None:
        shown, word = self._shown, words[place]
        floor_ms = 0
        if shown:
            floor_ms = shown[-1].end_ms
            shown = (*shown[:-1], replace(shown[-1], punctuation=words[place - 1].punctuation))
        begin_ms = max(word.begin_ms, floor_ms)
        end_ms = max(word.end_ms, begin_ms)
        self._shown = (
            *shown,
            replace(word, begin_ms=begin_ms, end_ms=end_ms, punctuation="", fixed=False),
        )


def _letters(word: Word) -> str:
    """Return the letters that must be equal: punctuation and case change with every
    pass.
    """
    kept = "".join(char for char in word.text.casefold() if char.isalnum() or is_mark(char))
    return kept or word.text
