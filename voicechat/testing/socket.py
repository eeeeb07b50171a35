"""An in-memory connection whose client is the test."""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from voicechat.dialects.base import Frame
from voicechat.runtime.socket import Control, Ping, Pong


@dataclass(slots=True)
class Sent:
    """One frame that the server sent, with its time (loop time)."""

    frame: Frame
    at_s: float


@dataclass(eq=False, slots=True)
class MemorySocket:
    """A ``Socket`` in memory. ``stuck`` makes every send wait, as if the client did not
    read.
    """

    sent: list[Sent] = field(default_factory=list)
    closed_with: tuple[int, str] | None = None
    aborted: bool = False
    pings: int = 0
    pongs: list[bytes] = field(default_factory=list)
    """Payloads of the pings that were answered."""
    answers_pings: bool = True
    reading: bool = True
    """False while the server leaves the connection unread; frames arrive all the same.
    """
    stuck: asyncio.Event | None = None
    """While set to an unset event, sends wait for it."""
    _up: deque[Frame | Control | Ping] = field(default_factory=deque)
    _arrived: asyncio.Event = field(default_factory=asyncio.Event)

    _take: Callable[[Frame], bool] | None = None

    def send_from_client(self, frame: Frame | Ping) -> None:
        """Deliver a frame or a ping of the client."""
        if (
            self._take is not None
            and not self._up
            and frame
            and not isinstance(frame, Ping)
            and self._take(frame)
        ):
            return
        self._up.append(frame)
        self._arrived.set()

    def disconnect(self) -> None:
        """Simulate the loss of the connection."""
        self._up.append(Control.CLOSED)
        self._arrived.set()

    async def receive(self) -> Frame | Control | Ping:
        """Wait for the next frame, ping or control event."""
        while not self._up:
            self._arrived.clear()
            await self._arrived.wait()
        if self._up[0] is Control.CLOSED:
            return Control.CLOSED
        return self._up.popleft()

    def offer(self, take: Callable[[Frame], bool]) -> None:
        """Pass each frame that need not wait to ``take`` first."""
        self._take = take

    def pause_reading(self) -> None:
        """Note it: the test decides what arrives."""
        self.reading = False

    def resume_reading(self) -> None:
        """Note it; see ``pause_reading``."""
        self.reading = True

    async def send(self, frame: Frame | Pong) -> None:
        """Send a frame. Waits while the client does not read."""
        self._check()
        await self.drained()
        self.send_now(frame)

    async def drained(self) -> None:
        """Wait while the client does not read."""
        if self.stuck is not None:
            await self.stuck.wait()

    @property
    def has_room(self) -> bool:
        """Whether `send` would not wait."""
        return self.stuck is None or self.stuck.is_set()

    def send_now(self, frame: Frame | Pong) -> None:
        """Send a frame without waiting."""
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
        """Count a ping, and answer it if ``answers_pings``."""
        self.pings += 1
        if self.answers_pings:
            self._up.append(Control.PONG)
            self._arrived.set()

    async def close(self, code: int, reason: str) -> None:
        """Close the connection and record code and reason."""
        if self.stuck is not None:
            await self.stuck.wait()
        self.closed_with = (code, reason)
        self.disconnect()

    def abort(self) -> None:
        """Drop the connection. Waiting sends fail."""
        self.aborted = True
        if self.stuck is not None:
            self.stuck.set()
        self.disconnect()
