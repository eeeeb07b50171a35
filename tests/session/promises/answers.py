"""Each command is answered once, with its cause; one that is rejected has changed
nothing.
"""

from collections import Counter
from typing import Any

from tests.session.promises.promise import Promise, notices
from voicechat.session import commands as cmd
from voicechat.session import effects as ef
from voicechat.session import events as ev
from voicechat.session import notices as nt
from voicechat.session.states import TURN, State

DONE = (
    *(cmd.Configure, cmd.ClearInput, cmd.ClearHistory, cmd.Cancel),
    *(cmd.AddItem, cmd.DeleteItem, cmd.TruncateReply),
)
"""Answered at once by ``Done`` or ``Rejected``."""
NEVER_REJECTED = (cmd.Configure, cmd.ClearInput, cmd.ClearHistory)


class Answers(Promise):
    corners = (
        *(f"rejected {why.name}" for why in nt.Why),
        *(
            f"{command.__name__} in {state.name}"
            for command in (*DONE, cmd.CommitTurn, cmd.Respond, cmd.Alive)
            for state in (State.LISTENING, State.TRANSCRIBING, State.REPLYING)
        ),
        "AnswerTool in REPLYING",
    )

    def __init__(self, world: Any) -> None:
        super().__init__(world)
        self._begun: Counter[object] = Counter()
        """How many replies each cause has begun."""
        self._asked: set[object] = set()

    def event(self, event: ev.Event, before: State, effects: list[ef.Effect]) -> None:
        told = notices(effects)
        answers = [notice for notice in told if isinstance(notice, nt.Done | nt.Rejected)]
        committed = [n for n in told if isinstance(n, nt.TurnCommitted) and not n.detected]
        for begun in [n for n in told if isinstance(n, nt.ReplyBegun) and n.cause is not None]:
            self._begun[begun.cause] += 1
        if isinstance(event, cmd.Respond | cmd.CommitTurn):
            self._asked.add(event.cause)
        assert set(self._begun) <= self._asked
        assert max(self._begun.values(), default=0) <= 1, "a command begins one reply"
        assert all(answer.cause == getattr(event, "cause", None) for answer in answers)
        assert all(commit.cause == getattr(event, "cause", None) for commit in committed)
        match event:
            case cmd.AnswerTool():
                assert len(answers) <= 1
            case cmd.CommitTurn():
                assert len(answers) + len(committed) == 1
                aside = before is State.REPLYING and not event.respond and event.text is None
                assert bool(committed) == (before not in TURN or aside)
            case cmd.Respond():
                assert len(answers) <= 1
                if event.overrides.out_of_band:
                    assert len(answers) + self._begun[event.cause] == 1
                else:
                    assert not answers or before in TURN
                    assert answers or before is not State.REPLYING
            case _ if isinstance(event, DONE):
                assert len(answers) == 1
                assert isinstance(answers[0], nt.Done) or not isinstance(event, NEVER_REJECTED)
            case _:
                assert not answers
        if answers and isinstance(answers[0], nt.Rejected):
            self.world.reach(f"rejected {answers[0].why.name}")
            if not self.world.hands_free:
                assert self.world.session.state is before
                assert not any(
                    isinstance(e, ef.StartReply | ef.StopReply | ef.ContinueReply) for e in effects
                )
