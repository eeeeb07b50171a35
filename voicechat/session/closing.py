"""How a conversation ends: at once, or as soon as the turn in progress is over."""

from typing import assert_never

from voicechat.errors import Fault
from voicechat.session import events as ev
from voicechat.session.effects import Close, RecordMetric, SessionClosed
from voicechat.session.notices import Ended, Ending, GoingAway, Outcome
from voicechat.session.session_core import SessionCore
from voicechat.session.states import TURN, State
from voicechat.session.turns import Turns

RESTARTS = Ended(Ending.RESTART, "the server restarts; connect again", Fault.AT_CAPACITY)


class EndableTurns(Turns):
    """The turns of one session, and its end, which may have to wait for the turn in
    progress.
    """

    def __init__(self, core: SessionCore) -> None:
        super().__init__(core)
        self.drain_at_ms: int | None = None
        """When a draining server ends the session although a turn is in progress."""
        self._leaving: Ended | None = None
        """Why the session ends as soon as no turn is in progress."""

    def handle_end(self, event: ev.EndEvent) -> None:
        """End at once, or for a drain as soon as the turn in progress is over. An
        announced drain is only reported.
        """
        match event:
            case ev.Disconnected():
                self._drop_everything()
                self._core.state = State.CLOSED
            case ev.WriteStalled():
                self.end_session(Ended(Ending.NOT_READING, event.message, Fault.TIMEOUT))
            case ev.AccessEnded():
                self.end_session(Ended(Ending.ACCESS, event.message, event.fault))
            case ev.Faulted():
                message = "internal error; this session ends"
                self.end_session(Ended(Ending.FAULT, message, Fault.INTERNAL))
            case ev.DrainAnnounced():
                self._core.notify(GoingAway(event.left_ms))
            case ev.DrainRequested():
                self.drain_at_ms = max(self._core.now_ms, event.deadline_ms)
                self.leave_when_idle(RESTARTS)
            case _:
                assert_never(event)

    def leave_when_idle(self, ended: Ended) -> None:
        """End as soon as no turn is in progress."""
        self._leaving = ended
        self._leave_if_idle()

    def _after_turn(self) -> None:
        self._leave_if_idle()

    def _leave_if_idle(self) -> None:
        """End if an end is pending and no turn is in progress."""
        if self._leaving is not None and self._core.state not in TURN:
            self.end_session(self._leaving)

    def _drop_everything(self) -> None:
        self.stop_turn()
        self._core.effects += self._core.transcription.drop_awaited()
        self._core.effects += self._core.replies.stop_out_of_band(self._core.now_ms)
        self.drop_gathering()

    def end_session(self, ended: Ended) -> None:
        """End now: a turn in progress fails, everything is stopped, then ``ended`` is
        sent and the connection closed.
        """
        self._leaving = None
        if self._core.state in TURN:
            self.stop_turn()
            self.end_turn(Outcome.FAILED)
        self._drop_everything()
        self._core.notify(ended)
        self._core.effects += [Close(ended), RecordMetric(SessionClosed(ended.ending))]
        self._core.state = State.CLOSED
