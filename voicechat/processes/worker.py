"""One child process of a pool and its channels, from start to exit."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson

from voicechat.errors import LocalProtocolError
from voicechat.processes import python
from voicechat.processes.channel import Channel
from voicechat.processes.errors import JobFailedError, WorkerLostError
from voicechat.processes.frames import (
    Frame,
    FrameKind,
    decode_count,
    encode,
    encode_job,
    read_frame,
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerLimits:
    """Bounds of one child."""

    channels: int = 4
    """Concurrent jobs."""
    reserved: int = 0
    """Additional jobs, for callers that have no other job in the pool."""
    window_bytes: int = 1 << 16
    """Send window: bytes of one job in flight to the child."""
    ready_ms: int = 60_000
    """Time to become ready."""
    answer_ms: int = 10_000
    """A child that owes an answer and sends nothing for this time is killed as hung."""
    exit_ms: int = 1_000
    """Time to exit on request; then the child is killed."""


class PoolWorker:
    """A child process. `run` starts it and returns when it has exited; an object is
    used once.
    """

    def __init__(
        self, command: Sequence[str], limits: WorkerLimits, on_change: Callable[[], None]
    ) -> None:
        """``on_change`` is called when `has_room` may have changed: when the child
        becomes ready, frees a channel or dies.
        """
        self._command = command
        self._limits = limits
        self._on_change = on_change
        self._channels: dict[int, Channel] = {}
        self._last_number = 0
        self._stdin: asyncio.StreamWriter | None = None
        self._heard_s = 0.0
        self._watchdog: asyncio.TimerHandle | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._shared_pid = 0
        """The process id of a child that another process owns; 0: it is ours."""
        self.ready = False
        """Whether the child has sent READY and is alive."""
        self.was_ready = False
        """Whether the child ever became ready."""
        self.refusal = ""
        """The reason that the child reported for failing to load; empty if it did not
        fail.
        """

    @property
    def pid(self) -> int | None:
        """The child's process id; None before it was started."""
        return self._shared_pid or (None if self._process is None else self._process.pid)

    @property
    def open_channels(self) -> int:
        """How many jobs are open."""
        return len(self._channels)

    def has_room(self, *, reserved: bool) -> bool:
        """Whether another job can be opened now; ``reserved``: also in a reserved
        channel.
        """
        most = self._limits.channels + (self._limits.reserved if reserved else 0)
        return self.ready and len(self._channels) < most

    def open_channel(self, caller: str, options: bytes) -> Channel:
        """Start a job of ``caller``. Call it only while `has_room` is true."""
        self._last_number += 1
        channel = Channel(self._last_number, self, self._limits.window_bytes)
        self._channels[self._last_number] = channel
        self.write_frame(FrameKind.OPEN, self._last_number, encode_job(caller, options))
        return channel

    def write_frame(self, kind: FrameKind, channel: int, payload: bytes = b"") -> None:
        """Send a frame, or drop it if the child has exited. Never waits."""
        if not self.ready or self._stdin is None:
            return
        if not self._owes_answer():
            self._heard_s = asyncio.get_running_loop().time()
        self._stdin.write(encode(Frame(kind, channel, payload)))
        if self._watchdog is None:
            self._watch(self._limits.answer_ms / 1000)

    def release_channel(self, channel: int) -> None:
        """Free the channel's slot."""
        self._channels.pop(channel, None)
        self._on_change()

    async def run(self) -> None:
        """Start the child, serve its channels, and return when it has exited. Never
        raises because of the child.

        Cancelling asks the child to exit and kills it after ``exit_ms``. No process is
        left behind in either case.
        """
        # A session of its own, so that Ctrl-C at the terminal reaches only the parent.
        process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,
            env=python.bare_environment(),
        )
        self._process = process
        self._stdin = process.stdin
        assert process.stdout is not None
        try:
            await self._converse(process.stdout)
        except asyncio.IncompleteReadError:
            logger.warning("worker %d has closed its output", process.pid)
        except TimeoutError:
            logger.error("worker %d was not ready within %d ms", process.pid, self._limits.ready_ms)
        except LocalProtocolError as error:
            logger.error("worker %d does not speak the protocol: %s", process.pid, error)
        finally:
            self._lose()
            await self._reap(process)

    async def _converse(self, stdout: asyncio.StreamReader) -> None:
        async with asyncio.timeout(self._limits.ready_ms / 1000):
            frame = await read_frame(stdout)
        if frame.kind is FrameKind.FAILED:
            self.refusal = frame.payload.decode(errors="replace")
            logger.error("a worker could not start: %s", self.refusal)
            return
        if frame.kind is not FrameKind.READY:
            raise LocalProtocolError(f"{frame.kind.name} before READY")
        self._shared_pid = int(frame.payload or 0)
        self.ready = self.was_ready = True
        self._on_change()
        while True:
            self._receive(await read_frame(stdout))

    def _receive(self, frame: Frame) -> None:
        self._heard_s = asyncio.get_running_loop().time()
        channel = self._channels.get(frame.channel)
        if channel is None:
            return  # the parent closed the channel while the frame was in flight
        match frame.kind:
            case FrameKind.MESSAGE:
                channel.deliver_message(frame.payload)
            case FrameKind.CONSUMED:
                channel.acknowledge_bytes(decode_count(frame.payload))
            case FrameKind.ENDED:
                channel.mark_ended()
            case FrameKind.FAILED:
                channel.mark_ended(JobFailedError(frame.payload.decode(errors="replace")))
            case (
                FrameKind.OPEN
                | FrameKind.DATA
                | FrameKind.FINISH
                | FrameKind.CANCEL
                | FrameKind.READY
            ):
                raise LocalProtocolError(f"{frame.kind.name} from the child")

    def _watch(self, delay_s: float) -> None:
        self._watchdog = asyncio.get_running_loop().call_later(delay_s, self._check)

    def _check(self) -> None:
        """Kill the child if it owes an answer and has been silent for ``answer_ms``.
        One timer covers all channels.
        """
        self._watchdog = None
        if not self._owes_answer():
            return
        silent_s = asyncio.get_running_loop().time() - self._heard_s
        remaining_s = self._limits.answer_ms / 1000 - silent_s
        if remaining_s > 0:
            self._watch(remaining_s)
        elif self._process is not None and self._process.returncode is None:
            logger.error(
                "worker %d has not answered for %d ms: killed",
                self._process.pid,
                self._limits.answer_ms,
            )
            self._process.kill()

    def _owes_answer(self) -> bool:
        for channel in self._channels.values():  # noqa: SIM110 - asked for each frame that is written
            if channel.waiting:
                return True
        return False

    def _lose(self) -> None:
        self.ready = False
        if self._watchdog is not None:
            self._watchdog.cancel()
            self._watchdog = None
        for channel in list(self._channels.values()):
            channel.mark_ended(WorkerLostError("the worker process is gone"))
        self._on_change()

    async def _reap(self, process: asyncio.subprocess.Process) -> None:
        try:
            async with asyncio.timeout(self._limits.exit_ms / 1000):
                await _exit_of(process)
        except (TimeoutError, asyncio.CancelledError) as error:
            if process.returncode is None:
                process.kill()
            # Await the exit even when cancelled: a killed process exits at once, and
            # its transport stays open until the loop has noticed.
            await _exit_of(process)
            if isinstance(error, asyncio.CancelledError):
                raise


