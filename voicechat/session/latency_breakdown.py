"""Splits the time of an answer into stages, from the user's last sound to the first
audio that is sent. Pure arithmetic.
"""

from dataclasses import dataclass
from enum import Enum


class Stage(Enum):
    """The stages that the user waits for, in order; each is named after what ends
    it.
    """

    DECISION = "decision"
    """The end of the turn was decided: by a command, or by a silence that was long
    enough.
    """
    TRANSCRIPT = "transcript"
    """The recogniser returned its last result."""
    FIRST_TOKEN = "first_token"
    """The chat model returned its first piece."""
    FIRST_SENTENCE = "first_sentence"
    """The text sufficed for a first sentence."""
    FIRST_AUDIO = "first_audio"
    """The first audio was synthesised and encoded."""
    FIRST_SENT = "first_sent"
    """The first audio was handed to the socket."""


@dataclass(frozen=True, slots=True)
class LatencyBreakdown:
    """The length of each stage of one answer. The lengths add up to the whole."""

    stages_ms: dict[Stage, int]

    @property
    def total_ms(self) -> int:
        """From the user's last sound to the first audio sent."""
        return sum(self.stages_ms.values())


def break_down_latency(began_ms: int, ends_ms: dict[Stage, int | None]) -> LatencyBreakdown:
    """Convert the times at which stages ended into their lengths.

    A stage that ended before the previous one (for example the first token of a reply
    that was started early) has the length 0, because nobody waited for it. So does one
    that did not happen (None).
    """
    stages_ms: dict[Stage, int] = {}
    reached_ms = began_ms
    for stage in Stage:
        end_ms = ends_ms.get(stage)
        stages_ms[stage] = max(0, end_ms - reached_ms) if end_ms is not None else 0
        reached_ms += stages_ms[stage]
    return LatencyBreakdown(stages_ms)
