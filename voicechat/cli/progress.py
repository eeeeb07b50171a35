"""A progress bar, shown only on a terminal."""

from typing import TextIO

_WIDTH = 30


class ProgressBar:
    """A progress bar on one line."""

    def __init__(self, label: str, total: int, stream: TextIO) -> None:
        self._label = label
        self._total = max(total, 1)
        self._stream = stream
        self._shown = stream.isatty()
        self._done = 0
        self._percent = -1

    def advance(self, amount: int) -> None:
        """Add ``amount`` to the progress. Redraws at each whole percent."""
        self._done = min(self._done + amount, self._total)
        percent = 100 * self._done // self._total
        if self._shown and percent != self._percent:
            self._percent = percent
            bar = "#" * (_WIDTH * percent // 100)
            self._stream.write(f"\r[{bar:<{_WIDTH}}] {percent:3d} % {self._label}")
            self._stream.flush()

    def clear(self) -> None:
        """Wipe the line."""
        if self._shown and self._percent >= 0:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
