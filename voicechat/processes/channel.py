"""One job in a child process, as its user sees it: send bytes, finish, iterate over the
answers, close.
"""

import asyncio
from collections import deque
from typing import Protocol, Self

from voicechat.processes.errors import WorkerError
from voicechat.processes.frames import FrameKind

MAX_PENDING_MESSAGES = 256
"""Answers nobody has read yet; beyond this, `Channel.send` waits, so that memory is
bounded on this side too.
"""


class FrameSink(Protocol):
    """Where a channel's frames go; writing never waits (the channel's own window bounds
    what is under way).
    """

    def write(self, kind: FrameKind, channel: int, payload: bytes = b"") -> None:
        """Send a frame to the child, or drop it when the child is gone."""

    def release(self, channel: int) -> None:
        """Forget the channel: its place is free."""


class Channel:
    """A job's two directions. One task may send while another iterates; both are told
    when the child is lost.
    """

    def __init__(self, number: int, sink: FrameSink, window_bytes: int) -> None:
        self._number = number
        self._sink = sink
        self._window_bytes = window_bytes
        self._in_flight_bytes = 0
        self._messages: deque[bytes] = deque()
        self._changed = asyncio.Event()
        self._finished = False
        self._ended = False
        self._failure: WorkerError | None = None

    @property
    def waiting(self) -> bool:
        """Whether the child owes an answer: bytes to consume, or the end after
        `finish`.
        """
        return not self._ended and (self._in_flight_bytes > 0 or self._finished)

    async def send(self, payload: bytes) -> None:
        """Give the job bytes; wait while the window is full. After the end of the
        channel they are dropped.

        Cancelling sends nothing of this payload.
        """
        while not self._ended and not self._has_room(len(payload)):
            await self._wait_for_change()
        if self._ended:
            return
        self._sink.write(FrameKind.DATA, self._number, payload)
        self._in_flight_bytes += len(payload)

    def finish(self) -> None:
        """Say that no more bytes will come: the job gives its last answers and ends."""
        if not self._ended and not self._finished:
            self._sink.write(FrameKind.FINISH, self._number)
            self._finished = True

    def close(self) -> None:
        """Drop the job, at once and without waiting. Idempotent; a no-op after the
        natural end.
        """
        if not self._ended:
            self._sink.write(FrameKind.CANCEL, self._number)
            self._end()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        """Give the next answer. Raises the failure of the job or child after the
        answers that came before it.

        Cancelling loses nothing.
        """
        while not self._messages:
            if self._failure is not None:
                raise self._failure
            if self._ended:
                raise StopAsyncIteration
            await self._wait_for_change()
        message = self._messages.popleft()
        self._notify()
        return message

    def deliver(self, message: bytes) -> None:
        """Take an answer of the child."""
        self._messages.append(message)
        self._notify()

    def acknowledge(self, consumed_bytes: int) -> None:
        """Take note that the child has worked off this many bytes."""
        self._in_flight_bytes -= consumed_bytes
        self._notify()

    def end(self, failure: WorkerError | None = None) -> None:
        """Take note that nothing more will come, and why if that was not the natural
        end.
        """
        if not self._ended:
            self._failure = failure
            self._end()

    def _end(self) -> None:
        self._ended = True
        self._sink.release(self._number)
        self._notify()

    def _has_room(self, size_bytes: int) -> bool:
        if len(self._messages) >= MAX_PENDING_MESSAGES:
            return False
        # A payload longer than the window still goes through, alone.
        return (
            self._in_flight_bytes == 0 or self._in_flight_bytes + size_bytes <= self._window_bytes
        )

    async def _wait_for_change(self) -> None:
        # Sender and reader both wait here and look again for themselves, so a shared
        # event that is replaced by each change is enough.
        await self._changed.wait()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
