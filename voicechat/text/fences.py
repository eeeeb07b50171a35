"""Fenced code blocks, as CommonMark 0.31 (section 4.5) has them, but indented as deep
as chat models like.
"""

import re

FENCE_HEADS = ("```", "~~~")
"""What the first three visible characters of a line must be for it to open or close a
block.
"""

_OPENING = re.compile(r"\s*(`{3,}(?=[^`]*\Z)|~{3,})")


def opens_fence(line: str) -> bool:
    """Whether ``line``, as far as it is known, opens a code block."""
    return _OPENING.match(line) is not None


class Fence:
    """Follows a text line by line and knows which lines are code."""

    __slots__ = ("_marker",)

    def __init__(self) -> None:
        self._marker = ""

    @property
    def inside(self) -> bool:
        """Whether a block is open after the last line."""
        return bool(self._marker)

    def take_line(self, line: str) -> bool:
        """Read the next line, with or without its end; True if it is code or one of the
        fences around it.
        """
        if not self._marker:
            opening = _OPENING.match(line)
            self._marker = opening[1] if opening else ""
            return opening is not None
        if self.closed_by(line):
            self._marker = ""
        return True

    def closed_by(self, line: str) -> bool:
        """Whether a block is open that ``line``, as far as it is known, closes."""
        bare = line.strip()
        return (
            bool(self._marker)
            and len(bare) >= len(self._marker)
            and not bare.strip(self._marker[0])
        )
