"""Removal of a reply's leading ``<think>...</think>`` block: thoughts are not to be spoken."""

_OPEN = "<think>"
_CLOSE = "</think>"


class ThoughtFilter:
    """One reply's text, in any cut. Only a block at the very start is a thought; later ones are text about the tag."""

    def __init__(self, *, inside: bool = False) -> None:
        """``inside``: the reply begins within a thought whose opening tag is not part of it."""
        self._held = ""  # undecided: perhaps the beginning of a tag
        self._state = "thought" if inside else "start"

    def push(self, delta: str) -> str:
        """Take the next piece of the reply; give what of it may be spoken."""
        if self._state == "text":
            return delta
        self._held += delta
        if self._state == "start":
            begun = self._held.lstrip()
            if len(begun) < len(_OPEN) and _OPEN.startswith(begun):
                return ""
            if not begun.startswith(_OPEN):
                return self._release()
            self._state = "thought"
        if self._state == "thought":
            _, closed, after = self._held.partition(_CLOSE)
            if not closed:
                self._held = self._held[-len(_CLOSE) :]  # memory stays bounded however long it thinks
                return ""
            self._held = after
            self._state = "after"
        self._held = self._held.lstrip()
        return self._release() if self._held else ""

    def finish(self) -> str:
        """End the reply; give what was still undecided. An unfinished thought stays unspoken."""
        return self._release() if self._state == "start" else ""

    def _release(self) -> str:
        held, self._held, self._state = self._held, "", "text"
        return held
