"""Decodes single Opus packets of all sessions in one process.

A process for each session would wake for each packet, 17 times a second, and take a few
MiB; with hundreds of devices that would be most of their cost. Here packets that arrive
within a few milliseconds are sent to the process together and answered together.
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
"""How long packets are collected before they are sent to the process, per open stream:
with 40 streams, 2 ms. With few streams there is little to collect.
"""
MOST_GATHERING_S = 0.010
"""Bound of that time. A device's packet takes 60 ms to record, so this adds little."""
BATCH_PACKETS = 64
"""Most packets in one batch: 10 ms of the process's time."""
MOST_STREAMS = 1_000
"""Most streams of one process. A decoder takes about 100 KiB."""
PACKETS_OF_PROCESS = 5_000_000
"""After this many packets the process is replaced as soon as it is idle, because its
CPU time is limited. They take about a fifth of the limit.
"""

_log = logging.getLogger(__name__)


class PacketListener(Protocol):
    """Receives the answers to a stream's requests."""

    def answered(self, answer: bytes | RemoteProtocolError) -> None:
        """Receive the next answer: samples (s16le mono 16 kHz), or the error."""

    def lost(self) -> None:
        """Called when the process has died with requests of this stream, perhaps
        because of them.
        """


class PacketDecoding:
    """The process and its streams. Used on one event loop only."""

    def __init__(self, fork: Callable[[], Awaitable[ForkedStream]]) -> None:
        """``fork`` starts the process. It raises `WorkerError` if that fails."""
        self._fork = fork
        self._last = 0
        self._listeners: dict[int, PacketListener] = {}
        self._waiting: list[Request] = []
        """Requests that have not been sent to the process."""
        self._unanswered: dict[int, int] = {}
        """Number of outstanding answers of each stream that has any."""
        self._batches = 0
        """Number of payloads that the process has not finished."""
        self._taken = 0
        """Number of packets sent to this process."""
        self._wanted = asyncio.Event()
        self._given = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    def open(self, listener: PacketListener) -> int | None:
        """Open a stream and return its number, or None if there are too many."""
        if self._closed or len(self._listeners) >= MOST_STREAMS:
            return None
        self._last += 1
        self._listeners[self._last] = listener
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run(), name="packets")
        return self._last

    def request(self, stream: int, kind: RequestKind, packet: bytes = b"") -> None:
        """Request a packet's samples, or the output that is held back. Never waits."""
        self._waiting.append(Request(stream, kind, packet))
        self._wanted.set()

    def close(self, stream: int) -> None:
        """Close a stream. Its outstanding requests are not answered."""
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
        """Send the waiting requests to the process in batches."""
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
        """Receive the answers of the process until it must be replaced."""
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
        """Notify the streams whose requests are lost. Requests not yet sent are dropped
        as well, because their listeners begin anew.
        """
        streams = {*self._unanswered, *(each.stream for each in self._waiting)}
        self._unanswered.clear()
        self._waiting.clear()
        self._wanted.clear()
        for stream in streams:
            listener = self._listeners.pop(stream, None)
            if listener is not None:
                listener.lost()
