"""Tools: every call that is told is answered or given up, once, and the model is asked
again only then. A filler is said once, when it is due, and never over an answer.
"""

from typing import Any

from tests.session.promises.driver import FILLER, LIMITS
from tests.session.promises.promise import Promise
from voicechat.session import effects as ef
from voicechat.session import notices as nt
from voicechat.session.filler import AFTER_MS
from voicechat.session.tool_calls import NO_ANSWER_IN_TIME
from voicechat.session.types import ToolOutcome


class Tools(Promise):
    corners = (
        *(
            f"tool {outcome.value}"
            for outcome in (ToolOutcome.ANSWERED, ToolOutcome.TIMEOUT, ToolOutcome.CANCELED)
        ),
        *(f"tool round {number}" for number in range(1, LIMITS.tool_rounds + 1)),
        "tools over the limit",
        "tools of a preemptive reply",
        "server tools",
        "late tool answer OTHER_CALL",
        "late tool answer NO_CALL",
        "forget while tools are awaited",
        "a call ends the reply",
        "tools of an out-of-band reply",
        "filler",
        "filler of an out-of-band reply",
        "an answer before the filler",
    )

    def __init__(self, world: Any) -> None:
        super().__init__(world)
        self._ended = 0

    def effect(self, effect: ef.Effect) -> None:
        match effect:
            case ef.ContinueReply():
                self._go_on(effect)
            case ef.RecordMetric(ef.ToolEnded(_, outcome)):
                self._ended += 1
                self.world.reach(f"tool {outcome.value}")
            case _:
                pass

    def _go_on(self, effect: ef.ContinueReply) -> None:
        made = self.world.replies[effect.reply]
        assert made.paused
        assert not made.preemptive
        overdue = self.world.now >= made.asked_ms + LIMITS.tool_answer_ms
        assert overdue or not made.awaited, "asked again before the answers were there"
        wanted = [(call, made.answers.get(call, NO_ANSWER_IN_TIME)) for call in made.calls]
        got = [(m["tool_call_id"], m["content"]) for m in effect.messages[-len(wanted) :]]
        assert got == wanted, "every call has its own answer, in the order of the calls"
        assert (effect.options.get("tool_choice") == "none") == (made.rounds >= LIMITS.tool_rounds)
        self.world.reach(f"tool round {made.rounds}")
        self.world.reach("tools of an out-of-band reply", made.out_of_band)
        self.world.reach(
            "an answer before the filler",
            made.asked.chat.filler is not None and not made.text.strip(),
        )

    def notice(self, notice: nt.Notice) -> None:
        match notice:
            case nt.ReplyToolCall(reply, call):
                made = self.world.replies[reply]
                assert made.rounds < LIMITS.tool_rounds
                assert call.id is None or call.id not in self.world.told_ids
            case nt.ReplyText(reply, text) if self.world.replies[reply].filler_ms == self.world.now:
                made = self.world.replies[reply]
                assert made.asked.chat.filler is not None
                assert made.asked.voiced
                assert made.paused
                assert len(made.awaited) > 0, "no filler once the answers are there"
                assert not made.preemptive
                assert text.strip() in (FILLER.en, FILLER.zh)
                assert made.text == text, "no filler when something has been said"
                assert self.world.now >= made.asked_ms + AFTER_MS
                self.world.reach("filler")
                self.world.reach("filler of an out-of-band reply", made.out_of_band)
            case nt.ReplyTextFinished(reply, reason):
                made = self.world.replies[reply]
                assert (reason == "tool_calls") == bool(made.calls and reason != "length")
                if made.calls and reason != "length" and not made.asked.chat.answers_tools:
                    assert made.text_ended
                    self.world.reach("a call ends the reply")
            case _:
                pass

    def always(self) -> None:
        if not self.world.gone:
            awaited = sum(
                len(made.awaited) for made in self.world.replies.values() if not made.stopped
            )
            assert self.world.calls_made - self._ended == awaited, "every call ends once"
            for made in self.world.replies.values():
                silent = made.live and made.asked.voiced and not made.text.strip()
                due = self.world.now >= made.asked_ms + AFTER_MS
                assert not (
                    silent
                    and due
                    and made.paused
                    and made.awaited
                    and made.asked.chat.filler is not None
                    and not made.preemptive
                ), "a filler that is due is said"
