"""Tracks whether streamed text is within a code block or a code span."""

import re

from voicechat.text.fences import Fence, opens_fence

_MARKS = re.compile(r"\n|`+")
_LINE_LIMIT = 200
"""Bound of the kept line, in characters. A longer line is not a fence."""


class CodeTracker:
    """Reads visible text in order. Memory is bounded by one line of 200 characters."""

    __slots__ = ("_fence", "_last", "_line", "_span")

    def __init__(self) -> None:
        self._fence = Fence()
        self._line = ""
        self._last = ""
        self._span = False

    @property
    def in_block(self) -> bool:
        """Whether the next character is within a code block or on the line that opens
        one.
        """
        if not self._fence.inside:
            return opens_fence(self._line)
        return not self._fence.closed_by(self._line)

    @property
    def in_code(self) -> bool:
        """Whether the next character is within a code block or in a code span of its
        line.
        """
        return self._span or self.in_block

    def read_text(self, text: str) -> None:
        """Read the next text, of any length."""
        if "`" not in text and "\n" not in text:
            self._append(text)
            return
        at = 0
        for mark in _MARKS.finditer(text):
            self._append(text[at : mark.start()])
            if mark[0] == "\n":
                self._fence.take_line(self._line)
                self._line, self._span, self._last = "", False, "\n"
            else:
                if self._last != "`":  # a run of backticks that was cut in two is one run
                    self._span = not self._span
                self._append(mark[0])
            at = mark.end()
        self._append(text[at:])

    def _append(self, text: str) -> None:
        if text:
            self._last = text[-1]
            if len(self._line) < _LINE_LIMIT:
                self._line = (self._line + text)[:_LINE_LIMIT]
