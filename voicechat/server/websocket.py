"""aiohttp's WebSocket as the ``Socket`` of a conversation."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

from aiohttp import WSMsgType, web

from voicechat.dialects.base import Frame
from voicechat.runtime.socket import Control, Ping, Pong, Socket
from voicechat.server.frames import FramedWebSocket
from voicechat.session.limits import SessionLimits

WRITE_AHEAD_BYTES = 32 * 1024
"""A send waits while the process' write buffer holds more, because buffered data cannot
be removed.
"""
_NEVER_DRAIN_BYTES = 2**62
"""Disables aiohttp's own drain, which cannot be cancelled: its future is shared with
the closing handshake, which would be cancelled too. ``drained`` waits instead.
"""
_LOOK_AGAIN_S = 0.005
"""How often a full buffer is polled."""
_MAX_REASON_BYTES = 123
"""RFC 6455, 5.5: a control frame holds 125 bytes, 2 of them the code."""


class UpgradedSocket(Socket, Protocol):
    """A ``Socket`` that begins with a request to upgrade to WebSocket."""

    async def open(self, request: web.Request) -> web.StreamResponse:
        """Answer the upgrade. Raises aiohttp's ``HTTPException`` if the request is not
        one.
        """

    async def linger(self) -> None:
        """Give the client time to read a sent close frame."""


class AiohttpSocket:
    """A ``Socket`` over aiohttp's WebSocket."""

    def __init__(self, limits: SessionLimits, protocols: Sequence[str] = ()) -> None:
        """``protocols``: the supported subprotocols, the preferred one first."""
        self._ws = FramedWebSocket(
            limit_bytes=limits.frame_bytes,
            close_s=limits.close_ms / 1000,
            write_ahead_bytes=_NEVER_DRAIN_BYTES,
            protocols=protocols,
        )
        self._transport: asyncio.Transport | None = None

    async def open(self, request: web.Request) -> web.WebSocketResponse:
        """Answer the upgrade. Raises aiohttp's ``HTTPException`` if the request is not
        one.
        """
        self._transport = request.transport
        await self._ws.prepare(request)
        return self._ws

    async def receive(self) -> Frame | Control | Ping:
        """Receive a frame; see ``Socket.receive``.

        A message over the limit is answered with close code 1009 and read as
        ``CLOSED``.
        """
        try:
            message = await self._ws.receive()
        except (
            RuntimeError,
            ConnectionError,
        ):  # raised by aiohttp when a closed socket is read again
            return Control.CLOSED
        match message.type:
            case WSMsgType.BINARY | WSMsgType.TEXT:
                frame: Frame = message.data
                return frame
            case WSMsgType.PING:
                return Ping(message.data)
            case WSMsgType.PONG:
                return Control.PONG
            case _:
                return Control.CLOSED

    def offer(self, take: Callable[[Frame], bool]) -> None:
        """Offer each message to ``take`` as it arrives; see ``Socket.offer``."""
        self._ws.queue.take_audio = take

    def pause_reading(self) -> None:
        """Leave the connection unread; see ``Socket.pause_reading``."""
        self._ws.hold_reading(True)

    def resume_reading(self) -> None:
        """Read the connection again."""
        self._ws.hold_reading(False)

    async def send(self, frame: Frame | Pong) -> None:
        """Send a frame, and wait while the buffer is full."""
        self.send_now(frame)
        await self.drained()

    async def drained(self) -> None:
        """Wait until the buffer has room."""
        while not self.has_room:
            transport = self._transport
            if transport is not None and transport.is_closing():
                raise ConnectionResetError("the connection is closing")
            await asyncio.sleep(_LOOK_AGAIN_S)

    @property
    def has_room(self) -> bool:
        """Whether the buffer has room."""
        transport = self._transport
        return transport is None or transport.get_write_buffer_size() <= WRITE_AHEAD_BYTES

    def send_now(self, frame: Frame | Pong) -> None:
        """Write a frame without waiting; see ``Socket.send_now``."""
        if isinstance(frame, str):
            sending = self._ws.send_str(frame)
        elif isinstance(frame, bytes):
            sending = self._ws.send_bytes(frame)
        else:
            sending = self._ws.pong(frame.payload)
        # The coroutine never suspends: compression and draining, for which it would,
        # are both disabled.
        try:
            sending.send(None)
        except StopIteration:
            return
        sending.close()

    async def ping(self) -> None:
        """Send a ping."""
        await self._ws.ping()

    async def close(self, code: int, reason: str) -> None:
        """Send a close frame with a code and a reason, which is cut to the frame's
        limit.
        """
        cut = reason.encode()[:_MAX_REASON_BYTES].decode(errors="ignore")
        await self._ws.close(code=code, message=cut.encode(), drain=False)

    def abort(self) -> None:
        """Close the connection at once, dropping unsent data. After ``close`` it is
        left to ``linger``.
        """
        self._ws.release_references()
        if self._transport is not None and not self._ws.closed:
            self._transport.abort()
        self._transport = None

    async def linger(self) -> None:
        """Give the client time to read a sent close frame: wait for its answer, for
        ``close_ms`` at most, and close the connection.
        """
        await self._ws.linger()
