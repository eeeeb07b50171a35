"""Child processes that several processes of one server share: a model is in memory once
and not once for each worker.

The process that owns the children runs a `ChildHost`, on a local socket in a folder
that only this user can open. A `WorkerPool` of another process connects to it in place
of starting a child, and gets the same frames. A child that dies is replaced by the
host; all connections to it end, and the pools connect again.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import orjson

from voicechat.errors import LocalProtocolError
from voicechat.processes.channel import Channel
from voicechat.processes.errors import JobFailedError, WorkerError, WorkersBusyError
from voicechat.processes.frames import (
    Frame,
    FrameKind,
    decode_job,
    encode,
    encode_count,
    read_frame,
)
from voicechat.processes.pool import WorkerPool
from voicechat.processes.worker import WorkerLimits

logger = logging.getLogger(__name__)

MAX_JOBS = 1 << 16
REPLACED_S = 0.05
"""How often to look whether a child that died has been replaced."""
MAX_QUEUED_FRAMES = 256
"""Frames of one job that wait for the child. Beyond them the host stops reading that
connection.
"""


class ChildHost:
    """Runs one child for each command that is asked for, until it is closed."""

    def __init__(self) -> None:
        self._pools: dict[tuple[str, ...], WorkerPool] = {}
        self._connections: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def listening(self, path: Path) -> AsyncIterator[None]:
        """Serve connections at ``path``; at the end all children exit."""
        server = await asyncio.start_unix_server(self._accept, path)
        try:
            yield
        finally:
            server.close()
            for task in self._connections:
                task.cancel()
            await asyncio.gather(*self._connections, return_exceptions=True)
            await asyncio.gather(*(pool.aclose() for pool in self._pools.values()))

    @property
    def pids(self) -> tuple[int, ...]:
        """The process ids of the children that are warm and alive."""
        return tuple(pid for pool in self._pools.values() for pid in pool.pids)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            await self._serve(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass  # the other process has closed the connection, or died
        except LocalProtocolError as error:
            logger.warning("a connection to a shared process ended: %s", error)
        finally:
            self._connections.discard(task)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Relay the jobs of one connection until either side ends it."""
        asked = orjson.loads((await read_frame(reader)).payload)
        command = tuple(asked["command"])
        # Each connecting pool bounds its own jobs.
        limits = replace(WorkerLimits(**asked["limits"]), channels=MAX_JOBS)
        pool = self._pools.get(command)
        if pool is None:
            pool = self._pools[command] = WorkerPool(command, size=1, limits=limits)
        try:
            await pool.start()
            while not pool.pids:  # noqa: ASYNC110 - a child that died is being replaced
                await asyncio.sleep(REPLACED_S)
        except WorkerError as error:
            writer.write(encode(Frame(FrameKind.FAILED, 0, str(error).encode())))
            await writer.drain()
            return
        writer.write(encode(Frame(FrameKind.READY, 0, str(pool.pids[0]).encode())))
        jobs: dict[int, _RelayedJob] = {}
        try:
            while True:
                frame = await read_frame(reader)
                if frame.kind is FrameKind.OPEN:
                    jobs[frame.channel] = _RelayedJob(frame, pool, limits, writer, jobs.pop)
                elif (job := jobs.get(frame.channel)) is not None:
                    await job.take(frame)
        finally:
            tasks = [job.task for job in jobs.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


class _RelayedJob:
    """One job of a connection."""

    def __init__(
        self,
        opened: Frame,
        pool: WorkerPool,
        limits: WorkerLimits,
        writer: asyncio.StreamWriter,
        on_end: Callable[[int], object],
    ) -> None:
        """Start the job; ``on_end`` is called with its number when it has ended."""
        self._number = opened.channel
        self._caller, self._options = decode_job(opened.payload)
        self._pool = pool
        self._limits = limits
        self._writer = writer
        self._frames: asyncio.Queue[Frame] = asyncio.Queue(MAX_QUEUED_FRAMES)
        self.task = asyncio.get_running_loop().create_task(self._run())
        self.task.add_done_callback(lambda _: on_end(self._number))

    async def take(self, frame: Frame) -> None:
        """Take a frame of the job; a cancellation takes effect at once."""
        if frame.kind is FrameKind.CANCEL:
            self.task.cancel()
        else:
            await self._frames.put(frame)

    async def _run(self) -> None:
        """Relay the job to its end. If the child is lost, the connection ends: all its
        jobs are lost.
        """
        try:
            channel = await self._pool.open_channel(
                self._options, wait_ms=self._limits.answer_ms, caller=self._caller
            )
            feeding = asyncio.get_running_loop().create_task(self._feed(channel))
            try:
                async for message in channel:
                    await self._write(FrameKind.MESSAGE, message)
                await self._write(FrameKind.ENDED)
            finally:
                channel.close()
                feeding.cancel()
                await asyncio.gather(feeding, return_exceptions=True)
        except JobFailedError as error:
            await self._write(FrameKind.FAILED, error.reason.encode())
        except WorkersBusyError as error:
            await self._write(FrameKind.FAILED, type(error).__name__.encode())
        except (WorkerError, OSError):
            self._writer.close()

    async def _feed(self, channel: Channel) -> None:
        while True:
            frame = await self._frames.get()
            if frame.kind is FrameKind.FINISH:
                channel.finish_input()
            elif frame.kind is FrameKind.DATA:
                await channel.send(frame.payload)
                await self._write(FrameKind.CONSUMED, encode_count(len(frame.payload)))

    async def _write(self, kind: FrameKind, payload: bytes = b"") -> None:
        self._writer.write(encode(Frame(kind, self._number, payload)))
        await self._writer.drain()
