"""What leaves a session: in order, bounded, and emptied of a reply the moment that
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
"""About what a frame weighs besides its payload; the bound on the backlog need not be
exact.
"""


@dataclass(frozen=True, slots=True)
class Queued:
    """Frames that leave together."""

    frames: Sequence[Frame]
    size_bytes: int
    reply: int
    """The reply that they tell of; 0: none."""
    audio_until_ms: int | None
    """The media position after the reply's audio in them; None: there is none."""


class Outbox:
    """A queue of frames.

    While the connection has room, they leave when the event loop comes round; a task
    waits only when it has none.
    """

    def __init__(
        self,
        socket: Socket,
        limits: SessionLimits,
        post: Callable[[Event], None],
    ) -> None:
        """``post`` is told of audio handed to the socket, of a client that does not
        read, and of a lost connection.
        """
        self._socket = socket
        self._limits = limits
        self._post = post
        self._queue: deque[Queued] = deque()
        self._backlog_bytes = 0
        self._loop = asyncio.get_running_loop()
        self._leaving = False
        """``_leave`` is due."""
        self._wake = asyncio.Event()
        """The writer has something to do."""
        self._lighter = asyncio.Event()
        """Something has left since `room` looked."""
        self._sounding = 0
        """The reply whose audio came last."""
        self._stalled = False
        self._writing = False
        """The writer is at work: nobody else may write."""
        self._over = False
        self._fault: Exception | None = None
        self._closing: tuple[int, str] | None = None
        self._pong: Pong | None = None
        """What answers the client's last ping."""

    def answer_ping(self, payload: bytes) -> None:
        """Answer a ping as soon as there is room.

        Only the latest of several unanswered pings is answered (RFC 6455, 5.5.3), so
        pings cannot fill the memory. A client that does not read its pongs is one that
        does not read.
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
        """Queue frames. Past the backlog's bound the session is told that its client
        does not read.

        ``reply``: the reply that they tell of, so that ``flush`` can take them back.
        ``audio_until_ms``: the media position after the audio in them; the session is
        told when it has left. ``urgent``: somebody hears how late it is, as with the
        answer to an interruption.
        """
        size_bytes = sum(len(frame) for frame in frames) + _OVERHEAD_BYTES
        begins = audio_until_ms is not None and reply != self._sounding
        if begins:
            self._sounding = reply
        self._queue.append(Queued(frames, size_bytes, reply, audio_until_ms))
        self._backlog_bytes += size_bytes
        if self._backlog_bytes > self._limits.backlog_bytes and not self._stalled:
            self._stall("the client does not read: too much is waiting for it")
        if urgent or begins:
            # With a hundred sessions the end of this pass is milliseconds away, and
            # whoever waits hears each.
            self._write_at_once()
        if self._queue and not self._leaving:
            self._leaving = True
            self._loop.call_soon(self._begin_leaving)

    def flush_reply(self, reply: int) -> None:
        """Forget what is queued of ``reply``. Frames of no reply stay, in their order."""
        self._queue = deque(queued for queued in self._queue if queued.reply != reply)
        self._lighten(self._backlog_bytes - sum(queued.size_bytes for queued in self._queue))

    def close(self, code: int, reason: str) -> None:
        """Close the connection once the queue has left; of a client that does not read,
        within ``close_ms``.
        """
        self._closing = (code, reason)
        self._wake.set()

    @property
    def closing(self) -> bool:
        """Whether ``close`` has been called."""
        return self._closing is not None

    async def room(self) -> None:
        """Wait until little enough audio is queued that making more is sensible."""
        while self._backlog_bytes >= self._limits.ahead_bytes:
            self._lighter.clear()
            await self._lighter.wait()

    async def run(self) -> None:
        """Serve until ``close`` or until the connection is lost. Cancelling leaves the
        queue unsent.
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
        """Let audio leave; text after one more pass of the loop.

        Whoever was given work by the same event goes first: a service's being asked is
        what the user waits for, and writing takes a tenth of a millisecond.
        """
        if self._queue and self._queue[0].audio_until_ms is None:
            self._loop.call_soon(self._leave)
        else:
            self._leave()

    def _leave(self) -> None:
        self._leaving = False
        try:
            self._write_at_once()
        except Exception as error:  # noqa: BLE001 - a bug of ours: the failure of the writer's task ends the session
            self._fault = error
            self._wake.set()

    def _write_at_once(self) -> None:
        """Write what waits as far as the connection has room; past that it is the
        writer's to wait.
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
        """Write what waits, each frame as soon as the connection has room: what stays
        here can be taken back.
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
        """Whether the client read in time. If not, the session is told; the second time
        the connection is lost.
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
        """Give up on what is queued; what the session says about it is the last that is
        attempted.
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
