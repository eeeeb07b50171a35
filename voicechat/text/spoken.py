"""What of a reply's text is spoken."""

import re

from voicechat.text.characters import is_han, strip_unspeakable
from voicechat.text.emoji import strip_emoji
from voicechat.text.fences import Fence
from voicechat.text.markdown import strip_block, strip_inline

_LINES = re.compile(r"[^\n]*\n|[^\n]+")
_SPACES = re.compile(r"\s{2,}")
"""Collapsed first: the patterns of markup begin with white space, and a long run of it
would cost them its square.
"""
_SPACE_BEFORE_MARK = re.compile(r"(?<=\w) (?=[,.;:!?，。；：！？、]+(?:\s|\Z))")
"""Left where something was taken out before the end of a clause."""
_LEFT_OVER = re.compile(r"(?:[\s，。！？；：、…⋯—”’」』）》】]|[,.!?;:)\]](?!\w))+")
"""Punctuation that belongs to the piece before: a splitter may give a sentence out
before its second ``！`` arrives.
"""


class Speakable:
    """Turns the pieces of one reply, in order, into what is to be spoken of them.

    Markdown, code blocks, emoji and characters without a sound are taken off; of a web
    address the host is said. Letters, digits and Han are only ever left out, never
    added, changed or moved. Other markup has been replaced before, by `SpeechMarkup`.
    It remembers between pieces whether a code block is open and whether a line has
    begun (``#`` begins a heading only there). It takes any text and never raises.
    """

    __slots__ = ("_fence", "_in_line", "_line_is_code")

    def __init__(self) -> None:
        self._fence = Fence()
        self._in_line = False
        self._line_is_code = False

    def clean(self, piece: str) -> str:
        """Return what is to be spoken of the next piece: one line, or "" when there is
        no word in it.
        """
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
