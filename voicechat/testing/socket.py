"""A connection in memory: the test is the client."""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from voicechat.dialects.base import Frame
from voicechat.runtime.socket import Control, Ping, Pong


@dataclass(slots=True)
class Sent:
    """One frame that the server handed to the connection, and when (loop time)."""

    frame: Frame
    at_s: float


@dataclass(slots=True)
class MemorySocket:
    """See ``Socket``. ``stuck`` makes every send wait, as for a client that does not
    read.
    """

    sent: list[Sent] = field(default_factory=list)
    closed_with: tuple[int, str] | None = None
    aborted: bool = False
    pings: int = 0
    pongs: list[bytes] = field(default_factory=list)
    """Payloads of the pings that were answered."""
    answers_pings: bool = True
    stuck: asyncio.Event | None = None
    """While set to an unset event, sends wait for it."""
    _up: deque[Frame | Control | Ping] = field(default_factory=deque)
    _arrived: asyncio.Event = field(default_factory=asyncio.Event)

    _take: Callable[[bytes], bool] | None = None

    def send_from_client(self, frame: Frame | Ping) -> None:
        """The client sends a frame, or a ping."""
        if (
            self._take is not None
            and not self._up
            and frame
            and isinstance(frame, bytes)
            and self._take(frame)
        ):
            return
        self._up.append(frame)
        self._arrived.set()

    def disconnect(self) -> None:
        """The connection is gone."""
        self._up.append(Control.CLOSED)
        self._arrived.set()

    async def receive(self) -> Frame | Control | Ping:
        """See ``Socket.receive``."""
        while not self._up:
            self._arrived.clear()
            await self._arrived.wait()
        if self._up[0] is Control.CLOSED:
            return Control.CLOSED
        return self._up.popleft()

    def offer(self, take: Callable[[bytes], bool]) -> None:
        """See ``Socket.offer``."""
        self._take = take

    async def send(self, frame: Frame | Pong) -> None:
        """See ``Socket.send``."""
        self._check()
        await self.drained()
        self.send_now(frame)

    async def drained(self) -> None:
        """See ``Socket.drained``."""
        if self.stuck is not None:
            await self.stuck.wait()

    @property
    def has_room(self) -> bool:
        """See ``Socket.has_room``."""
        return self.stuck is None or self.stuck.is_set()

    def send_now(self, frame: Frame | Pong) -> None:
        """See ``Socket.send_now``."""
        self._check()
        if isinstance(frame, Pong):
            self.pongs.append(frame.payload)
            return
        self.sent.append(Sent(frame, asyncio.get_running_loop().time()))

    def _check(self) -> None:
        if (
            self.closed_with is not None
            or self.aborted
            or (self._up and self._up[-1] is Control.CLOSED)
        ):
            raise ConnectionResetError("gone")

    async def ping(self) -> None:
        """See ``Socket.ping``."""
        self.pings += 1
        if self.answers_pings:
            self._up.append(Control.PONG)
            self._arrived.set()

    async def close(self, code: int, reason: str) -> None:
        """See ``Socket.close``."""
        if self.stuck is not None:
            await self.stuck.wait()
        self.closed_with = (code, reason)
        self.disconnect()

    def abort(self) -> None:
        """See ``Socket.abort``. Sends that wait fail."""
        self.aborted = True
        if self.stuck is not None:
            self.stuck.set()
        self.disconnect()
