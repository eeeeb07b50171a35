"""What the parts of a conversation share: state, settings, time, the effects of the
current event, and the objects that hold the rest.
"""

from voicechat.session.agent import Agent
from voicechat.session.agent_turns import AgentTurns
from voicechat.session.commands import Command
from voicechat.session.effects import Effect, Send
from voicechat.session.fallback_message import FallbackMessage
from voicechat.session.idle_timeout import IdleTimeout
from voicechat.session.keypad import KeypadEntry
from voicechat.session.limits import SessionLimits
from voicechat.session.notices import Notice, Rejected, Why
from voicechat.session.reply_state import ReplyState
from voicechat.session.states import MOVES, State, Step
from voicechat.session.transcription_state import TranscriptionState
from voicechat.session.turn_detector import TurnDetector
from voicechat.session.types import Settings


class SessionCore:
    """The shared part of one session. Only `Session` and its parts use it."""

    def __init__(
        self,
        settings: Settings,
        limits: SessionLimits,
        *,
        fallback_message: FallbackMessage | None,
        agent: Agent,
        interrupt_by_voice: bool,
    ) -> None:
        """The arguments are those of `Session`."""
        self.state = State.OPENED
        self.settings = settings
        self.limits = limits
        self.now_ms = 0
        """The time of the current event; it never decreases."""
        self.effects: list[Effect] = []
        """The effects of the current event so far, in order."""
        self.idle_timeout = IdleTimeout(limits)
        self.transcription = TranscriptionState()
        self.replies = ReplyState(limits, fallback_message)
        self.agent = AgentTurns(agent)
        self.keypad = KeypadEntry(agent.keypad)
        self.turn_detector = TurnDetector(
            self.idle_timeout,
            self.transcription,
            self.replies,
            limits,
            by_voice=interrupt_by_voice,
        )
        self.turn_detector.configure(settings.turn_detection)

    def move(self, step: Step) -> None:
        """Take the step in the state table of ``states``."""
        self.state = MOVES[self.state][step]

    def notify(self, notice: Notice) -> None:
        """Send the client's dialect a notice."""
        self.effects.append(Send(notice))

    def reject(self, command: Command, why: Why, subject: str = "") -> None:
        """Answer ``command`` with ``Rejected``. ``subject`` names what the command
        asked for.
        """
        message = f"{subject}: {why.value}" if subject else why.value
        self.notify(Rejected(command.cause, why, message))
