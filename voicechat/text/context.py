"""The context of the next character in a line: a code fence, a code span, a link, a
quotation.
"""

from enum import Enum

from voicechat.text.characters import CLOSERS, OPENERS
from voicechat.text.fences import FENCE_HEADS


class _Span(Enum):
    NONE = "none"
    CODE = "`...`"
    LINK_TEXT = "[...]"
    LINK_END = "[...] may be followed by its target"
    LINK_TARGET = "[...](...)"


_SPAN_MARKS = "`[]()"


class LineContext:
    """Tracks a line character by character, in constant time and space. A line feed
    resets it.
    """

    __slots__ = ("_depth", "_head", "_span", "quote_open")

    def __init__(self) -> None:
        self._head = ""
        self._depth = 0
        self._span = _Span.NONE
        self.quote_open = False

    @property
    def fence_like(self) -> bool:
        """Whether the line begins like the fence of a code block."""
        return self._head in FENCE_HEADS

    @property
    def shielded(self) -> bool:
        """Whether the next character is in a code span or a link, which should not be
        cut.
        """
        return self._span is not _Span.NONE

    @property
    def enclosed(self) -> bool:
        """Whether a quotation or bracket is open: its closing mark may follow."""
        return self.quote_open or self._depth > 0

    def read_char(self, char: str) -> None:
        """Read the next character."""
        if char == "\n":
            self._forget()
            return
        if len(self._head) < len(FENCE_HEADS[0]) and not char.isspace():
            self._head += char
        if char == '"':
            self.quote_open = not self.quote_open
        elif char in OPENERS:
            self._depth += 1
        elif char in CLOSERS:
            self._depth = max(0, self._depth - 1)
        self._span = self._next_span(char)

    def read_plain(self, plain: str) -> None:
        """Read letters, digits and spaces. Same as ``read_char`` for each of them."""
        if len(self._head) < len(FENCE_HEADS[0]):
            self._head = (self._head + plain.replace(" ", ""))[: len(FENCE_HEADS[0])]
        if self._span is _Span.LINK_END:
            self._span = _Span.NONE

    def leave_span(self) -> None:
        """Reset open spans, because the text was cut within them."""
        self._span = _Span.NONE

    def _forget(self) -> None:
        self._head = ""
        self._depth = 0
        self._span = _Span.NONE
        self.quote_open = False

    def _next_span(self, char: str) -> _Span:
        if char not in _SPAN_MARKS:
            return _Span.NONE if self._span is _Span.LINK_END else self._span
        match self._span, char:
            case _Span.CODE, "`":
                return _Span.NONE
            case ((_Span.NONE | _Span.LINK_END), "`"):
                return _Span.CODE
            case ((_Span.NONE | _Span.LINK_END), "["):
                return _Span.LINK_TEXT
            case _Span.LINK_TEXT, "]":
                return _Span.LINK_END
            case _Span.LINK_END, "(":
                return _Span.LINK_TARGET
            case (_Span.LINK_END, _) | (_Span.LINK_TARGET, ")"):
                return _Span.NONE
            case _:
                return self._span
