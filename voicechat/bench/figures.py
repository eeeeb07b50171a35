"""Summary statistics of measurements."""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Spread:
    """The distribution of measurements, in milliseconds."""

    count: int
    p50_ms: float
    p99_ms: float
    max_ms: float

    def __str__(self) -> str:
        """Format it for a report."""
        return f"p50 {self.p50_ms:6.1f} ms   p99 {self.p99_ms:6.1f} ms   max {self.max_ms:6.1f} ms"


def spread(values_ms: Sequence[float]) -> Spread | None:
    """Summarise measurements; None if there are none. Percentiles are nearest-rank:
    each is a measured value.
    """
    if not values_ms:
        return None
    ordered = sorted(values_ms)

    def percentile(share: float) -> float:
        return ordered[math.ceil(share * len(ordered)) - 1]

    return Spread(len(ordered), percentile(0.5), percentile(0.99), ordered[-1])
