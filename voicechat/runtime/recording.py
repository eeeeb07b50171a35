"""What a conversation tells its record."""

from collections.abc import Sequence
from typing import Protocol

from voicechat.session.effects import Effect
from voicechat.session.events import Event


class SessionRecorder(Protocol):
    """Takes what happens in one conversation. The methods are called on the event loop;
    they neither wait nor raise. Times are the session's, in milliseconds.
    """

    @property
    def takes_audio(self) -> bool:
        """Whether ``heard`` and ``spoken`` are to be called. It does not change."""

    def note(self, event: Event, now_ms: int, effects: Sequence[Effect]) -> None:
        """Take an event of the session, and the effects that it returned."""

    def heard(self, pcm: bytes, now_ms: int) -> None:
        """Take audio of the user, s16le mono at 16 kHz, as it has arrived: all of it,
        in order.
        """

    def spoken(self, reply: int, pcm: bytes, rate_hz: int) -> None:
        """Take the next audio of a reply, s16le mono, as it is encoded for the
        client.
        """

    def close(self, now_ms: int) -> None:
        """The conversation has ended. Nothing follows."""
