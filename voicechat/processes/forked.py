"""The parent's side of `voicechat.processes.fork_server`: one process for each job."""

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Sequence

from voicechat.errors import LocalProtocolError
from voicechat.processes import python
from voicechat.processes.errors import WorkerLostError
from voicechat.processes.frames import (
    FORK_REQUEST,
    FORK_SERVER_READY,
    Frame,
    FrameKind,
    encode,
    read_frame,
)

logger = logging.getLogger(__name__)

READY_MS = 10_000
"""Time for the fork server to load."""
EXIT_MS = 1_000
"""Time for the fork server to exit on request; then it is killed."""
ANSWER_MS = 5_000
"""Time for a job to answer a frame, unless its server has another.
``JobLimits.step_cpu_ms`` bounds its CPU time more tightly; this limit covers time spent
blocked.
"""


def can_fork() -> bool:
    """Whether this system supports `ForkServer`. Windows does not."""
    return hasattr(os, "fork") and hasattr(socket, "send_fds")


class ForkServer:
    """Runs one fork server from `start`, or the first `fork`, until `aclose`. Replaces
    it if it dies.
    """

    def __init__(self, command: Sequence[str], *, answer_ms: int = ANSWER_MS) -> None:
        """``command`` must end up in `voicechat.processes.fork_server.serve`.
        ``answer_ms``: time for a job to answer a frame.
        """
        self._command = tuple(command)
        self._answer_ms = answer_ms
        self._process: asyncio.subprocess.Process | None = None
        self._control: socket.socket | None = None
        self._starting = asyncio.Lock()
        self._closed = False

    async def start(self) -> None:
        """Start the server unless it is running.

        Raises `WorkerLostError` if it is not ready within ``READY_MS``, or is closed.
        """
        async with self._starting:
            if self._closed:
                raise WorkerLostError("the fork server is closed")
            if self._process is not None and self._process.returncode is None:
                return
            await self._start()

    async def fork(self, options: bytes) -> "ForkedStream":
        """Start a process for one job. Raises `WorkerLostError` if no server runs."""
        await self.start()
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with theirs:
            try:
                await self._hand_over(theirs)
            except BaseException:
                ours.close()
                raise
        reader, writer = await asyncio.open_unix_connection(sock=ours)
        return ForkedStream(reader, writer, options, self._answer_ms)

    async def _hand_over(self, job: socket.socket) -> None:
        """Pass the socket ``job`` to the server. If the server has died, restart it and
        retry once.
        """
        try:
            self._ask(job)
        except OSError:
            async with self._starting:
                await self._start()
            try:
                self._ask(job)
            except OSError as error:
                raise WorkerLostError("the fork server does not take requests") from error

    def _ask(self, job: socket.socket) -> None:
        if self._control is None:
            raise WorkerLostError("the fork server is closed")
        socket.send_fds(self._control, [FORK_REQUEST], [job.fileno()])

    async def aclose(self) -> None:
        """Stop the server, killing it after ``EXIT_MS``. Idempotent.

        Forked processes end when their own sockets close.
        """
        self._closed = True
        async with self._starting:
            await self._stop()

    async def _start(self) -> None:
        await self._stop()
        ours, theirs = socket.socketpair()
        self._control = ours
        with theirs:
            ours.setblocking(False)
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=theirs.fileno(),
                stdout=asyncio.subprocess.DEVNULL,
                start_new_session=True,
                env=python.bare_environment(),
            )
        try:
            async with asyncio.timeout(READY_MS / 1000):
                ready = await asyncio.get_running_loop().sock_recv(ours, len(FORK_SERVER_READY))
        except (TimeoutError, ConnectionError):
            ready = b""
        if ready != FORK_SERVER_READY:
            await self._stop()
            raise WorkerLostError("the fork server did not become ready; see its output on stderr")

    async def _stop(self) -> None:
        process, self._process = self._process, None
        if self._control is not None:
            self._control.close()  # requests the exit
            self._control = None
        if process is None:
            return
        try:
            async with asyncio.timeout(EXIT_MS / 1000):
                await process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):  # it has just exited
                process.kill()
            await process.wait()


class ForkedStream:
    """One job in a process of its own. Sending never waits: the caller bounds the
    unanswered payloads.
    """

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        options: bytes,
        answer_ms: int = ANSWER_MS,
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._answer_ms = answer_ms
        self._write(FrameKind.OPEN, options)

    def send(self, payload: bytes) -> None:
        """Send bytes to the job. If the process is gone they are dropped, and the next
        `receive_frame` raises.
        """
        self._write(FrameKind.DATA, payload)

    def finish_input(self) -> None:
        """Request the output that the job still buffers."""
        self._write(FrameKind.FINISH)

    async def receive_frame(self) -> Frame:
        """Return the next answer. Call it only while the job owes one.

        Raises `WorkerLostError` if the process has died or sends nothing for
        ``answer_ms``. After cancellation only `close` may be called.
        """
        try:
            async with asyncio.timeout(self._answer_ms / 1000):
                return await read_frame(self._reader)
        except (asyncio.IncompleteReadError, ConnectionError, LocalProtocolError):
            raise WorkerLostError("the process of the job is gone") from None
        except TimeoutError:
            raise WorkerLostError(
                f"the process of the job said nothing for {self._answer_ms} ms"
            ) from None

    def close(self) -> None:
        """Abort the connection. The process ends when it notices."""
        self._writer.transport.abort()

    def _write(self, kind: FrameKind, payload: bytes = b"") -> None:
        if not self._writer.transport.is_closing():
            self._writer.write(encode(Frame(kind, 0, payload)))
