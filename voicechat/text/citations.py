"""Finds the marks with which a chat model cites numbered material in streamed text."""

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from voicechat.text.scanning import Scanner

_WORDS = tuple(
    "citations cited cites references refs sources materials passages documents docs citation "
    "cite reference ref source material passage document doc "
    "参考资料 来源 参考 引用 资料 材料 文档".split()
)
"""Words that may stand before the numbers of a mark, longer ones first."""
_LIST = r"\d{1,4}(?:\s?[,，、;；\-–]\s?\^?\d{1,4}){0,15}"
_INSIDE = rf"\s?(?:(?:{'|'.join(_WORDS)})\s?[:：#]?\s?)?\^?({_LIST})\s?"
_MARK = re.compile(
    rf"([ \t]*)(?:\[\[{_INSIDE}\]\]|\[{_INSIDE}\]|［{_INSIDE}］"
    rf"|【{_INSIDE}(?:†[^【】\n]{{0,120}})?】)",
    re.IGNORECASE,
)
_MARK_BEGUN = re.compile(
    r"[ \t]*(?:(?:\[\[?|［|【)\s?(?:([^\W\d_]{1,12})\s?[:：#]?\s?)?\^?[\d\s,，、;；\-–^]{0,100}\]?"
    r"|【\s?\d{1,4}†[^【】\n]{0,120})?\Z"
)
_RANGE = re.compile(r"(\d{1,4})(?:\s?[\-–]\s?\^?(\d{1,4}))?")
_MOST_NUMBERS = 32
"""The most numbers of one mark. A range that is longer is cut."""


class CitedText(NamedTuple):
    """A piece of text, and the numbers that are cited directly behind it."""

    text: str
    numbers: tuple[int, ...] = ()
    space: str = ""
    """The white space between the text and the mark. It is not part of ``text``."""


class CitationMarks(Scanner):
    """Separates the text of one reply from its marks, however it is split.

    Marks are ``[1]``, ``[1, 2]``, ``[1-3]``, ``[[1]]``, ``[^1]``, ``[source 1]``,
    ``【1】``, ``［1］``, ``【1†source】`` and the like. A mark counts only if at least
    one of its numbers is known and it stands outside of code; any other text in
    brackets stays as it is.
    """

    triggers = re.compile(r"[ \t](?=[ \t]*(?:[\[【［]|\Z))|[\[【［]")

    def __init__(self, is_known: Callable[[int], bool]) -> None:
        """``is_known`` returns whether material has a number."""
        super().__init__()
        self._is_known = is_known

    def push_text(self, text: str) -> Iterator[CitedText]:
        """Add the next text; yields what is certain."""
        for source, result in self.scan(text):
            yield self._piece(source, result)

    def finish_text(self) -> Iterator[CitedText]:
        """End the text; yields the rest."""
        for source, result in self.scan_rest():
            yield self._piece(source, result)

    def decide(self, text: str, *, final: bool) -> tuple[int, str] | None:
        """Decide whether ``text`` begins with a mark, as `Scanner.decide` says."""
        if self.code.in_code:
            return 1, text[0]
        mark = _MARK.match(text)
        if mark is not None and self._numbers(mark):
            return mark.end(), ""
        if mark is None and not final and _may_become_mark(text):
            return None
        return 1, text[0]

    def _piece(self, source: str, result: str) -> CitedText:
        mark = _MARK.fullmatch(source) if not result else None
        if mark is None:
            return CitedText(source)
        return CitedText("", self._numbers(mark), mark[1])

    def _numbers(self, mark: re.Match[str]) -> tuple[int, ...]:
        """Return the known numbers of a mark, each once, in their order."""
        listed = next(group for group in mark.groups()[1:] if group is not None)
        found: dict[int, None] = {}
        for begin, end in _RANGE.findall(listed):
            for number in range(int(begin), int(end or begin) + 1)[:_MOST_NUMBERS]:
                if self._is_known(number):
                    found[number] = None
        return tuple(found)[:_MOST_NUMBERS]


def _may_become_mark(text: str) -> bool:
    begun = _MARK_BEGUN.match(text)
    if begun is None:
        return False
    word = (begun[1] or "").lower()
    return any(known.startswith(word) for known in _WORDS)
