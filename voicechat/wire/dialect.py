"""What a wire dialect must be: frames in, events out; messages in, frames out. No I/O, no clock.

One file per dialect, with a module-level ``open_dialect(greeting) -> Dialect``. A dialect object belongs to one
connection and may keep state of it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from voicechat.names import ServiceNames
from voicechat.session.effects import ClientMessage
from voicechat.session.events import Decoded

Frame: TypeAlias = str | bytes
"""One WebSocket message: text or binary."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Greeting:
    """What is known about a connection when it is opened."""

    query: Mapping[str, str] = field(default_factory=dict)
    """The request's query parameters, without any token."""
    epoch_s: float = 0.0
    """Unix time of the session's millisecond 0, for the ``created`` stamps of chat chunks."""
    session_id: str = ""
    """Random; makes the ids of replies unique."""
    models: ServiceNames = field(default_factory=ServiceNames)
    """Chat models that may be asked for by name."""
    model: str = "default"
    """The chat model that the connection asked for, by the name that it used."""
    note: str = ""
    """What the client is told when its connection is opened; see ``names.Resolved.note``."""
    hands_free: bool = True
    """Whether the server can detect the ends of turns itself."""
    pick_voice: Callable[[str], str] = lambda name: name
    """Maps a wished-for voice name to one that the service has."""


class Dialect(Protocol):
    """Translates one connection."""

    @property
    def bare_audio(self) -> bool:
        """Whether every binary frame that is not empty is ``AudioReceived``, as it is."""

    def decode(self, frame: Frame) -> list[Decoded]:
        """Understand one frame. Never raises: what cannot be understood is a ``MalformedReceived``."""

    def encode(self, message: ClientMessage) -> list[Frame]:
        """Say one message. Empty when this dialect has no such message."""
