"""Cuts a reply into pieces to be spoken, each with the text that it comes from."""

from collections import deque
from collections.abc import Set
from typing import NamedTuple

from voicechat.text.markup import SpeechMarkup
from voicechat.text.scanning import Run
from voicechat.text.sentences import SentenceSplitter
from voicechat.text.spoken import Speakable


class Piece(NamedTuple):
    """A sentence, or a part of one."""

    text: str
    """The text of the reply."""
    spoken: str
    """The words that are spoken for it, on one line; empty if there are none."""


class SpeechPieces:
    """Cuts streamed text into pieces. The joined ``text`` of all pieces is the reply's
    text.

    Markup is replaced before sentences are cut, so that a full stop in a formula or the
    semicolon of an entity ends nothing. The pieces do not depend on how the text was
    split, unless ``force_cut`` is called.
    """

    __slots__ = ("_marks", "_markup", "_runs", "_speakable", "_splitter")

    def __init__(self, marks: Set[str] = frozenset()) -> None:
        """``marks``: words in square brackets that are not spoken; see
        ``SpeechMarkup``.
        """
        self._marks = marks
        self._splitter = SentenceSplitter()
        self._restart()

    def push_text(self, text: str) -> list[Piece]:
        """Add text; returns the pieces that it completed."""
        return self._take(self._markup.scan(text))

    def force_cut(self) -> list[Piece]:
        """Return what can be spoken now, cut at a clause or a word, because the text
        has waited too long.
        """
        return [self._piece(said) for said in self._splitter.force_cut()]

    def finish_text(self) -> list[Piece]:
        """End the text; returns the rest. Afterwards the object is reset."""
        pieces = self._take(self._markup.scan_rest())
        pieces += [self._piece(said) for said in self._splitter.finish_text()]
        if rest := "".join(run.source for run in self._runs):
            pieces.append(Piece(rest, ""))
        self._restart()
        return pieces

    def _restart(self) -> None:
        self._markup = SpeechMarkup(self._marks)
        self._speakable = Speakable()
        self._runs: deque[Run] = deque()

    def _take(self, runs: list[Run]) -> list[Piece]:
        self._runs += runs
        return [self._piece(said) for run in runs for said in self._splitter.push_text(run.result)]

    def _piece(self, said: str) -> Piece:
        """Return the piece for ``said``, the splitter's next output, with its source
        text.
        """
        text, missing = "", len(said)
        while missing > 0:
            source, result = self._runs.popleft()
            if len(result) > missing:
                plain = source == result
                self._runs.appendleft(Run(source[missing:] if plain else "", result[missing:]))
                source, result = source[:missing] if plain else source, result[:missing]
            text += source
            missing -= len(result)
        return Piece(text, self._speakable.clean(said))
