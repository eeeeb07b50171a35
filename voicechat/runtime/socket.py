"""The interface between a conversation and its connection."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from voicechat.dialects.base import Frame


class Control(Enum):
    """Messages of a socket other than frames and pings."""

    PONG = "pong"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class Ping:
    """A ping of the client. Answer it with a ``Pong`` of the same payload."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Pong:
    """The answer to a ``Ping``. It is sent like a frame."""

    payload: bytes


class Socket(Protocol):
    """One message-oriented connection. Only one task at a time calls ``receive``, and
    one ``send``.
    """

    async def receive(self) -> Frame | Control | Ping:
        """Receive the next message. Returns ``CLOSED`` from then on once the connection
        is gone; never raises. Cancelling loses no message.
        """

    def offer(self, take: Callable[[Frame], bool]) -> None:
        """Offer frames that are not empty to ``take`` as they arrive, while no earlier
        message waits for ``receive``.

        ``receive`` does not return the frames that ``take`` accepts (True). ``take``
        must not raise or block. A connection may ignore this.
        """

    def pause_reading(self) -> None:
        """Read nothing from the connection until ``resume_reading``; what was read
        already can still be received. A connection may ignore this.
        """

    def resume_reading(self) -> None:
        """Read from the connection again. May be called without ``pause_reading``
        before, and on a connection that is gone.
        """

    async def send(self, frame: Frame | Pong) -> None:
        """Hand a frame over; returns when the connection can take another.

        Raises ``ConnectionError`` when the connection is gone. If cancelled while
        waiting, the frame may have been sent.
        """

    async def drained(self) -> None:
        """Wait until the connection can take another frame. Raises ``ConnectionError``
        when it is gone.
        """

    @property
    def has_room(self) -> bool:
        """Whether ``send`` would return without waiting."""

    def send_now(self, frame: Frame | Pong) -> None:
        """Hand a frame over without waiting; call it only while ``has_room``. Raises
        ``ConnectionError`` when the connection is gone.
        """

    async def ping(self) -> None:
        """Send a ping. Raises ``ConnectionError`` when the connection is gone."""

    async def close(self, code: int, reason: str) -> None:
        """Perform the closing handshake. The caller bounds how long it takes."""

    def abort(self) -> None:
        """Drop the connection immediately."""
