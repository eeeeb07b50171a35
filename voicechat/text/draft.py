"""The buffer of text that has not been returned yet, with the positions where it may be
cut.
"""

from typing import NamedTuple

from voicechat.text.characters import is_mark, is_wide, may_cut_between, stands_alone

NARROW_WEIGHT = 3
WIDE_WEIGHT = 8
"""A wide character takes about 8/3 of the speaking time of others: 1 s is 4.8 Han or 13
to 15 Latin characters.
"""

ALONE_SUBSTANCE = 3
WORD_SUBSTANCE = 4
"""Four characters that stand alone count as much as three words."""


class Border(NamedTuple):
    """A position between two characters: the amount of text before it, from the
    beginning.

    One is created for every character; a frozen dataclass would take twice as long.
    """

    at: int = 0
    """Characters."""
    weight: int = 0
    """Length in units of speaking time."""
    substance: int = 0
    """Amount of speakable text: 0 for punctuation, white space and code."""


class Draft:
    """A buffer of characters that remembers its last clause border and its last word
    border.

    Borders count from the beginning of the text, so a cut does not move them.
    """

    __slots__ = ("_chars", "_clause", "_end", "_line", "_origin", "_previous", "_word")

    def __init__(self) -> None:
        self._chars: list[str] = []
        self._origin = self._end = self._clause = self._word = Border()
        self._line = 0
        self._previous = "\n"

    @property
    def end(self) -> Border:
        """The border after the last character."""
        return self._end

    @property
    def previous(self) -> str:
        """The character before the end, even if it has been cut off already."""
        return self._previous

    @property
    def length(self) -> int:
        """Number of characters held."""
        return len(self._chars)

    @property
    def clause(self) -> Border:
        """The last clause border. Its substance is not positive if it is outside of the
        text held.
        """
        return self._clause

    @property
    def word(self) -> Border:
        """The last border between words or clauses. Its substance is not positive if it
        is outside of the text held.
        """
        return self._word

    def weight(self, border: Border) -> int:
        """Return the weight of the text held up to ``border``."""
        return border.weight - self._origin.weight

    def substance(self, border: Border) -> int:
        """Return the substance of the text held up to ``border``."""
        return border.substance - self._origin.substance

    def meet(self, char: str) -> None:
        """Look at the next character: there is a word border before it if one of the
        letters on both sides is of a script without spaces.
        """
        if may_cut_between(self._previous, char):
            self._word = self._end

    def append(self, char: str, *, code: bool) -> None:
        """Append one character. ``code`` has no substance and no borders."""
        substance = 0 if code else self._substance_of(char)
        weight = WIDE_WEIGHT if is_wide(char) else NARROW_WEIGHT
        end = self._end
        self._end = Border(end.at + 1, end.weight + weight, end.substance + substance)
        self._chars.append(char)
        self._previous = char
        if char == "\n":
            self._line = self._end.at
        if char.isspace() and not code:
            self._word = self._end

    def append_words(self, words: str, *, code: bool) -> None:
        """Append ASCII letters, digits and spaces: same as ``append`` for each."""
        at, weight, substance = self._end
        at, weight = at + len(words), weight + len(words) * NARROW_WEIGHT
        if not code:
            goes_on = words[0] != " " and self._substance_of(words[0]) == 0
            substance += WORD_SUBSTANCE * (len(words.split()) - goes_on)
            _, space, last = words.rpartition(" ")
            if space:
                of_last = WORD_SUBSTANCE if last else 0
                self._word = Border(
                    at - len(last), weight - len(last) * NARROW_WEIGHT, substance - of_last
                )
        self._add(words, Border(at, weight, substance))

    def append_han(self, han: str, *, code: bool) -> None:
        """Append Han characters, with a border between any two. Same as ``meet`` and
        ``append`` for each of them.
        """
        at, weight, substance = self._end
        count = len(han)
        each = 0 if code else ALONE_SUBSTANCE
        if count > 1 and not code:
            self._word = Border(
                at + count - 1, weight + (count - 1) * WIDE_WEIGHT, substance + (count - 1) * each
            )
        self._add(han, Border(at + count, weight + count * WIDE_WEIGHT, substance + count * each))

    def _add(self, text: str, end: Border) -> None:
        self._chars += text
        self._previous = text[-1]
        self._end = end

    def mark_clause(self, border: Border) -> None:
        """Remember that a clause ends at ``border``."""
        self._clause = border
        if border.at > self._word.at:
            self._word = border

    def tail(self, count: int) -> str:
        """Return the last ``count`` characters held, or fewer."""
        return "".join(self._chars[-count:])

    def line(self, limit: int) -> str | None:
        """Return the current line, or None if it is longer than ``limit`` or its
        beginning has been cut off.
        """
        held = self._end.at - self._line
        return self.tail(held) if 0 < held <= min(limit, len(self._chars)) else None

    def cut(self, border: Border) -> str:
        """Remove and return the text up to ``border``."""
        count = border.at - self._origin.at
        piece = "".join(self._chars[:count])
        del self._chars[:count]
        self._origin = border
        return piece

    def ends_at_word(self) -> bool:
        """Whether the text does not end within a word."""
        return stands_alone(self._previous) or not (
            self._previous.isalnum() or is_mark(self._previous)
        )

    def _substance_of(self, char: str) -> int:
        if stands_alone(char):
            return ALONE_SUBSTANCE
        if not char.isalnum():
            return 0
        inside = self._chars and (self._previous.isalnum() or is_mark(self._previous))
        return 0 if inside and not stands_alone(self._previous) else WORD_SUBSTANCE
