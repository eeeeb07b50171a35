"""Single Opus packets of all sessions, decoded in one process.

A process for each session would wake for each of its packets, 17 times a second, and
weigh some MiB: with hundreds of devices that is most of what they cost. Here what comes
within some milliseconds goes to the process together and comes back together.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Protocol

from voicechat.errors import RemoteProtocolError
from voicechat.processes.errors import WorkerError
from voicechat.processes.forked import ForkedStream
from voicechat.processes.frames import FrameKind
from voicechat.runtime.packet_records import Request, RequestKind, read_answers, write_request

GATHERING_OF_STREAM_S = 0.000_05
"""For so long packets are gathered before they go to the process, for each open stream:
40 streams wait 2 ms. With few there is next to nothing to gather.
"""
MOST_GATHERING_S = 0.010
"""But never longer. Packets of devices are 60 ms long, so that this is little beside
what they have waited already.
"""
BATCH_PACKETS = 64
"""Most packets that go together: 10 ms of the process's time."""
MOST_STREAMS = 1_000
"""Streams of one process; a decoder weighs about 100 KiB."""
PACKETS_OF_PROCESS = 5_000_000
"""After so many packets another process takes over, as soon as this one has nothing to
do: its CPU time is limited, and this is about a fifth of it.
"""

_log = logging.getLogger(__name__)


class PacketListener(Protocol):
    """Who waits for the answers to a stream's requests."""

    def answered(self, answer: bytes | RemoteProtocolError) -> None:
        """Take the next answer: samples, s16le mono 16 kHz, or why there are none."""

    def lost(self) -> None:
        """The process has died with requests of this stream; perhaps of them."""


class PacketDecoding:
    """The process and its streams. Used on one event loop only."""

    def __init__(self, fork: Callable[[], Awaitable[ForkedStream]]) -> None:
        """``fork`` starts the process, which raises `WorkerError` when it cannot."""
        self._fork = fork
        self._last = 0
        self._listeners: dict[int, PacketListener] = {}
        self._waiting: list[Request] = []
        """Requests that have not been given to the process."""
        self._unanswered: dict[int, int] = {}
        """How many answers each stream is owed by the process, if any."""
        self._batches = 0
        """Payloads that the process has not worked off."""
        self._taken = 0
        """Packets that this process has been given."""
        self._wanted = asyncio.Event()
        self._given = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    def open(self, listener: PacketListener) -> int | None:
        """Open a stream and return its number; None: there are too many."""
        if self._closed or len(self._listeners) >= MOST_STREAMS:
            return None
        self._last += 1
        self._listeners[self._last] = listener
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run(), name="packets")
        return self._last

    def request(self, stream: int, kind: RequestKind, packet: bytes = b"") -> None:
        """Ask for a packet's samples, or for what is held back. Never waits."""
        self._waiting.append(Request(stream, kind, packet))
        self._wanted.set()

    def close(self, stream: int) -> None:
        """Close a stream; it is answered no more."""
        if self._listeners.pop(stream, None) is not None:
            self._unanswered.pop(stream, None)
            self._waiting = [each for each in self._waiting if each.stream != stream]
            self.request(stream, RequestKind.CLOSE)

    async def aclose(self) -> None:
        """End the process. Idempotent."""
        self._closed = True
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    async def _run(self) -> None:
        while True:
            await self._wanted.wait()
            try:
                process = await self._fork()
            except WorkerError:
                self._lose()
                continue
            try:
                async with asyncio.TaskGroup() as tasks:
                    giving = tasks.create_task(self._give(process))
                    await self._take(process)
                    giving.cancel()
            except* WorkerError:
                _log.warning("the process that decodes packets is gone; another takes over")
                self._lose()
            finally:
                process.close()
                self._batches = self._taken = 0

    async def _give(self, process: ForkedStream) -> None:
        """Give the process what waits, batch by batch."""
        while True:
            await self._wanted.wait()
            await asyncio.sleep(min(MOST_GATHERING_S, len(self._listeners) * GATHERING_OF_STREAM_S))
            batch, self._waiting = self._waiting[:BATCH_PACKETS], self._waiting[BATCH_PACKETS:]
            if not self._waiting:
                self._wanted.clear()
            for request in batch:
                if request.kind is not RequestKind.CLOSE:
                    owed = self._unanswered.get(request.stream, 0)
                    self._unanswered[request.stream] = owed + 1
            if batch:
                self._batches += 1
                self._taken += len(batch)
                process.send(b"".join(map(write_request, batch)))
                self._given.set()

    async def _take(self, process: ForkedStream) -> None:
        """Take the answers of the process until it is to be replaced."""
        while self._taken < PACKETS_OF_PROCESS or self._batches:
            if not self._batches:
                self._given.clear()
                await self._given.wait()
            frame = await process.receive_frame()
            match frame.kind:
                case FrameKind.MESSAGE:
                    for stream, answer in read_answers(frame.payload):
                        self._answer(stream, answer)
                case FrameKind.CONSUMED:
                    self._batches -= 1
                case _:
                    raise WorkerError("the process that decodes packets has failed")

    def _answer(self, stream: int, answer: bytes | RemoteProtocolError) -> None:
        listener = self._listeners.get(stream)
        if listener is None:
            return  # it was closed meanwhile
        self._unanswered[stream] -= 1
        if not self._unanswered[stream]:
            del self._unanswered[stream]
        listener.answered(answer)

    def _lose(self) -> None:
        """Tell the streams whose requests are lost: what waits is, too, because their
        listeners begin anew.
        """
        streams = {*self._unanswered, *(each.stream for each in self._waiting)}
        self._unanswered.clear()
        self._waiting.clear()
        self._wanted.clear()
        for stream in streams:
            listener = self._listeners.pop(stream, None)
            if listener is not None:
                listener.lost()
