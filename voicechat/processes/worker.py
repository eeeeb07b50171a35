"""One child process and the channels it carries, from its start to its end."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from voicechat.errors import LocalProtocolError
from voicechat.processes import python
from voicechat.processes.channel import Channel
from voicechat.processes.errors import JobFailedError, WorkerLostError
from voicechat.processes.frames import Frame, FrameKind, decode_count, encode, read_frame

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerLimits:
    """Bounds of one child."""

    channels: int = 4
    """Jobs it carries at once."""
    window_bytes: int = 1 << 16
    """Bytes of one job that may be under way to it."""
    ready_ms: int = 60_000
    """How long it may take to become ready."""
    answer_ms: int = 10_000
    """How long it may owe an answer without saying anything: then it hangs and is
    killed.
    """
    exit_ms: int = 1_000
    """How long it may take to exit when asked to; then it is killed."""


class Worker:
    """A child process. `run` is its whole life; a new life is a new object."""

    def __init__(
        self, command: Sequence[str], limits: WorkerLimits, on_change: Callable[[], None]
    ) -> None:
        """``on_change`` is called when it becomes ready, loses a channel or dies: when
        `has_room` may have changed.
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
        self.ready = False
        """Whether it is warm and alive."""
        self.was_ready = False
        """Whether it ever was."""

    @property
    def pid(self) -> int | None:
        """The child's process id, once it runs."""
        return None if self._process is None else self._process.pid

    @property
    def open_channels(self) -> int:
        """How many jobs it carries."""
        return len(self._channels)

    @property
    def has_room(self) -> bool:
        """Whether it can take another job now."""
        return self.ready and len(self._channels) < self._limits.channels

    def open(self, options: bytes) -> Channel:
        """Start a job; only while `has_room`."""
        self._last_number += 1
        channel = Channel(self._last_number, self, self._limits.window_bytes)
        self._channels[self._last_number] = channel
        self.write(FrameKind.OPEN, self._last_number, options)
        return channel

    def write(self, kind: FrameKind, channel: int, payload: bytes = b"") -> None:
        """Send a frame to the child, or drop it when the child is gone. Never waits."""
        if not self.ready or self._stdin is None:
            return
        if not self._owes_answer():
            self._heard_s = asyncio.get_running_loop().time()
        self._stdin.write(encode(Frame(kind, channel, payload)))
        if self._watchdog is None:
            self._watch(self._limits.answer_ms / 1000)

    def release(self, channel: int) -> None:
        """Forget a channel: its place is free."""
        self._channels.pop(channel, None)
        self._on_change()

    async def run(self) -> None:
        """Start the child, carry its channels, and return when it is gone; never raises
        because of the child.

        Cancelling asks it to exit and kills it after ``exit_ms``; either way nothing of
        it is left behind.
        """
        # Its own session: Ctrl-C at the terminal is the parent's matter.
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
        if frame.kind is not FrameKind.READY:
            raise LocalProtocolError(f"{frame.kind.name} before READY")
        self.ready = self.was_ready = True
        self._on_change()
        while True:
            self._receive(await read_frame(stdout))

    def _receive(self, frame: Frame) -> None:
        self._heard_s = asyncio.get_running_loop().time()
        channel = self._channels.get(frame.channel)
        if channel is None:
            return  # closed on this side while the frame was under way
        match frame.kind:
            case FrameKind.MESSAGE:
                channel.deliver(frame.payload)
            case FrameKind.CONSUMED:
                channel.acknowledge(decode_count(frame.payload))
            case FrameKind.ENDED:
                channel.end()
            case FrameKind.FAILED:
                channel.end(
                    JobFailedError(f"the job raised {frame.payload.decode(errors='replace')}")
                )
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
        """Kill the child if it owes an answer and has been silent for too long. One
        timer serves all frames.
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
            channel.end(WorkerLostError("the worker process is gone"))
        self._on_change()

    async def _reap(self, process: asyncio.subprocess.Process) -> None:
        try:
            async with asyncio.timeout(self._limits.exit_ms / 1000):
                await _exit_of(process)
        except TimeoutError:
            process.kill()
            await _exit_of(process)
        finally:
            # Reached with a living child only when this wait was itself cancelled.
            if process.returncode is None:
                process.kill()


async def _exit_of(process: asyncio.subprocess.Process) -> None:
    """Close the child's input, which asks it to exit, and wait until it has."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.close()
    # A pipe that nobody reads would keep the exit from being seen.
    while await process.stdout.read(1 << 16):
        pass
    await process.wait()
