"""The policy of a configured service: its concurrency limit, deadlines and circuit
breaker.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ServicePolicy:
    """The policy of one service. Times are in seconds."""

    max_streams: int | None = None
    """Concurrent uses by all sessions and workers together; None: unlimited."""
    queue_s: float = 2.0
    """How long a use may wait for a place among ``max_streams``."""
    attempt_s: float | None = None
    """Deadline of the first item while another service could still be asked. None: an
    even share of the stage's deadline.
    """
    first_use_s: float = 60.0
    """Deadline of the first item while the service is cold (no result for 5 minutes)
    and no other is left to ask, if that is longer than the stage's deadline: it may
    have to load its model.
    """
    breaker_failures: int = 5
    """This many failures in a row open the breaker."""
    breaker_ratio: float = 0.5
    """This share of failures among the last 20 uses (``circuit_breaker.WINDOW``) also
    opens it, once there have been 10.
    """
    breaker_pause_s: float = 1.0
    """The first pause. It doubles with every failed trial."""
    breaker_max_pause_s: float = 60.0
    """The longest pause."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StageTimeouts:
    """The deadlines of a stage, for all services of its chain together, in seconds."""

    first_s: float
    """Deadline of the first item."""
    between_s: float
    """Longest time between two items."""
    thinking_s: float = 120.0
    """Deadline of a chat model's first text while its thoughts show that it is working.
    """
