"""Fenced code blocks, as CommonMark 0.31 (section 4.5) has them, but indented as deep as chat models like."""

import re

FENCE_HEADS = ("```", "~~~")
"""What the first three visible characters of a line must be for it to open or close a block."""

_OPENING = re.compile(r"\s*(`{3,}(?=[^`]*\Z)|~{3,})")


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
        """Read the next line, with or without its end; True if it is code or one of the fences around it."""
        if not self._marker:
            opening = _OPENING.match(line)
            self._marker = opening[1] if opening else ""
            return opening is not None
        bare = line.strip()
        if len(bare) >= len(self._marker) and not bare.strip(self._marker[0]):
            self._marker = ""
        return True
