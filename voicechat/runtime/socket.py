"""What a conversation needs of a connection."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from voicechat.dialects.base import Frame


class Control(Enum):
    """What arrives besides frames."""

    PONG = "pong"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class Ping:
    """A ping of the client, which is to be answered with a ``Pong`` of its payload."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Pong:
    """The answer to a ``Ping``; it is sent like a frame."""

    payload: bytes


class Socket(Protocol):
    """One message-oriented connection. ``receive`` and ``send`` are each called by one
    task at a time.
    """

    async def receive(self) -> Frame | Control | Ping:
        """The next message. ``CLOSED`` for ever once the connection is gone; never
        raises. Cancelling loses nothing.
        """

    def offer(self, take: Callable[[bytes], bool]) -> None:
        """Show ``take`` binary frames as they arrive, while none waits to be received.

        Those it takes (True), ``receive`` does not give. It must not raise and not
        wait. A connection need not do it.
        """

    async def send(self, frame: Frame | Pong) -> None:
        """Hand a frame over; returns when the connection can take another.

        Raises ``ConnectionError`` when it is gone. Cancelled while waiting, the frame
        may have been sent.
        """

    async def drained(self) -> None:
        """Return when the connection can take another frame. Raises ``ConnectionError``
        when it is gone.
        """

    @property
    def has_room(self) -> bool:
        """Whether ``send`` would not wait."""

    def send_now(self, frame: Frame | Pong) -> None:
        """Hand a frame over without waiting, while there is room. Raises
        ``ConnectionError`` when it is gone.
        """

    async def ping(self) -> None:
        """Send a ping. Raises ``ConnectionError`` when the connection is gone."""

    async def close(self, code: int, reason: str) -> None:
        """The closing handshake; the caller bounds it."""

    def abort(self) -> None:
        """Drop the connection at once."""
