"""Cuts a reply into pieces to be spoken, each with the text that it stands for."""

from collections import deque
from typing import NamedTuple

from voicechat.text.markup import SpeechMarkup
from voicechat.text.scanning import Run
from voicechat.text.sentences import SentenceSplitter
from voicechat.text.spoken import Speakable


class Piece(NamedTuple):
    """A sentence, or what was cut as one."""

    text: str
    """As the reply has it."""
    spoken: str
    """What is said for it: one line; empty when nothing is."""


class SpeechPieces:
    """Takes a reply's text in any cut, gives pieces. All their texts joined are the
    reply's text.

    Markup is replaced before sentences are cut, so that a formula's full stop or an
    entity's semicolon ends none. The pieces do not depend on how the text was cut,
    unless ``force`` is called.
    """

    __slots__ = ("_markup", "_runs", "_speakable", "_splitter")

    def __init__(self) -> None:
        self._splitter = SentenceSplitter()
        self._restart()

    def push_text(self, text: str) -> list[Piece]:
        """Take the next text; return the pieces that it completed."""
        return self._take(self._markup.scan(text))

    def force_cut(self) -> list[Piece]:
        """The text has waited too long: return what can be spoken, cut at a clause or a
        word.
        """
        return [self._piece(said) for said in self._splitter.force_cut()]

    def finish_text(self) -> list[Piece]:
        """The text is complete: return the rest. This object is then as new."""
        pieces = self._take(self._markup.scan_rest())
        pieces += [self._piece(said) for said in self._splitter.finish_text()]
        if rest := "".join(run.source for run in self._runs):
            pieces.append(Piece(rest, ""))
        self._restart()
        return pieces

    def _restart(self) -> None:
        self._markup = SpeechMarkup()
        self._speakable = Speakable()
        self._runs: deque[Run] = deque()

    def _take(self, runs: list[Run]) -> list[Piece]:
        self._runs += runs
        return [self._piece(said) for run in runs for said in self._splitter.push_text(run.result)]

    def _piece(self, said: str) -> Piece:
        """Find the text that ``said``, the next that the splitter gave out, stands for."""
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
