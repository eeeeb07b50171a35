"""Where the time of an answer went, from the user's last sound to the first audio that
leaves. Pure arithmetic.
"""

from dataclasses import dataclass
from enum import Enum


class Stage(Enum):
    """What the user waits for, one after the other; each stage ends with what it is
    named after.
    """

    DECISION = "decision"
    """The turn is over: by a command, or by a silence that was long enough."""
    TRANSCRIPT = "transcript"
    """The recogniser has said its last."""
    FIRST_TOKEN = "first_token"
    """The chat model has said its first."""
    FIRST_SENTENCE = "first_sentence"
    """Enough of it to be spoken."""
    FIRST_AUDIO = "first_audio"
    """Synthesised and encoded."""
    FIRST_SENT = "first_sent"
    """Handed to the socket."""


@dataclass(frozen=True, slots=True)
class LatencyBreakdown:
    """How long each stage of one answer took. They add up to the whole."""

    stages_ms: dict[Stage, int]

    @property
    def total_ms(self) -> int:
        """From the user's last sound to the first audio sent."""
        return sum(self.stages_ms.values())


def break_down_latency(began_ms: int, ends_ms: dict[Stage, int | None]) -> LatencyBreakdown:
    """Turn the times at which stages ended into their lengths.

    A stage that ended before the one before it, as the first token of a reply that was
    begun early does, was not waited for: it takes no time. Nor does one that did not
    happen (None).
    """
    stages_ms: dict[Stage, int] = {}
    reached_ms = began_ms
    for stage in Stage:
        end_ms = ends_ms.get(stage)
        stages_ms[stage] = max(0, end_ms - reached_ms) if end_ms is not None else 0
        reached_ms += stages_ms[stage]
    return LatencyBreakdown(stages_ms)
