"""Decides by the next character whether a punctuation mark ends a piece of text."""

from dataclasses import dataclass, replace
from enum import Enum

from voicechat.text.abbreviations import Dot
from voicechat.text.characters import (
    CLAUSE_MARKS,
    CLOSERS,
    FULL_CLAUSE_MARKS,
    FULL_MARKS,
    SENTENCE_MARKS,
    is_mark,
    stands_alone,
)
from voicechat.text.draft import Border


class Mark(Enum):
    """Kinds of punctuation, by how many of the next characters decide."""

    FULL = "。"
    """Ends a sentence, whatever follows."""
    LOUD = "!"
    """``!`` and ``?``: end a sentence before a space or another script, but not in
    ``?a=1``.
    """
    DOT = "."
    """A full stop, a decimal point, an abbreviation's dot."""
    ELLIPSIS = "…"
    """Ends a sentence unless a small letter follows."""
    FULL_CLAUSE = "，"
    """Ends a clause, whatever follows."""
    DASH = "—"
    """Ends a clause, together with the dashes that follow."""
    CLAUSE = ","
    """``,;:``: end a clause before a space or another script, but not in 1,000 or
    12:30.
    """

    @property
    def ends_sentence(self) -> bool:
        """Whether it ends a sentence, not only a clause."""
        return self in (Mark.FULL, Mark.LOUD, Mark.DOT, Mark.ELLIPSIS)


def mark_of(char: str, previous: str) -> Mark | None:
    """Classify ``char`` after ``previous``; None if it ends nothing."""
    if char in FULL_MARKS:
        return Mark.FULL
    if char in "!?":
        return Mark.FULL if stands_alone(previous) else Mark.LOUD
    if char == ".":
        return Mark.DOT
    if char in "…⋯":
        return Mark.ELLIPSIS
    if char == "—":
        return Mark.DASH
    if char in FULL_CLAUSE_MARKS:
        return Mark.FULL_CLAUSE
    return Mark.CLAUSE if char in CLAUSE_MARKS else None


class StopVerdict(Enum):
    """What the character after a stop decides."""

    ENDS = "ends"
    """The piece ends at the stop. White space that decided is included."""
    GOES_ON = "goes on"
    """The stop ends nothing."""
    JOINS = "joins"
    """The character belongs to the stop: another mark or a closing quotation mark."""
    WAITS = "waits"
    """White space that does not decide; the next character will."""


@dataclass(frozen=True, slots=True)
class Stop:
    """Punctuation that may end a piece, and what is known so far about it."""

    mark: Mark
    border: Border
    """Where the piece would end: after the mark and the characters that belong to it.
    """
    dot: Dot = Dot.ENDS
    """The meaning of a single dot before white space."""
    after_digit: bool = False
    gap: bool = False
    """White space has followed and did not decide."""

    @property
    def likely(self) -> bool:
        """Whether it ends something if no more text follows."""
        numeric = self.after_digit and self.mark in (Mark.DOT, Mark.CLAUSE)
        return not numeric and (self.mark is not Mark.DOT or self.dot is Dot.ENDS)

    def judge(self, char: str, *, quote_open: bool) -> StopVerdict:
        """Judge by the next character. ``quote_open``: a straight ``"`` here would be a
        closing one.
        """
        if self.gap:
            return self._judge_after_gap(char)
        if self._joins(char, quote_open=quote_open):
            return StopVerdict.JOINS
        if char.isspace():
            return self._judge_space(char)
        if self.mark in (Mark.FULL, Mark.FULL_CLAUSE, Mark.DASH):
            return StopVerdict.ENDS
        if self.mark is Mark.ELLIPSIS and char in CLAUSE_MARKS:
            return StopVerdict.GOES_ON
        if self.mark is Mark.DOT and (self.after_digit or self.dot is Dot.GOES_ON):
            return StopVerdict.GOES_ON
        foreign = not char.isascii() and (stands_alone(char) or not char.isalpha())
        return StopVerdict.ENDS if foreign else StopVerdict.GOES_ON

    def joined(self, char: str, border: Border) -> "Stop":
        """Return the stop extended by ``char``: ``?!`` is LOUD, ``...`` an ELLIPSIS,
        ``。。。`` FULL.
        """
        mark = self.mark
        if mark.ends_sentence and char in SENTENCE_MARKS:
            marks = (mark, mark_of(char, ""))
            mark = (
                Mark.FULL
                if Mark.FULL in marks
                else Mark.LOUD
                if Mark.LOUD in marks
                else Mark.ELLIPSIS
            )
        return replace(self, mark=mark, border=border)

    def waited(self, border: Border) -> "Stop":
        """Return the stop after white space, whose first character belongs to the
        piece.
        """
        return self if self.gap else replace(self, border=border, gap=True)

    def _joins(self, char: str, *, quote_open: bool) -> bool:
        if char in CLOSERS or char in "*_`" or is_mark(char):
            return True
        if char == '"':
            return quote_open
        if self.mark is Mark.DASH:
            return char == "—"
        return char in SENTENCE_MARKS and self.mark.ends_sentence

    def _judge_space(self, char: str) -> StopVerdict:
        if char == "\n":
            return StopVerdict.ENDS
        if self.mark is Mark.ELLIPSIS:
            return StopVerdict.WAITS
        if self.mark is Mark.DOT:
            return {
                Dot.ENDS: StopVerdict.ENDS,
                Dot.GOES_ON: StopVerdict.GOES_ON,
                Dot.DEPENDS: StopVerdict.WAITS,
            }[self.dot]
        return StopVerdict.ENDS

    def _judge_after_gap(self, char: str) -> StopVerdict:
        if char == "\n":
            return StopVerdict.ENDS
        if char.isspace():
            return StopVerdict.WAITS
        return StopVerdict.GOES_ON if char.islower() or char.isdigit() else StopVerdict.ENDS
