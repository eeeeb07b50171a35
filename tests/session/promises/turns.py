"""A turn ends exactly once, and nothing of its reply is told outside of it."""

from typing import Any

from tests.session.promises.promise import Promise, notices
from voicechat.session import commands as cmd
from voicechat.session import effects as ef
from voicechat.session import events as ev
from voicechat.session import notices as nt
from voicechat.session.states import TURN, State


class Turns(Promise):
    corners = (
        *(f"state {state.name}" for state in State),
        *(f"turn {outcome.value}" for outcome in nt.Outcome),
        "a turn ends by itself",
        "an interruption by itself",
        "preemptive reply used",
        "preemptive reply dropped",
        "SpeechStarted in REPLYING",
        "SpeechStarted in TRANSCRIBING",
        "second reply",
    )

    def __init__(self, world: Any) -> None:
        super().__init__(world)
        self._open = False

    def event(self, event: ev.Event, before: State, effects: list[ef.Effect]) -> None:
        told = notices(effects)
        detected = [n for n in told if isinstance(n, nt.TurnCommitted) and n.detected]
        interrupted = [n for n in told if isinstance(n, nt.Interrupted)]
        # What silences a reply lets an entry of keys be answered that waited for its end.
        pressed = isinstance(event, cmd.PressKey)
        assert len(detected) + len(interrupted) <= 1 + self.world.keyed
        assert self.world.hands_free or self.world.keyed or not (detected or interrupted)
        self.world.reach("an entry of keys is a turn", pressed and detected)
        self.world.reach("a key silences a reply", pressed and interrupted)
        self.world.reach("a turn ends by itself", detected)
        self.world.reach("an interruption by itself", interrupted)
        asks = isinstance(event, cmd.Respond) and not event.overrides.out_of_band
        if asks and not any(isinstance(n, nt.Rejected) for n in told):
            self._open = True

    def effect(self, effect: ef.Effect) -> None:
        match effect:
            case ef.StartReply(reply):
                assert reply == len(self.world.replies) + 1, (
                    "numbers rise by one and are never used again"
                )
                self.world.reach("second reply", reply == 2)
            case ef.AdoptReply(reply):
                assert self.world.replies[reply].preemptive
                assert self.world.replies[reply].live
            case ef.RecordMetric(ef.PreemptiveReplyEnded(used)):
                self.world.reach(f"preemptive reply {'used' if used else 'dropped'}")
            case ef.RecordMetric(ef.TurnEnded(outcome)):
                self.world.reach(f"turn {outcome.value}")
            case _:
                pass

    def notice(self, notice: nt.Notice) -> None:
        match notice:
            case nt.TurnCommitted():
                self._open = True
            case nt.TurnCompleted():
                assert self._open, "completed exactly once per turn"
                self._open = False
            case nt.ReplyNotice(reply):
                made = self.world.replies[reply]
                assert made.out_of_band or self._open, "a held-back reply never leaks"
                assert not made.preemptive
                assert made.begun != isinstance(notice, nt.ReplyBegun), (
                    "a reply begins before it is told"
                )
                assert not made.over
            case nt.ReplyEnded(reply, outcome):
                made = self.world.replies[reply]
                assert made.begun
                assert not made.over, "a reply ends once"
                assert outcome is not nt.Outcome.SPOKEN or made.finished or not made.asked.voiced
            case _:
                pass

    def always(self) -> None:
        if not self.world.gone:
            assert self._open == (self.world.session.state in TURN)
            current = [made for made in self.world.replies.values() if made.begun and not made.over]
            assert sum(not made.out_of_band for made in current) <= 1, "one reply at a time"
