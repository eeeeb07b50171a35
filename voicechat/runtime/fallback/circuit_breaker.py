"""A circuit breaker: a service that keeps failing is left alone for a while, then tried
with care. No I/O, no clock.

After M. Nygard, *Release It!*: closed until too much fails, open for a pause, then one
trial decides.
"""

from collections import deque
from enum import Enum

from voicechat.runtime.fallback.policy import ServicePolicy

WINDOW = 20
"""Uses of which the share of failures is counted."""
ENOUGH = 10
"""Of fewer uses no share is taken: the second failure of two says nothing."""
TRIAL_S = 10.0
"""A trial that has shown nothing for so long (a microphone in a silent room) does not
keep others from being one.
"""
MAX_REST_S = 300.0
"""No service may ask to be left alone for longer."""


class CircuitState(Enum):
    """Whether the service is asked."""

    CLOSED = "closed"
    """As if there were no breaker."""
    OPEN = "open"
    """It is left alone."""
    TRYING = "trying"
    """One use is let through, and decides."""


class CircuitBreaker:
    """The breaker of one service. ``now_s`` is any clock that only goes forward."""

    def __init__(self, policy: ServicePolicy, *, probed: bool = False) -> None:
        """``probed``: somebody asks after the service while it is left alone, and says
        so by ``recovered``.
        """
        self._policy = policy
        self._probed = probed
        self._state = CircuitState.CLOSED
        self._outcomes: deque[bool] = deque(maxlen=WINDOW)
        self._in_a_row = 0
        self._pause_s = policy.breaker_pause_s
        self._ready_at_s = 0.0
        self._trial_ends_s = 0.0
        self._well = False
        self._kept_out = False

    @property
    def state(self) -> CircuitState:
        """Where it stands."""
        return self._state

    @property
    def ready_at_s(self) -> float:
        """Before this time the service is not asked."""
        return self._trial_ends_s if self._state is CircuitState.TRYING else self._ready_at_s

    def allows(self, now_s: float) -> bool:
        """Whether the service may be asked now."""
        awaits_word = (
            self._state is CircuitState.OPEN and (self._probed or self._kept_out) and not self._well
        )
        return now_s >= self.ready_at_s and not awaits_word

    def rests(self, now_s: float) -> bool:
        """Whether the service works, and has asked to be left alone until
        ``ready_at_s``.
        """
        return self._state is CircuitState.CLOSED and now_s < self._ready_at_s

    def begin_use(self, now_s: float) -> bool:
        """A use begins; give whether it is a trial."""
        if self._state is CircuitState.CLOSED:
            return False
        self._state = CircuitState.TRYING
        self._trial_ends_s = now_s + TRIAL_S
        return True

    def record_success(self, *, trial: bool) -> None:
        """A use has shown that the service works."""
        if self._state is CircuitState.TRYING and trial:
            self._close()
        elif self._state is CircuitState.CLOSED:
            self._in_a_row = 0
            self._outcomes.append(True)

    def record_failure(self, now_s: float, *, trial: bool) -> bool:
        """A use has failed; give whether the breaker has opened for it. What began
        before it opened tells nothing.
        """
        if self._state is CircuitState.TRYING and trial:
            self.lengthen(now_s)
            return True
        if self._state is not CircuitState.CLOSED:
            return False
        self._in_a_row += 1
        self._outcomes.append(False)
        if self._in_a_row < self._policy.breaker_failures and not self._fails_often:
            return False
        self._open(now_s)
        return True

    def record_abandoned(self, now_s: float, *, trial: bool) -> None:
        """A use ended before it showed anything: a trial may be held again."""
        if self._state is CircuitState.TRYING and trial:
            self._state = CircuitState.OPEN
            self._ready_at_s = now_s

    def rest_until(self, until_s: float, now_s: float) -> None:
        """Leave the service alone until ``until_s``, ``MAX_REST_S`` at most, because it
        says so.
        """
        self._ready_at_s = max(self._ready_at_s, min(until_s, now_s + MAX_REST_S))

    def keep_out(self, now_s: float) -> None:
        """It did not start: it is left alone until ``recovered``, also without a probe."""
        self._kept_out = True
        self._open(now_s)

    def recovered(self, now_s: float) -> None:
        """A probe was answered, or it has started at last: the next use may be the
        trial.
        """
        self._well = True
        self._kept_out = False
        self._ready_at_s = now_s

    def lengthen(self, now_s: float) -> None:
        """A trial, a probe or a start has failed: the next pause is twice as long."""
        self._pause_s = min(self._pause_s * 2, self._policy.breaker_max_pause_s)
        self._open(now_s)

    @property
    def _fails_often(self) -> bool:
        failures = self._outcomes.count(False)
        return len(self._outcomes) >= ENOUGH and failures >= self._policy.breaker_ratio * len(
            self._outcomes
        )

    def _open(self, now_s: float) -> None:
        self._state = CircuitState.OPEN
        self._ready_at_s = now_s + self._pause_s
        self._well = False

    def _close(self) -> None:
        self._state = CircuitState.CLOSED
        self._pause_s = self._policy.breaker_pause_s
        self._in_a_row = 0
        self._outcomes.clear()
