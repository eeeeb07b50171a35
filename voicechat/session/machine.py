"""What the runtime drives: a sans-I/O state machine. ``Session`` converses,
``TranscriptionSession`` only recognises.
"""

from typing import Protocol

from voicechat.session.effects import Effect
from voicechat.session.events import Event


class Machine(Protocol):
    """A value machine. Time is an argument: whole milliseconds since the connection was
    opened, never going back.
    """

    def receive(self, event: Event, now_ms: int) -> list[Effect]:
        """Take one event and say what is to be done. Never raises for anything a peer
        or a provider did.
        """

    def deadline_ms(self) -> int | None:
        """When ``Ticked`` is wanted next. Ask again after every ``receive``: each
        answer replaces the last.
        """

    @property
    def held_ms(self) -> int:
        """Milliseconds of synthesised audio that wait for their time to leave."""
