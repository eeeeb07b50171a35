"""What leaves a session: in order, bounded, and emptied of a reply the moment that reply is stopped."""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from voicechat.runtime.socket import Socket
from voicechat.session.effects import (
    ClientMessage,
    ReplyAudio,
    ReplyAudioFinished,
    ReplyText,
    ReplyTextFinished,
    ReplyToolCall,
)
from voicechat.session.events import AudioSent, Disconnected, Event, WriteStalled
from voicechat.session.limits import SessionLimits
from voicechat.wire.dialect import Frame

_OF_REPLY = (ReplyText, ReplyToolCall, ReplyTextFinished, ReplyAudio, ReplyAudioFinished)
_OVERHEAD_BYTES = 200
"""About what a message weighs besides its payload; the bound on the backlog need not be exact."""


@dataclass(slots=True)
class _Queued:
    message: ClientMessage
    reply: int | None
    size_bytes: int


class Outbox:
    """A queue with one writer. Messages are encoded when they leave, so a stopped reply costs no encoding."""

    def __init__(
        self,
        socket: Socket,
        encode: Callable[[ClientMessage], list[Frame]],
        limits: SessionLimits,
        post: Callable[[Event], None],
    ) -> None:
        """``post`` is told of audio handed to the socket, of a client that does not read, and of a lost connection."""
        self._socket = socket
        self._encode = encode
        self._limits = limits
        self._post = post
        self._queue: deque[_Queued] = deque()
        self._backlog_bytes = 0
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._stalled = False
        self._closing: tuple[int, str] | None = None

    def put(self, message: ClientMessage) -> None:
        """Queue a message. Past the backlog's bound the session is told that its client does not read."""
        payload_bytes = 0
        if isinstance(message, ReplyAudio):
            payload_bytes = len(message.payload) * 4 // 3
        elif isinstance(message, ReplyText):
            payload_bytes = len(message.text) * 3
        elif isinstance(message, ReplyToolCall):
            payload_bytes = len(message.call.arguments) * 3
        reply = message.reply if isinstance(message, _OF_REPLY) else None
        self._queue.append(_Queued(message, reply, payload_bytes + _OVERHEAD_BYTES))
        self._weigh(payload_bytes + _OVERHEAD_BYTES)
        self._wake.set()
        if self._backlog_bytes > self._limits.backlog_bytes and not self._stalled:
            self._stall("the client does not read: too much is waiting for it")

    def flush(self, reply: int) -> None:
        """Forget what is queued of ``reply``. Messages of no reply stay, in their order."""
        kept = deque(queued for queued in self._queue if queued.reply != reply)
        self._weigh(sum(queued.size_bytes for queued in kept) - self._backlog_bytes)
        self._queue = kept

    def close(self, code: int, reason: str) -> None:
        """Close the connection once the queue has left; of a client that does not read, within ``close_ms``."""
        self._closing = (code, reason)
        self._wake.set()

    @property
    def closing(self) -> bool:
        """Whether ``close`` has been called."""
        return self._closing is not None

    async def room(self) -> None:
        """Wait until little enough audio is queued that making more is sensible."""
        await self._room.wait()

    async def run(self) -> None:
        """Write until ``close`` or until the connection is lost. Cancelling leaves the queue unsent."""
        try:
            while await self._next_ready():
                queued = self._queue.popleft()
                self._weigh(-queued.size_bytes)
                await self._write(queued.message)
        except ConnectionError:
            self._post(Disconnected())
            self._socket.abort()
            return
        assert self._closing is not None
        await self._say_goodbye(*self._closing)

    async def _next_ready(self) -> bool:
        while not self._queue:
            if self._closing is not None:
                return False
            self._wake.clear()
            await self._wake.wait()
        return True

    async def _write(self, message: ClientMessage) -> None:
        limit_ms = self._limits.close_ms if self._stalled else self._limits.write_ms
        try:
            async with asyncio.timeout(limit_ms / 1000):
                for frame in self._encode(message):
                    await self._socket.send(frame)
        except TimeoutError:
            if self._stalled:
                raise ConnectionAbortedError("the client does not read") from None
            self._stall(f"the client did not read for {limit_ms // 1000} s")
            return
        if isinstance(message, ReplyAudio):
            self._post(AudioSent(message.reply, message.end_ms))

    def _stall(self, reason: str) -> None:
        """Give up on what is queued; what the session says about it is the last that is attempted."""
        self._stalled = True
        self._queue.clear()
        self._weigh(-self._backlog_bytes)
        self._post(WriteStalled(reason))

    async def _say_goodbye(self, code: int, reason: str) -> None:
        try:
            async with asyncio.timeout(self._limits.close_ms / 1000):
                await self._socket.close(code, reason)
        except (TimeoutError, ConnectionError):
            self._socket.abort()

    def _weigh(self, change_bytes: int) -> None:
        self._backlog_bytes += change_bytes
        if self._backlog_bytes < self._limits.ahead_bytes:
            self._room.set()
        else:
            self._room.clear()
