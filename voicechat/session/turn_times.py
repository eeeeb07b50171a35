"""When the stages of one turn ended, for measurements and reports."""

from dataclasses import dataclass

from voicechat.session.effects import TurnEnded
from voicechat.session.latency_breakdown import LatencyBreakdown, Stage, break_down_latency
from voicechat.session.notices import Outcome


@dataclass(slots=True)
class ReplyTimes:
    """Times of the reply, in milliseconds of the session; None: the reply did not reach
    that stage.
    """

    first_text_ms: int | None = None
    first_sentence_ms: int | None = None
    first_audio_ms: int | None = None


@dataclass(slots=True)
class TurnTimes:
    """Times of the stages before the reply, in milliseconds of the session."""

    spoken_ms: int
    """When the user fell silent; if that is not known, when the turn ended."""
    decided_ms: int
    understood_ms: int | None = None

    def answered(self, reply: ReplyTimes, sent_ms: int) -> LatencyBreakdown:
        """Return the lengths of the stages, when the first audio of the reply was
        handed to the socket at ``sent_ms``.
        """
        ends_ms = {
            Stage.DECISION: self.decided_ms,
            Stage.TRANSCRIPT: self.understood_ms,
            Stage.FIRST_TOKEN: reply.first_text_ms,
            Stage.FIRST_SENTENCE: reply.first_sentence_ms,
            Stage.FIRST_AUDIO: reply.first_audio_ms,
            Stage.FIRST_SENT: sent_ms,
        }
        return break_down_latency(self.spoken_ms, ends_ms)

    def ended(self, outcome: Outcome, reply: ReplyTimes) -> TurnEnded:
        """Return the metric of the finished turn: how long after its beginning each
        stage ended.
        """
        stages_ms = (self.understood_ms, reply.first_text_ms, reply.first_audio_ms)
        return TurnEnded(
            outcome, *(None if at_ms is None else at_ms - self.decided_ms for at_ms in stages_ms)
        )
