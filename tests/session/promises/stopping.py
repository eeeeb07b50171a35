"""What is stopped is stopped: the client is told so, and nothing more of it is made,
told or sent.
"""

from tests.session.promises.promise import Promise, notices
from voicechat.session import commands as cmd
from voicechat.session import effects as ef
from voicechat.session import events as ev
from voicechat.session import notices as nt
from voicechat.session.states import TURN, State


class Stopping(Promise):
    corners = (
        "a preemptive reply canceled by number",
        "out-of-band reply stopped while tools are awaited",
        "one reply canceled",
        "late reply",
        "playback of no reply",
        "a reply that was told whole is silenced",
    )

    def event(self, event: ev.Event, before: State, effects: list[ef.Effect]) -> None:
        if not isinstance(event, cmd.Cancel):
            return
        told = notices(effects)
        answer = next(
            number for number, n in enumerate(told) if isinstance(n, nt.Done | nt.Rejected)
        )
        if event.reply is None:
            assert isinstance(told[answer], nt.Done)
            completed = sum(isinstance(notice, nt.TurnCompleted) for notice in told)
            assert completed == (before in TURN)
            if before in TURN:
                ends = (nt.ReplyCut, nt.ReplyEnded, nt.NothingSaid)
                assert all(isinstance(n, ends) for n in told[:answer])
                assert isinstance(told[answer + 1], nt.TurnCompleted)
        else:
            stopped = [e.reply for e in effects if isinstance(e, ef.StopReply)]
            assert stopped == [event.reply] * isinstance(told[answer], nt.Done)
            self.world.reach("one reply canceled", stopped)

    def effect(self, effect: ef.Effect) -> None:
        match effect:
            case ef.StopReply(reply):
                made = self.world.replies[reply]
                assert not made.stopped
                self.world.reach("a reply that was told whole is silenced", made.finished)
            case (
                ef.Speak(reply)
                | ef.FinishSpeech(reply)
                | ef.ContinueReply(reply)
                | ef.AdoptReply(reply)
            ):
                assert self.world.replies[reply].live
            case ef.RecordMetric(ef.StaleDropped(kind)):
                self.world.reach(f"late {kind.value}")
            case _:
                pass

    def notice(self, notice: nt.Notice) -> None:
        if isinstance(notice, nt.ReplyNotice):
            assert self.world.replies[notice.reply].live
        if isinstance(notice, nt.LatencyMeasured):
            assert not self.world.replies[notice.reply].stopped

    def always(self) -> None:
        stopped = {number for number, made in self.world.replies.items() if made.stopped}
        assert not any(
            isinstance(n, nt.ReplyNotice) and n.reply in stopped for n in self.world.outbox
        )
