"""What must hold, and what is noted when it does not."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Violation:
    """A rule that did not hold."""

    rule: str
    """A short name, the same for all instances."""
    visit: int
    """The visit that it happened to; -1 for the servers themselves."""
    at_s: float
    what: str

    def __str__(self) -> str:
        whose = f"visit {self.visit}" if self.visit >= 0 else "servers"
        return f"{self.rule}: {whose} at {self.at_s:.3f} s: {self.what}"
