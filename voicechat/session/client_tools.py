"""The tool calls that the client carries out: which answers are awaited, and how the
reply continues after the last one.
"""

from voicechat.session.commands import AnswerTool
from voicechat.session.effects import ContinueReply, Effect, RecordMetric, Send, ToolEnded
from voicechat.session.filler import Filler
from voicechat.session.limits import SessionLimits
from voicechat.session.notices import Rejected, Why
from voicechat.session.reply import Reply
from voicechat.session.reply_registry import ReplyRegistry
from voicechat.session.tool_calls import options_after_calls
from voicechat.session.types import ToolOutcome


class ClientTools:
    """The calls that await the client's answer, over all replies in progress."""

    def __init__(self, registry: ReplyRegistry, limits: SessionLimits) -> None:
        self._registry = registry
        self._limits = limits

    def _awaited_calls(self, reply: Reply) -> tuple[str, ...]:
        """The ids of the tool calls that were sent to the client and are not
        answered.
        """
        return (
            ()
            if reply is self._registry.current and self._registry.uncommitted is not None
            else reply.tools.awaited
        )

    def answers_due_ms(self, reply: Reply) -> int | None:
        """When the client must have answered; None: no answer is awaited."""
        asked_ms = reply.tools.asked_ms
        if asked_ms is None or not self._awaited_calls(reply):
            return None
        return asked_ms + self._limits.tool_answer_ms

    def filler_due_ms(self, reply: Reply) -> int | None:
        """When to speak a filler while the client works; None: never, for example
        because the reply has text already.
        """
        asked_ms = reply.tools.asked_ms
        if asked_ms is None or not reply.voiced or reply.text.strip():
            return None
        chat = self._registry.requests[reply.number].chat
        if chat.filler in (None, Filler()) or not self._awaited_calls(reply):
            return None
        return asked_ms + chat.filler_after_ms

    def say_filler(self, reply: Reply, now_ms: int) -> list[Effect]:
        """Speak the filler of a reply; at most once per reply."""
        request = self._registry.requests[reply.number]
        return reply.say_filler(request.filler(self._registry.history.messages), now_ms)

    def answer_tool(self, command: AnswerTool, now_ms: int) -> list[Effect]:
        """Take the client's answer to a call. After the last awaited answer, ask the
        model to continue the reply.
        """
        waiting = [
            reply for reply in self._registry.replies_in_progress() if self._awaited_calls(reply)
        ]
        for reply in waiting:
            asked_ms = reply.tools.asked_ms
            if asked_ms is None or command.call_id not in self._awaited_calls(reply):
                continue
            reply.tools.answer_call(command.call_id, command.content)
            ended = RecordMetric(ToolEnded("", ToolOutcome.ANSWERED, now_ms - asked_ms))
            return [ended, *self.continue_reply(reply)]
        why = Why.OTHER_CALL if waiting else Why.NO_CALL
        return [Send(Rejected(command.cause, why, f"{command.call_id!r}: {why.value}"))]

    def abandon_calls(
        self, reply: Reply, why: str, outcome: ToolOutcome, now_ms: int
    ) -> list[Effect]:
        """Answer the calls of ``reply`` that are still awaited with ``why``."""
        since_ms = reply.tools.asked_ms
        if since_ms is None:
            return []
        return [
            RecordMetric(ToolEnded("", outcome, now_ms - since_ms))
        ] * reply.tools.abandon_calls(why)

    def continue_reply(self, reply: Reply) -> list[Effect]:
        """Ask the model to continue ``reply``, unless calls are still awaited."""
        if reply.tools.awaited:
            return []
        reply.tools.asked_ms = None
        request = self._registry.requests[reply.number]
        messages = (
            *request.messages(self._registry.history.messages),
            *reply.tools.messages(reply.text),
        )
        may_call = reply.tools.rounds < self._limits.tool_rounds
        options = options_after_calls(request.chat.options, may_call=may_call)
        return [ContinueReply(reply.number, messages, options)]
