"""What a session begins with: everything that the kernel knows before its first
event.
"""

from dataclasses import dataclass, field

from voicechat.session.agent import Agent
from voicechat.session.fallback_message import FallbackMessage
from voicechat.session.limits import SessionLimits
from voicechat.session.session import Session
from voicechat.session.snapshot import SessionSnapshot
from voicechat.session.types import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionSetup:
    """The arguments of ``Session``. A record holds them, so that a replay begins with
    the same session.
    """

    settings: Settings = field(default_factory=Settings)
    limits: SessionLimits = field(default_factory=SessionLimits)
    audio_shows_life: bool = True
    fallback_message: FallbackMessage | None = None
    agent: Agent = field(default_factory=Agent)
    interrupt_by_voice: bool = True
    prepares_replies: bool = False
    kept: SessionSnapshot | None = None
    """The conversation that the session continues, with its settings in force; None: it
    begins.
    """

    def open(self) -> Session:
        """Open the session."""
        session = Session(
            self.settings,
            self.limits,
            audio_shows_life=self.audio_shows_life,
            fallback_message=self.fallback_message,
            agent=self.agent,
            interrupt_by_voice=self.interrupt_by_voice,
            prepares_replies=self.prepares_replies,
        )
        if self.kept is not None:
            session.restore(self.kept)
        return session
