"""A circuit breaker: requests to a service that keeps failing are suspended for a
pause. No I/O, no clock.

After M. Nygard, *Release It!*: closed while the service works, open for a pause after
too many failures, then half-open: one trial decides.
"""

from collections import deque
from enum import Enum

from voicechat.runtime.fallback.policy import ServicePolicy

WINDOW = 20
"""The number of uses over which the failure ratio is computed."""
ENOUGH = 10
"""The ratio is not computed for fewer uses: 2 failures of 2 prove nothing."""
TRIAL_S = 10.0
"""A trial without a result for this long (a microphone in a silent room) no longer
keeps other uses from being the trial.
"""
MAX_REST_S = 300.0
"""Bound on how long a service may ask not to be called (``Retry-After``)."""


class CircuitState(Enum):
    """The states of a circuit breaker."""

    CLOSED = "closed"
    """Requests pass."""
    OPEN = "open"
    """Requests are refused."""
    TRYING = "trying"
    """Half-open: one request passes as the trial, and decides."""


class CircuitBreaker:
    """The breaker of one service. ``now_s`` is the time of any monotonic clock."""

    def __init__(self, policy: ServicePolicy, *, probed: bool = False) -> None:
        """``probed``: the caller probes the service while the breaker is open, and
        calls ``recovered`` when it answers.
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
        """The current state."""
        return self._state

    @property
    def ready_at_s(self) -> float:
        """The time before which the service is not asked."""
        return self._trial_ends_s if self._state is CircuitState.TRYING else self._ready_at_s

    def allows(self, now_s: float) -> bool:
        """Return whether the service may be asked now."""
        awaits_word = (
            self._state is CircuitState.OPEN and (self._probed or self._kept_out) and not self._well
        )
        return now_s >= self.ready_at_s and not awaits_word

    def rests(self, now_s: float) -> bool:
        """Return whether the service works but has asked not to be called until
        ``ready_at_s``.
        """
        return self._state is CircuitState.CLOSED and now_s < self._ready_at_s

    def begin_use(self, now_s: float) -> bool:
        """Record that a use begins. Returns whether it is the trial."""
        if self._state is CircuitState.CLOSED:
            return False
        self._state = CircuitState.TRYING
        self._trial_ends_s = now_s + TRIAL_S
        return True

    def record_success(self, *, trial: bool) -> None:
        """Record that a use has shown that the service works."""
        if self._state is CircuitState.TRYING and trial:
            self._close()
        elif self._state is CircuitState.CLOSED:
            self._in_a_row = 0
            self._outcomes.append(True)

    def record_failure(self, now_s: float, *, trial: bool) -> bool:
        """Record that a use failed. Returns whether this opened the breaker.

        A failure of a use that began before the breaker opened does not count.
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
        """Record that a use ended without a result. If it was the trial, the next use
        may be one.
        """
        if self._state is CircuitState.TRYING and trial:
            self._state = CircuitState.OPEN
            self._ready_at_s = now_s

    def rest_until(self, until_s: float, now_s: float) -> None:
        """Suspend calls until ``until_s``, as the service requested, but at most for
        ``MAX_REST_S``.
        """
        self._ready_at_s = max(self._ready_at_s, min(until_s, now_s + MAX_REST_S))

    def keep_out(self, now_s: float) -> None:
        """Open the breaker until ``recovered`` is called, because the service did not
        start. This applies without a probe as well.
        """
        self._kept_out = True
        self._open(now_s)

    def recovered(self, now_s: float) -> None:
        """Record that a probe was answered, or that the service has started: the next
        use may be the trial.
        """
        self._well = True
        self._kept_out = False
        self._ready_at_s = now_s

    def lengthen(self, now_s: float) -> None:
        """Open the breaker with twice the previous pause, because a trial, a probe or a
        start failed.
        """
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
