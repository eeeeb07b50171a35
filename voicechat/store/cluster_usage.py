"""What the machines of a cluster tell each other about the keys."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from voicechat.errors import VoiceChatError


class ClusterUnavailableError(VoiceChatError):
    """Redis did not answer, or not in time."""


class QuotaVerdict(Enum):
    """Whether a request of a key may begin."""

    ADMITTED = "admitted"
    SESSIONS = "sessions"
    """The key has as many sessions as it may, on all machines together."""
    RATE = "rate"
    """The key has made as many requests in this minute as it may."""


@dataclass(frozen=True, slots=True)
class KeyUsage:
    """What one key uses in this process."""

    sessions: int
    audio_ms: int
    """Of today."""
    begun: Sequence[str] = ()
    """Reservations whose sessions are among ``sessions``, or are over."""


@dataclass(frozen=True, slots=True)
class Beginning:
    """The answer to a request that wants to begin."""

    verdict: QuotaVerdict
    wait_s: float
    """For RATE: when the next request may begin."""
    audio_elsewhere_ms: int
    """The audio that other processes have used today."""
    reservation: str
    """For ADMITTED: the place that is reserved, for `KeyUsage.begun`."""
