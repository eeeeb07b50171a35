"""Measures how late the event loop is. Optional work is reduced while it is late."""

from enum import IntEnum

LATE_S = 0.015
VERY_LATE_S = 0.05
"""Thresholds of the smoothed lag of a timer. A timer fires on average half an iteration
of the event loop late, and an answer passes through about 20 iterations between the end
of the user's turn and its first audio: 15 ms mean that they add 0.6 s.
"""
SMOOTHING = 0.3
"""Weight of the newest lag. One pause of 50 ms, such as a garbage collection, changes
nothing.
"""
HOLD_S = 1.0
"""The lateness falls by one step after 1 s below its threshold."""


class Lateness(IntEnum):
    """How late the event loop is."""

    ON_TIME = 0
    LATE = 1
    """Optional work is done less often."""
    VERY_LATE = 2
    """Optional work is left out if only comfort is lost."""


class LoopLateness:
    """The lateness of one event loop, computed from samples that the caller adds."""

    def __init__(self) -> None:
        self.level = Lateness.ON_TIME
        self.late = False
        """Whether it is late at all. An attribute, because each microphone frame checks
        it.
        """
        self.lag_s = 0.0
        """The smoothed lag."""
        self._reached_s = 0.0
        """Loop time at which the level was last reached."""

    def add_lag(self, now_s: float, lag_s: float) -> None:
        """Add a sample: how late a timer fired."""
        self.lag_s += SMOOTHING * (lag_s - self.lag_s)
        found = Lateness.ON_TIME
        if self.lag_s >= LATE_S:
            found = Lateness.VERY_LATE if self.lag_s >= VERY_LATE_S else Lateness.LATE
        if found >= self.level:
            self.level, self._reached_s = found, now_s
        elif now_s - self._reached_s >= HOLD_S:
            self.level, self._reached_s = Lateness(self.level - 1), now_s
        self.late = self.level is not Lateness.ON_TIME
