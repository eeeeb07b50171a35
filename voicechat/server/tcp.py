"""A plain TCP connection as the ``Socket`` of a conversation: cuts its bytes into
frames.
"""

import asyncio
from collections import deque
from collections.abc import Callable

from voicechat.dialects.base import Frame, Framing
from voicechat.errors import RemoteProtocolError
from voicechat.runtime.socket import Control, Ping, Pong
from voicechat.server.frames import DROPPED_BYTES
from voicechat.session.limits import SessionLimits

READ_BYTES = 16 * 1024
"""Most bytes read at once: half a second of 16 kHz samples."""
WRITE_AHEAD_BYTES = 32 * 1024
"""A send waits while the process' write buffer holds more, because buffered data cannot
be removed.
"""


class TcpSocket:
    """A ``Socket`` over TCP. Bytes that cannot be a frame of the protocol end the
    connection.
    """

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        framing: Framing,
        limits: SessionLimits,
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._framing = framing
        self._limit_bytes = limits.frame_bytes
        self._frames: deque[Frame] = deque()
        self._closed = False
        self._reading = asyncio.Lock()
        """Held while ``receive`` or ``close`` reads: a stream has one reader at a time.
        """
        self._may_read = asyncio.Event()
        self._may_read.set()
        """Cleared while reading is paused: the reader then keeps up to twice its limit
        and leaves the rest in the system's buffers.
        """
        writer.transport.set_write_buffer_limits(high=WRITE_AHEAD_BYTES)
        peer = writer.get_extra_info("peername")
        self.peer = str(peer[0]) if peer else ""
        """The address of the client."""

    async def receive(self) -> Frame | Control | Ping:
        """Receive a frame; see ``Socket.receive``."""
        while not self._frames:
            if self._closed:
                return Control.CLOSED
            await self._may_read.wait()
            try:
                async with self._reading:
                    data = await self._reader.read(READ_BYTES)
                if self._closed:
                    continue  # close() drops what arrives
                self._frames += self._framing.push(data)
            except (ConnectionError, RemoteProtocolError):
                data = b""
            self._closed = not data
        if len(self._frames[0]) > self._limit_bytes:
            self._frames.clear()
            self._closed = True
            return Control.CLOSED
        return self._frames.popleft()

    def offer(self, take: Callable[[Frame], bool]) -> None:
        """Do nothing: frames of this socket are not offered."""

    def pause_reading(self) -> None:
        """Leave the connection unread; see ``Socket.pause_reading``."""
        self._may_read.clear()

    def resume_reading(self) -> None:
        """Read the connection again."""
        self._may_read.set()

    async def send(self, frame: Frame | Pong) -> None:
        """Send a frame, and wait while the buffer is full."""
        self.send_now(frame)
        await self.drained()

    async def drained(self) -> None:
        """Wait until the buffer has room."""
        await self._writer.drain()

    @property
    def has_room(self) -> bool:
        """Whether the buffer has room."""
        return self._writer.transport.get_write_buffer_size() <= WRITE_AHEAD_BYTES

    def send_now(self, frame: Frame | Pong) -> None:
        """Write a frame without waiting; see ``Socket.send_now``."""
        if self._writer.transport.is_closing():
            raise ConnectionResetError("the connection is closing")
        if not isinstance(frame, Pong):
            self._writer.write(self._framing.write(frame))

    async def ping(self) -> None:
        """Do nothing: TCP has no ping."""

    async def close(self, code: int, reason: str) -> None:
        """Close the connection; TCP has neither codes nor reasons.

        The server stops sending, and drops what arrives until the client closes the
        connection, at most ``DROPPED_BYTES``. If the server closed at once, the system
        would reset the connection of a client that is still sending, and the client
        would lose the last frames. Cancelling leaves the connection open for ``abort``.
        """
        self._closed = True
        dropped_bytes = 0
        if not self._writer.transport.is_closing():
            self._writer.write_eof()
            while dropped_bytes < DROPPED_BYTES:
                async with self._reading:
                    data = await self._reader.read(READ_BYTES)
                if not data:
                    break
                dropped_bytes += len(data)
        self._writer.close()
        await self._writer.wait_closed()

    def abort(self) -> None:
        """Close the connection at once, dropping unsent data."""
        self._closed = True
        self._writer.transport.abort()
