"""What the runtime drives: a sans-I/O state machine. ``Session`` converses,
``TranscriptionSession`` only recognises.
"""

from typing import Protocol

from voicechat.session.effects import Effect
from voicechat.session.events import Event


class Machine(Protocol):
    """A value machine. Time is an argument: whole milliseconds since the connection was
    opened, never decreasing.
    """

    def receive(self, event: Event, now_ms: int) -> list[Effect]:
        """Handle one event; return the effects. Never raises for anything that a peer
        or a provider does.
        """

    def deadline_ms(self) -> int | None:
        """Return when ``Ticked`` is needed next. Ask again after every ``receive``:
        each result replaces the previous one.
        """

    @property
    def words_so_far(self) -> str:
        """The words of the user's turn in progress, as recognised so far; empty: none,
        or the machine does not answer them.
        """

    @property
    def held_ms(self) -> int:
        """Return how many milliseconds of synthesised audio wait for their time to be
        sent.
        """
