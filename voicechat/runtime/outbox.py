"""The send queue of a session: ordered, bounded, and cleared of a reply as soon as that
reply is stopped.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from voicechat.dialects.base import Frame
from voicechat.runtime.socket import Pong, Socket
from voicechat.session.events import AudioSent, Disconnected, Event, WriteStalled
from voicechat.session.limits import SessionLimits

_OVERHEAD_BYTES = 64
"""Approximate memory of a frame besides its payload. The bound on the backlog need not
be exact.
"""


@dataclass(slots=True)
class Queued:
    """Frames that are sent together. Not frozen, for the reason of ``AudioChunk``."""

    frames: Sequence[Frame]
    size_bytes: int
    reply: int
    """The reply that they belong to; 0 if none."""
    audio_until_ms: int | None
    """The media position at the end of the reply's audio in them; None without audio.
    """


class Outbox:
    """A queue of frames with backpressure.

    While the connection has room, frames are written when the event loop comes round.
    The writer task waits only while the connection has no room.
    """

    def __init__(
        self,
        socket: Socket,
        limits: SessionLimits,
        post: Callable[[Event], None],
    ) -> None:
        """``post`` is called when audio was handed to the socket, when the client does
        not read, and when the connection is lost.
        """
        self._socket = socket
        self._limits = limits
        self._post = post
        self._queue: deque[Queued] = deque()
        self._backlog_bytes = 0
        self._loop = asyncio.get_running_loop()
        self._leaving = False
        """Whether a call of ``_leave`` is scheduled."""
        self._wake = asyncio.Event()
        """Set when the writer task has something to do."""
        self._lighter = asyncio.Event()
        """Set when the backlog shrinks; `room` waits for it."""
        self._stalled = False
        self._writing = False
        """Whether the writer task is writing; no other code may write then."""
        self._over = False
        self._fault: Exception | None = None
        self._closing: tuple[int, str] | None = None
        self._pong: Pong | None = None
        """The pending answer to the client's latest ping."""

    def answer_ping(self, payload: bytes) -> None:
        """Answer a ping as soon as there is room.

        Only the latest of several unanswered pings is answered (RFC 6455, 5.5.3), so
        pings cannot fill the memory. A client that does not read its pongs counts as
        one that does not read.
        """
        self._pong = Pong(payload)
        self._write_at_once()

    def put_frames(
        self,
        frames: Sequence[Frame],
        *,
        reply: int = 0,
        audio_until_ms: int | None = None,
        urgent: bool = False,
    ) -> None:
        """Queue frames. If the backlog exceeds ``backlog_bytes``, ``WriteStalled`` is
        posted.

        ``reply``: the reply that they belong to, so that ``flush_reply`` can remove
        them. ``audio_until_ms``: the media position at the end of the audio in them;
        ``AudioSent`` is posted once they are written. ``urgent``: the delay is audible,
        as with the answer to an interruption.
        """
        size_bytes = sum(map(len, frames)) + _OVERHEAD_BYTES
        self._queue.append(Queued(frames, size_bytes, reply, audio_until_ms))
        self._backlog_bytes += size_bytes
        if self._backlog_bytes > self._limits.backlog_bytes and not self._stalled:
            self._stall("the client does not read: too much is waiting for it")
        if urgent or audio_until_ms is not None:
            # Write now: with 100 sessions the end of this loop iteration is several ms
            # away, and the delay is audible. What follows from sending audio is then
            # handled with the same event, which saves a callback for each piece.
            self._write_at_once()
        if self._queue and not self._leaving:
            self._leaving = True
            self._loop.call_soon(self._begin_leaving)

    def flush_reply(self, reply: int) -> None:
        """Remove the queued frames of ``reply``. Frames of no reply stay in their
        order.
        """
        self._queue = deque(queued for queued in self._queue if queued.reply != reply)
        self._lighten(self._backlog_bytes - sum(queued.size_bytes for queued in self._queue))

    def close(self, code: int, reason: str) -> None:
        """Close the connection after the queue has been sent; if the client does not
        read, within ``close_ms``.
        """
        self._closing = (code, reason)
        self._wake.set()

    @property
    def closing(self) -> bool:
        """Whether ``close`` has been called."""
        return self._closing is not None

    async def room(self) -> None:
        """Wait until the backlog is below ``ahead_bytes``: more audio before that would
        only queue.
        """
        while self._backlog_bytes >= self._limits.ahead_bytes:
            self._lighter.clear()
            await self._lighter.wait()

    async def run(self) -> None:
        """Write until ``close`` is called or the connection is lost. Cancelling leaves
        the queue unsent.
        """
        try:
            while self._queue or self._closing is None:
                await self._wake.wait()
                self._wake.clear()
                if self._fault is not None:
                    raise self._fault
                await self._catch_up()
            await self._say_goodbye(*self._closing)
        except ConnectionError:
            self._lose()
        finally:
            self._over = True

    def _begin_leaving(self) -> None:
        """Write text one iteration of the loop later.

        Work that the same event started goes first: the user waits for the request to a
        service, and writing takes 0.1 ms.
        """
        self._loop.call_soon(self._leave)

    def _leave(self) -> None:
        self._leaving = False
        try:
            self._write_at_once()
        except Exception as error:  # noqa: BLE001 - a bug of ours: the failure of the writer's task ends the session
            self._fault = error
            self._wake.set()

    def _write_at_once(self) -> None:
        """Write as much of the queue as the connection has room for; the writer task
        sends the rest.
        """
        try:
            if self._pong is not None and self._may_write:
                pong, self._pong = self._pong, None
                self._socket.send_now(pong)
            while self._queue and self._may_write:
                queued = self._take()
                for frame in queued.frames:
                    self._socket.send_now(frame)
                self._note_written(queued)
        except ConnectionError:
            self._lose()
        if not self._socket.has_room:
            self._wake.set()

    @property
    def _may_write(self) -> bool:
        return self._socket.has_room and not (self._writing or self._over)

    def _take(self) -> Queued:
        queued = self._queue.popleft()
        self._lighten(queued.size_bytes)
        return queued

    def _note_written(self, queued: Queued) -> None:
        if queued.audio_until_ms is not None:
            self._post(AudioSent(queued.reply, queued.audio_until_ms))

    def _lose(self) -> None:
        self._post(Disconnected())
        self._socket.abort()

    async def _catch_up(self) -> None:
        """Write the queue, one frame at a time as the connection gets room. What is
        still queued can be flushed.
        """
        self._writing = True
        await self._wait_for(self._socket.drained())
        while self._queue or self._pong is not None:
            if self._pong is not None:
                pong, self._pong = self._pong, None
                await self._wait_for(self._socket.send(pong))
            else:
                await self._write(self._take())
        self._writing = False

    async def _write(self, queued: Queued) -> None:
        if await self._wait_for(self._send(queued.frames)):
            self._note_written(queued)

    async def _send(self, frames: Sequence[Frame]) -> None:
        for frame in frames:
            await self._socket.send(frame)

    async def _wait_for(self, writing: Awaitable[None]) -> bool:
        """Return whether the client read in time. The first timeout posts
        ``WriteStalled``; the second one raises ``ConnectionAbortedError``.
        """
        limit_ms = self._limits.close_ms if self._stalled else self._limits.write_ms
        try:
            async with asyncio.timeout(limit_ms / 1000):
                await writing
        except TimeoutError:
            if self._stalled:
                raise ConnectionAbortedError("the client does not read") from None
            self._stall(f"the client did not read for {limit_ms // 1000} s")
            return False
        return True

    def _stall(self, reason: str) -> None:
        """Drop the queue and post ``WriteStalled``. Only frames that are queued after
        it are still attempted.
        """
        self._stalled = True
        self._queue.clear()
        self._lighten(self._backlog_bytes)
        self._post(WriteStalled(reason))

    async def _say_goodbye(self, code: int, reason: str) -> None:
        try:
            async with asyncio.timeout(self._limits.close_ms / 1000):
                await self._socket.close(code, reason)
        except (TimeoutError, ConnectionError):
            self._socket.abort()

    def _lighten(self, by_bytes: int) -> None:
        self._backlog_bytes -= by_bytes
        self._lighter.set()
