"""What an agent says without a question of the user, and when it ends the conversation.
Pure; time is an argument.

The session calls ``due`` whenever no turn is in progress, and makes a turn of what it
returns.
"""

import json
from dataclasses import dataclass

from voicechat.session.agent import Agent
from voicechat.session.limits import earliest_ms
from voicechat.session.notices import Ended, Ending
from voicechat.session.snapshot import AgentSnapshot
from voicechat.session.types import ToolExchange, ToolOutcome

END_CONVERSATION = "end_conversation"
"""The tool with which the model ends the conversation after its last words."""
TRANSFER = "transfer"
"""The tool with which the model transfers the conversation after its last words."""


@dataclass(frozen=True, slots=True)
class Say:
    """The agent speaks without a question: ``text``, or what the model answers to
    ``prompt``.
    """

    text: str = ""
    prompt: str = ""


class AgentTurns:
    """The greeting, the prompts during silence and the goodbye of one session."""

    def __init__(self, agent: Agent) -> None:
        self.leaves = False
        """Whether everything has been said and heard, so that the conversation is
        over.
        """
        self._agent = agent
        self._greeting_due = False
        self.begun = False
        """Whether the client is ready to hear, or its user has spoken."""
        self._prompts = 0
        self._ending = False
        """Whether the goodbye is due."""
        self._idle = False
        """Whether the goodbye is due because of the user's silence: then any word of
        the user revokes it.
        """
        self._said_goodbye = False
        self.transfer_to = ""
        """The target of the transfer at the end; empty: there is none."""
        self._acts = bool(
            agent.greets
            or agent.idle_prompts
            or agent.max_duration_ms is not None
            or agent.end_conversation
            or agent.transfers
        )

    def snapshot(self) -> AgentSnapshot:
        """Return what the agent has said by itself."""
        return AgentSnapshot(
            greeting_due=self._greeting_due,
            begun=self.begun,
            prompts=self._prompts,
            ending=self._ending,
            idle=self._idle,
            said_goodbye=self._said_goodbye,
            transfer_to=self.transfer_to,
        )

    def restore(self, kept: AgentSnapshot) -> None:
        """Continue from a snapshot."""
        self._greeting_due, self.begun = kept.greeting_due, kept.begun
        self._prompts, self._ending, self._idle = kept.prompts, kept.ending, kept.idle
        self._said_goodbye, self.transfer_to = kept.said_goodbye, kept.transfer_to

    @property
    def ended(self) -> Ended:
        """How the conversation ends, once ``leaves`` is true."""
        if not self.transfer_to:
            return Ended(Ending.GOODBYE)
        # The message is for protocols that have no other way to report a transfer.
        message = f"transferred to {self.transfer_to}"
        return Ended(Ending.TRANSFERRED, message, transfer_to=self.transfer_to)

    @property
    def minds_silence(self) -> bool:
        """Whether the agent itself handles a user who stays silent."""
        return self._agent.idle_prompts is not None

    def begin(self) -> None:
        """The client is ready to hear. Only the first call has an effect, and only
        before the user has spoken.
        """
        self._greeting_due = self._agent.greets and not self.begun
        self.begun = True

    def heard_user(self) -> None:
        """The user has spoken."""
        self.begun = True
        self._prompts = 0
        self._greeting_due = False
        if self._idle:
            self._idle = self._ending = self._said_goodbye = False

    def note_tools(self, exchange: ToolExchange) -> None:
        """The model has used tools. If it ended the conversation, that ends after the
        goodbye; if it transferred the conversation, that ends after the model's last
        words.
        """
        for call, answer in zip(exchange.calls, exchange.answers, strict=True):
            if answer.tool == TRANSFER and answer.outcome is ToolOutcome.ANSWERED:
                self.transfer_to = self._agent.transfers.get(_named(call.arguments), "")
                self._ending = self._ending or bool(self.transfer_to)
        if self._agent.end_conversation and any(
            a.tool == END_CONVERSATION for a in exchange.answers
        ):
            self._ending = True

    def deadline_ms(self, silent_since_ms: int | None, heard_ms: int | None) -> int | None:
        """Return when to call ``due`` if no event comes before.

        ``silent_since_ms``: when the user's silence in their turn began; None: it is
        not their turn, or they speak. ``heard_ms``: when the last reply will have been
        heard; None: not all of it has been sent.
        """
        if not self._acts:
            return None
        if self._ending:
            return heard_ms
        return earliest_ms(self._agent.max_duration_ms, self._prompt_at_ms(silent_since_ms))

    def due(self, now_ms: int, silent_since_ms: int | None, heard_ms: int | None) -> Say | None:
        """Return what the agent says now; None: nothing. Sets ``leaves`` at the end.
        See ``deadline_ms``.
        """
        if not self._acts:
            return None
        if self._greeting_due:
            self._greeting_due = False
            agent = self._agent
            return Say(agent.greeting, "" if agent.greeting else agent.greeting_prompt)
        limit_ms, prompt_at_ms = self._agent.max_duration_ms, self._prompt_at_ms(silent_since_ms)
        if limit_ms is not None and now_ms >= limit_ms:
            self._ending = True
        elif not self._ending and prompt_at_ms is not None and now_ms >= prompt_at_ms:
            return self._prompt()
        if self._ending and heard_ms is not None and now_ms >= heard_ms:
            return self._goodbye()
        return None

    def _prompt_at_ms(self, silent_since_ms: int | None) -> int | None:
        idle = self._agent.idle_prompts
        if idle is None or silent_since_ms is None:
            return None
        return silent_since_ms + idle.after_ms

    def _prompt(self) -> Say | None:
        assert self._agent.idle_prompts is not None
        text = self._agent.idle_prompts.prompt(self._prompts)
        self._prompts += 1
        if text is not None:
            return Say(text)
        self._ending = self._idle = True
        return self._goodbye()

    def _goodbye(self) -> Say | None:
        if self._said_goodbye or self.transfer_to or not self._agent.goodbye:
            self.leaves = True
            return None
        self._said_goodbye = True
        return Say(self._agent.goodbye)


def _named(arguments: str) -> str:
    """Return the ``to`` in a call's arguments; empty when there is none."""
    try:
        given = json.loads(arguments)
    except (ValueError, RecursionError):
        return ""
    return str(given.get("to", "")) if isinstance(given, dict) else ""
