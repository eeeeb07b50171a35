"""How a configured service is treated: how much is asked of it, and what happens when
it fails.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ServicePolicy:
    """Of one service. Times are seconds."""

    max_streams: int | None = None
    """Uses at the same time, all sessions and workers together; None: any number."""
    queue_s: float = 2.0
    """How long a use may wait for its place among ``max_streams``."""
    attempt_s: float | None = None
    """How long the service may take to its first item while another could still be
    asked. None: an even share of the stage's deadline.
    """
    first_use_s: float = 60.0
    """How long it may take to its first item while it is cold (it has given nothing for
    five minutes) and no other is left to ask, if that is longer than the stage's
    deadline: it may have to load its model first.
    """
    breaker_failures: int = 5
    """So many failures in a row, and the service is left alone for a pause."""
    breaker_ratio: float = 0.5
    """So does this share of failures among its last 20 uses, of 10 at least
    (``breaker.WINDOW``).
    """
    breaker_pause_s: float = 1.0
    """The first pause; it doubles with every trial that fails."""
    breaker_max_pause_s: float = 60.0
    """The longest pause."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StageTimeouts:
    """How long a stage may take, all services of its chain together. Seconds."""

    first_s: float
    """To the first item."""
    between_s: float
    """Between two items."""
    thinking_s: float = 120.0
    """Chat models: to the first text while thoughts show that the model is at work."""
