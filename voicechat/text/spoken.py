"""Which part of a reply's text is spoken."""

import re

from voicechat.text.characters import is_han, strip_unspeakable
from voicechat.text.emoji import strip_emoji
from voicechat.text.fences import Fence
from voicechat.text.markdown import strip_block, strip_inline

_LINES = re.compile(r"[^\n]*\n|[^\n]+")
_SPACES = re.compile(r"\s{2,}")
"""Collapsed first: patterns of markup begin with white space, and would take quadratic
time on a long run of it.
"""
_SPACE_BEFORE_MARK = re.compile(r"(?<=\w) (?=[,.;:!?，。；：！？、]+(?:\s|\Z))")
"""A space that is left before punctuation after something was removed."""
_LEFT_OVER = re.compile(r"(?:[\s，。！？；：、…⋯—”’」』）》】]|[,.!?;:)\]](?!\w))+")
"""Punctuation that belongs to the piece before: a splitter may emit a sentence before
its second ``！`` arrives.
"""


class Speakable:
    """Turns the pieces of one reply, in order, into the text that is spoken.

    Removes Markdown, code blocks, emoji and characters without a sound; of a web
    address the host is kept. Letters, digits and Han are only removed, never added,
    changed or moved. `SpeechMarkup` has replaced other markup before. The state between
    pieces is whether a code block is open and whether a line has begun (``#`` begins a
    heading only there). It accepts any text and never raises.
    """

    __slots__ = ("_fence", "_in_line", "_line_is_code")

    def __init__(self) -> None:
        self._fence = Fence()
        self._in_line = False
        self._line_is_code = False

    def clean(self, piece: str) -> str:
        """Return the spoken text of the next piece: one line, or "" without words."""
        lines = [self._clean_line(line) for line in _LINES.findall(piece)]
        text = _SPACE_BEFORE_MARK.sub("", " ".join(" ".join(lines).split()))
        left_over = _LEFT_OVER.match(text)
        if left_over:
            text = text[left_over.end() :]
        return text if any(char.isalnum() or is_han(char) for char in text) else ""

    def _clean_line(self, line: str) -> str:
        """Clean a line, or the part of one that is in this piece."""
        begins = not self._in_line
        self._in_line = not line.endswith("\n")
        if begins:
            self._line_is_code = self._fence.take_line(line)
        if self._line_is_code:
            return ""
        line = _SPACES.sub(" ", line)
        return strip_unspeakable(strip_emoji(strip_inline(strip_block(line) if begins else line)))
