"""The parent's end of one job in a child process: send bytes, iterate over the answers,
close.
"""

import asyncio
from collections import deque
from typing import Protocol, Self

from voicechat.processes.errors import WorkerError
from voicechat.processes.frames import FrameKind

MAX_PENDING_MESSAGES = 256
"""Unread answers of one channel. At this limit `Channel.send` waits, which bounds the
memory of the parent.
"""


class FrameSink(Protocol):
    """Writes the frames of a channel. Writing never waits: the channel's own window
    bounds the bytes in flight.
    """

    def write_frame(self, kind: FrameKind, channel: int, payload: bytes = b"") -> None:
        """Send a frame to the child, or drop it if the child has exited."""

    def release_channel(self, channel: int) -> None:
        """Free the channel's slot in the child."""


class Channel:
    """Both directions of a job. One task may send while another iterates.

    If the child is lost, sent bytes are dropped and the iteration raises.
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
    def ended(self) -> bool:
        """Whether the job has ended, was closed, or has lost its child."""
        return self._ended

    @property
    def waiting(self) -> bool:
        """Whether the child owes an answer: it has bytes to process, or has not ended
        after `finish_input`.
        """
        return not self._ended and (self._in_flight_bytes > 0 or self._finished)

    async def send(self, payload: bytes) -> None:
        """Send bytes to the job. Waits while the window is full; drops the bytes once
        the channel has ended.

        If cancelled, none of this payload is sent.
        """
        while not self._ended and not self._has_room(len(payload)):
            await self._wait_for_change()
        if self._ended:
            return
        self._sink.write_frame(FrameKind.DATA, self._number, payload)
        self._in_flight_bytes += len(payload)

    def finish_input(self) -> None:
        """Signal the end of input: the job sends its last answers and ends."""
        if not self._ended and not self._finished:
            self._sink.write_frame(FrameKind.FINISH, self._number)
            self._finished = True

    def close(self) -> None:
        """Cancel the job without waiting. Idempotent; does nothing after the job has
        ended.
        """
        if not self._ended:
            self._sink.write_frame(FrameKind.CANCEL, self._number)
            self._end()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        """Return the next answer.

        Raises `WorkerError` if the job or the child failed, after all answers that
        arrived before the failure. Cancelling loses no answer.
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

    def deliver_message(self, message: bytes) -> None:
        """Queue an answer from the child."""
        self._messages.append(message)
        self._notify()

    def acknowledge_bytes(self, consumed_bytes: int) -> None:
        """Reopen the send window: the child has processed this many bytes."""
        self._in_flight_bytes -= consumed_bytes
        self._notify()

    def mark_ended(self, failure: WorkerError | None = None) -> None:
        """End the channel. ``failure`` is the reason unless the job ended normally."""
        if not self._ended:
            self._failure = failure
            self._end()

    def _end(self) -> None:
        self._ended = True
        self._sink.release_channel(self._number)
        self._notify()

    def _has_room(self, size_bytes: int) -> bool:
        if len(self._messages) >= MAX_PENDING_MESSAGES:
            return False
        # A payload longer than the window is sent once nothing else is in flight.
        return (
            self._in_flight_bytes == 0 or self._in_flight_bytes + size_bytes <= self._window_bytes
        )

    async def _wait_for_change(self) -> None:
        # Sender and reader both wait here and re-check their condition afterwards, so
        # one shared event, replaced at each change, is enough.
        await self._changed.wait()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
