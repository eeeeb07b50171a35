"""A plain TCP connection as the ``Socket`` that conversations are held on: frames cut
out of its bytes.
"""

import asyncio
from collections import deque
from collections.abc import Callable

from voicechat.dialects.base import Frame, Framing
from voicechat.errors import RemoteProtocolError
from voicechat.runtime.socket import Control, Ping, Pong
from voicechat.session.limits import SessionLimits

READ_BYTES = 16 * 1024
"""Bytes that are read at once: half a second of 16 kHz samples."""
WRITE_AHEAD_BYTES = 32 * 1024
"""What may lie in the process's own write buffer before a send waits: nothing there can
be taken back.
"""


class TcpSocket:
    """See ``Socket``. What cannot be a frame of the protocol ends the connection."""

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
        writer.transport.set_write_buffer_limits(high=WRITE_AHEAD_BYTES)
        peer = writer.get_extra_info("peername")
        self.peer = str(peer[0]) if peer else ""
        """The address of the other side."""

    async def receive(self) -> Frame | Control | Ping:
        """See ``Socket.receive``."""
        while not self._frames:
            if self._closed:
                return Control.CLOSED
            try:
                data = await self._reader.read(READ_BYTES)
                self._frames += self._framing.push(data)
            except (ConnectionError, RemoteProtocolError):
                data = b""
            self._closed = not data
        if len(self._frames[0]) > self._limit_bytes:
            self._frames.clear()
            self._closed = True
            return Control.CLOSED
        return self._frames.popleft()

    def offer(self, take: Callable[[bytes], bool]) -> None:
        """See ``Socket.offer``: nothing is offered."""

    async def send(self, frame: Frame | Pong) -> None:
        """See ``Socket.send``."""
        self.send_now(frame)
        await self.drained()

    async def drained(self) -> None:
        """See ``Socket.drained``."""
        await self._writer.drain()

    @property
    def has_room(self) -> bool:
        """See ``Socket.has_room``."""
        return self._writer.transport.get_write_buffer_size() <= WRITE_AHEAD_BYTES

    def send_now(self, frame: Frame | Pong) -> None:
        """See ``Socket.send_now``."""
        if self._writer.transport.is_closing():
            raise ConnectionResetError("the connection is closing")
        if not isinstance(frame, Pong):
            self._writer.write(self._framing.write(frame))

    async def ping(self) -> None:
        """See ``Socket.ping``: TCP has none."""

    async def close(self, code: int, reason: str) -> None:
        """See ``Socket.close``: TCP has neither codes nor reasons."""
        self._writer.close()
        await self._writer.wait_closed()

    def abort(self) -> None:
        """See ``Socket.abort``."""
        self._closed = True
        self._writer.transport.abort()
