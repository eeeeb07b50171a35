"""Finds constructs in streamed text, however it is split."""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import NamedTuple, Protocol

from voicechat.text.code import CodeTracker

HELD_CHARACTERS = 1024
"""At most this much text is held back while a construct is incomplete; after that it is
plain text.
"""
_CLOSER_CHARACTERS = 96
"""No closing mark is longer. This much of a skipped text is kept, because the mark may
be split.
"""


class Run(NamedTuple):
    """A part of the text and its replacement; plain text is its own replacement."""

    source: str
    result: str


class Skip(Protocol):
    """Finds the end of a part of the text that is dropped."""

    def find_end(self, text: str, at: int) -> int | None:
        """Return where in ``text``, at or after ``at``, the part ends, or None if the
        end has not come.
        """

    @property
    def kept(self) -> int:
        """How many characters at the end of the text it must see again with the next
        text.
        """

    def then(self) -> "Skip | None":
        """Return what is skipped after that end."""


class Until:
    """Skips to the end of the first match."""

    kept = _CLOSER_CHARACTERS

    def __init__(self, closer: re.Pattern[str]) -> None:
        """``closer`` decides by 96 characters or fewer; look-ahead is not skipped."""
        self._closer = closer

    def find_end(self, text: str, at: int) -> int | None:
        """Return the end of the match, as `Skip.find_end`."""
        match = self._closer.search(text, at)
        return match.end() if match else None

    def then(self) -> None:
        """Skip nothing more."""


class UntilBalanced:
    """Skips a JSON or Python value to its last bracket."""

    kept = 0

    def __init__(self) -> None:
        self._depth = 0
        self._quote = ""
        self._escaped = False

    def find_end(self, text: str, at: int) -> int | None:
        """Return the position after the last bracket, as `Skip.find_end`."""
        for index in range(at, len(text)):
            char = text[index]
            if self._escaped:
                self._escaped = False
            elif self._quote:
                self._escaped = char == "\\"
                if char == self._quote:
                    self._quote = ""
            elif char in "\"'":
                self._quote = char
            elif char in "([{":
                self._depth += 1
            elif char in ")]}":
                self._depth -= 1
                if self._depth <= 0:
                    return index + 1
        return None

    def then(self) -> None:
        """Skip nothing more."""


class Scanner(ABC):
    """Splits streamed text into runs: the constructs that are found, and the plain text
    between them.

    The joined results do not depend on how the text was split. At most
    ``HELD_CHARACTERS`` are held back while they are undecided. It accepts any text and
    never raises; the work is linear in practice.
    """

    triggers: re.Pattern[str]
    """Matches each character with which a construct may begin."""

    def __init__(self) -> None:
        self.code = CodeTracker()
        self.previous = ""
        """The last character of the result."""
        self._held = ""
        self._skip: Skip | None = None

    @abstractmethod
    def decide(self, text: str, *, final: bool) -> tuple[int, str] | None:
        """Return the length and the result of the construct at the start of ``text``,
        which is a trigger.

        ``text`` is cut after ``HELD_CHARACTERS`` + 1. None: more text is needed; never
        when ``final``. ``(1, text[0])``: there is no construct. ``(0, "")``: it is
        skipped from its first character on.
        """

    def plain(self, text: str) -> None:
        """Note plain text, which is unchanged in the result."""
        self.code.read_text(text)
        self.previous = text[-1]

    def skip(self, to: Skip) -> None:
        """Drop the text after the construct that is being decided."""
        self._skip = to

    def scan(self, text: str) -> list[Run]:
        """Scan the next text."""
        if not self._held and self._skip is None and text and self.triggers.search(text) is None:
            return [self._plain(text)]  # most of a text
        self._held += text
        return list(self._runs(final=False))

    def scan_rest(self) -> list[Run]:
        """End the text: return what was held back. A skipped part yields nothing."""
        runs = list(self._runs(final=True))
        self._skip = None
        return runs

    def give_up(self) -> str:
        """Stop looking for constructs. Returns the text that is held back."""
        held, self._held, self._skip = self._held, "", None
        return held

    def _runs(self, *, final: bool) -> Iterator[Run]:
        text, at = self._held, 0
        self._held = ""
        while at < len(text):
            if self._skip is not None:
                end = self._skip.find_end(text, at)
                if end is None:
                    kept_from = len(text) if final else max(at, len(text) - self._skip.kept)
                    self._held = text[kept_from:]
                    yield Run(text[at:kept_from], "")
                    return
                self._skip = self._skip.then()
                yield Run(text[at:end], "")
                at = end
                continue
            trigger = self.triggers.search(text, at)
            begin = trigger.start() if trigger else len(text)
            if begin > at:
                yield self._plain(text[at:begin])
                at = begin
                continue
            window = text[at : at + HELD_CHARACTERS + 1]
            decided = self.decide(window, final=final or len(window) > HELD_CHARACTERS)
            if decided is None:
                self._held = text[at:]
                return
            length, result = decided
            if not length:
                continue
            source = window[:length]
            at += length
            if result == source:
                yield self._plain(source)
            else:
                self.previous = result[-1:] or self.previous
                yield Run(source, result)

    def _plain(self, text: str) -> Run:
        self.plain(text)
        return Run(text, text)
