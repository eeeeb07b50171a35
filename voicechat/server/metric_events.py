"""Metric events: those that sessions report, and refusals of clients."""

from dataclasses import dataclass
from typing import TypeAlias

from voicechat.errors import Status
from voicechat.runtime.consulting.search_ahead import KnowledgeConsulted
from voicechat.runtime.guarded_store import StoreCalled
from voicechat.session.effects import SessionMetric


@dataclass(frozen=True, slots=True)
class SessionRefused:
    """A client was not admitted."""

    status: Status


MetricEvent: TypeAlias = SessionMetric | SessionRefused | KnowledgeConsulted | StoreCalled
