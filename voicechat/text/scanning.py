"""Finds constructs in a text that arrives in pieces, wherever it is cut."""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import NamedTuple, Protocol

from voicechat.text.code import CodeTracker

HELD_CHARACTERS = 1024
"""No construct is waited for longer than this: what is held back is then text."""
_CLOSER_CHARACTERS = 96
"""No closing mark is longer. So much of a skipped text is kept, because the mark may be
cut.
"""


class Run(NamedTuple):
    """A part of the text and what stands for it in the result; plain text stands for
    itself.
    """

    source: str
    result: str


class Skip(Protocol):
    """Knows where a part of the text ends that gives no result."""

    def find_end(self, text: str, at: int) -> int | None:
        """Return where in ``text``, at or after ``at``, the part has ended; None: not
        yet.
        """

    @property
    def kept(self) -> int:
        """How many characters at the end of the text it must see again when more has
        come.
        """

    def then(self) -> "Skip | None":
        """Return what is skipped after the end that was found."""


class Until:
    """Skips to the end of the first match."""

    kept = _CLOSER_CHARACTERS

    def __init__(self, closer: re.Pattern[str]) -> None:
        """``closer`` decides by at most 96 characters; what its look-ahead sees stays
        text.
        """
        self._closer = closer

    def find_end(self, text: str, at: int) -> int | None:
        """See `Skip`."""
        match = self._closer.search(text, at)
        return match.end() if match else None

    def then(self) -> None:
        """See `Skip`."""


class UntilBalanced:
    """Skips a value of JSON, or of Python, to its last bracket."""

    kept = 0

    def __init__(self) -> None:
        self._depth = 0
        self._quote = ""
        self._escaped = False

    def find_end(self, text: str, at: int) -> int | None:
        """See `Skip`."""
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
        """See `Skip`."""


class Scanner(ABC):
    """Takes a text in pieces and gives it in runs: what is found in it, and the plain
    text between.

    The joined results do not depend on how the text was cut. At most
    ``HELD_CHARACTERS`` are held back while it is not certain what they are. It takes
    any text and never raises; work is linear in practice.
    """

    triggers: re.Pattern[str]
    """Finds each character with which a construct may begin."""

    def __init__(self) -> None:
        self.code = CodeTracker()
        self.previous = ""
        """The last character of the result."""
        self._held = ""
        self._skip: Skip | None = None

    @abstractmethod
    def decide(self, text: str, *, final: bool) -> tuple[int, str] | None:
        """Say what ``text`` begins with, which is a trigger: its length and its result.

        ``text`` is cut after ``HELD_CHARACTERS`` and one. None: more is needed; never
        when ``final``. ``(1, text[0])``: this is no construct. ``(0, "")``: it is
        skipped from its first character on.
        """

    def plain(self, text: str) -> None:
        """Take note of plain text, which is in the result as it stands."""
        self.code.read_text(text)
        self.previous = text[-1]

    def skip(self, to: Skip) -> None:
        """Drop the text that follows what is being decided."""
        self._skip = to

    def scan(self, text: str) -> list[Run]:
        """Take the next text."""
        if not self._held and self._skip is None and text and self.triggers.search(text) is None:
            return [self._plain(text)]  # most of a text
        self._held += text
        return list(self._runs(final=False))

    def scan_rest(self) -> list[Run]:
        """The text is complete: give what was held back. A skipped part gives nothing."""
        runs = list(self._runs(final=True))
        self._skip = None
        return runs

    def give_up(self) -> str:
        """Look for nothing more: return what is held back as it stands."""
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
