"""Fenced code blocks as in CommonMark 0.31 (section 4.5), but with any indentation, as
chat models write them.
"""

import re

FENCE_HEADS = ("```", "~~~")
"""The first three visible characters of a line that opens or closes a block."""

_OPENING = re.compile(r"\s*(`{3,}(?=[^`]*\Z)|~{3,})")


def opens_fence(line: str) -> bool:
    """Return whether ``line``, which may be incomplete, opens a code block."""
    return _OPENING.match(line) is not None


class Fence:
    """Reads a text line by line and tracks which lines are code."""

    __slots__ = ("_marker",)

    def __init__(self) -> None:
        self._marker = ""

    @property
    def inside(self) -> bool:
        """Whether a block is open after the last line."""
        return bool(self._marker)

    def take_line(self, line: str) -> bool:
        """Read the next line, with or without its end. Returns True for code and for
        the fences around it.
        """
        if not self._marker:
            opening = _OPENING.match(line)
            self._marker = opening[1] if opening else ""
            return opening is not None
        if self.closed_by(line):
            self._marker = ""
        return True

    def closed_by(self, line: str) -> bool:
        """Return whether ``line``, which may be incomplete, closes the open block."""
        bare = line.strip()
        return (
            bool(self._marker)
            and len(bare) >= len(self._marker)
            and not bare.strip(self._marker[0])
        )
