"""A connection that may be lost and resumed. The session behind it sees one socket."""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from voicechat.dialects.base import Frame
from voicechat.runtime.socket import Control, Ping, Pong, Socket
from voicechat.session.limits import SessionLimits

RESULTS_KEPT = 1_000
"""Results kept for a client that has not received them: far more than any recogniser
makes within ``resume_ms``.
"""


@dataclass(eq=False, slots=True)
class _Connection:
    socket: Socket
    over: asyncio.Event = field(default_factory=asyncio.Event)


class ResumableSocket:
    """A ``Socket`` over successive connections. It numbers sent frames from 1, and
    repeats those that a returning client did not receive.
    """

    def __init__(self, limits: SessionLimits, greet: Callable[[int], Frame]) -> None:
        """``greet`` makes the first frame of a connection from the number of audio
        bytes received so far.

        A client has ``resume_ms`` to return, and ``write_ms`` to read its first frames.
        """
        self._limits = limits
        self._greet = greet
        self._connection: _Connection | None = None
        """The connection that serves the session now."""
        self._arriving: _Connection | None = None
        """A new connection that is receiving the results it missed."""
        self._attached = asyncio.Event()
        self._sending = asyncio.Lock()
        self._results: deque[tuple[int, Frame]] = deque(maxlen=RESULTS_KEPT)
        self._made = 0
        self._handed_over = 0
        self._received_bytes = 0
        self._ended = False

    async def attach(self, socket: Socket, received: int | None) -> None:
        """Serve the session on ``socket`` until it is lost, superseded, or the session
        ends.

        A newer connection supersedes one that serves and one that is still arriving, so
        a session never has more than one. A connection that does not read its first
        frames within ``write_ms`` is dropped. ``received`` is the number of results
        that the client reports to have; None means all that were handed to a
        connection. Cancelling counts as losing the connection.
        """
        connection = _Connection(socket)
        for older in (self._connection, self._arriving):
            self._leave(older)
        self._arriving = connection
        try:
            async with asyncio.timeout(self._limits.write_ms / 1000):
                await self._greet_and_repeat(connection, received)
            await connection.over.wait()
        except (ConnectionError, TimeoutError):
            return
        finally:
            self._leave(connection)

    async def _greet_and_repeat(self, connection: _Connection, received: int | None) -> None:
        async with self._sending:
            if connection.over.is_set() or self._ended:
                return
            await connection.socket.send(self._greet(self._received_bytes))
            known = self._handed_over if received is None else received
            for number, frame in list(self._results):
                if number > known:
                    await connection.socket.send(frame)
                    self._handed_over = max(self._handed_over, number)
            if not connection.over.is_set():
                self._arriving, self._connection = None, connection
                self._attached.set()

    async def receive(self) -> Frame | Control | Ping:
        """Receive the next frame. Returns ``CLOSED`` if no connection comes back within
        ``resume_ms``.
        """
        while not self._ended:
            connection = self._connection
            if connection is None:
                try:
                    async with asyncio.timeout(self._limits.resume_ms / 1000):
                        await self._attached.wait()
                except TimeoutError:
                    self._end()
                continue
            frame = await connection.socket.receive()
            if connection is not self._connection:
                continue  # superseded meanwhile: the client sends it again on the new connection
            if frame is Control.CLOSED:
                self._leave(connection)
                continue
            if isinstance(frame, bytes):
                self._received_bytes += len(frame)
            return frame
        return Control.CLOSED

    def offer(self, take: Callable[[Frame], bool]) -> None:
        """Ignore the request: ``receive`` must see every frame to count it."""

    def pause_reading(self) -> None:
        """Do nothing: every frame is needed by the recogniser."""

    def resume_reading(self) -> None:
        """Do nothing; see ``pause_reading``."""

    async def send(self, frame: Frame | Pong) -> None:
        """Send a frame. Without a connection the frame is kept for the next one."""
        async with self._sending:
            if not isinstance(frame, Pong):
                self._made += 1
                self._results.append((self._made, frame))
            connection = self._connection
            if connection is None:
                return
            try:
                await connection.socket.send(frame)
                if not isinstance(frame, Pong):
                    self._handed_over = self._made
            except ConnectionError:
                self._leave(connection)

    async def drained(self) -> None:
        """Return at once: ``send`` waits by itself."""

    @property
    def has_room(self) -> bool:
        """Always false, so that every result goes through ``send``, which numbers them
        in order.
        """
        return False

    def send_now(self, frame: Frame | Pong) -> None:
        """Always raise ``ConnectionError``; use ``send``, which numbers the frames."""
        raise ConnectionError("a resumable connection sends in order")

    async def ping(self) -> None:
        """Send a ping on the current connection, if there is one."""
        if self._connection is not None:
            await self._connection.socket.ping()

    async def close(self, code: int, reason: str) -> None:
        """Close the current connection, if there is one, and end the session."""
        if self._connection is not None:
            await self._connection.socket.close(code, reason)
        self._end()

    def abort(self) -> None:
        """End the session, not only the connection."""
        self._end()

    def _leave(self, connection: _Connection | None) -> None:
        """Drop a connection. A newer one is not affected."""
        if connection is None or connection.over.is_set():
            return
        connection.over.set()
        connection.socket.abort()
        if connection is self._arriving:
            self._arriving = None
        if connection is self._connection:
            self._connection = None
            self._attached.clear()

    def _end(self) -> None:
        self._ended = True
        self._leave(self._connection)
        self._leave(self._arriving)
        self._attached.set()