class SharedWorker(PoolWorker):
    """A child that another process owns (`ChildHost`). Its owner ends it if it is
    hung.
    """

    def __init__(
        self,
        command: Sequence[str],
        limits: WorkerLimits,
        on_change: Callable[[], None],
        host: Path,
    ) -> None:
        """``host``: the socket of the `ChildHost`."""
        super().__init__(command, limits, on_change)
        self._host = host

    async def run(self) -> None:
        """Connect, serve the channels, and return when the connection or the child is
        lost. Never raises, except `OSError` if the host cannot be reached. Cancelling
        closes the connection.
        """
        reader, writer = await asyncio.open_unix_connection(self._host)
        self._stdin = writer
        asked = orjson.dumps({"command": self._command, "limits": asdict(self._limits)})
        writer.write(encode(Frame(FrameKind.OPEN, 0, asked)))
        try:
            await self._converse(reader)
        except (asyncio.IncompleteReadError, ConnectionError):
            logger.warning("a shared process is lost")
        except TimeoutError:
            logger.error("a shared process was not ready within %d ms", self._limits.ready_ms)
        except LocalProtocolError as error:
            logger.error("a shared process does not speak the protocol: %s", error)
        finally:
            self._lose()
            writer.close()


async def _exit_of(process: asyncio.subprocess.Process) -> None:
    """Close the child's input, which asks it to exit, and wait until it has."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.close()
    # asyncio reports the exit only after the output pipe was read to its end.
    while await process.stdout.read(1 << 16):
        pass
    await process.wait()
