"""What a server tells about its sessions: what the kernel observes, and whom it never
saw.
"""

from dataclasses import dataclass
from typing import TypeAlias

from voicechat.errors import Status
from voicechat.session.effects import Fact


@dataclass(frozen=True, slots=True)
class SessionRefused:
    """Fact: a client was not admitted."""

    status: Status


MetricEvent: TypeAlias = Fact | SessionRefused
