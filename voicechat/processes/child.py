"""The child's side: a loop that gives each of its jobs one payload in turn.

One thread reads the input, so that a cancelled job is known of between two payloads and
the end of the parent is known of at once; all jobs run on the main thread, one after
the other. That makes the longest payload the longest time that a job waits for its
neighbour: callers send small ones.
"""

import ctypes
import os
import queue
import signal
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterable
from typing import BinaryIO, Protocol

from voicechat.processes.frames import Frame, FrameKind, encode, encode_count, read_frame_blocking

_PR_SET_PDEATHSIG = 1
"""From linux/prctl.h."""


class Job(Protocol):
    """What a child does for one channel. An exception ends the job, not the child."""

    def feed(self, payload: bytes) -> Iterable[bytes]:
        """Work off a payload; give the answers that are due."""

    def finish(self) -> Iterable[bytes]:
        """Give the last answers: no more payloads will come."""

    def close(self) -> None:
        """Release everything; called once, whatever ended the job."""


JobFactory = Callable[[bytes], Job]


def serve(load: Callable[[], JobFactory], *, niceness: int = 0) -> None:
    """Load what the jobs need, say READY, and carry jobs until the parent closes the
    pipe or dies.

    Call it first of all: loading takes long, and the parent may leave meanwhile.
    """
    _become_child(niceness)
    frames_out = _claim_stdout()
    frames_in: queue.SimpleQueue[Frame] = queue.SimpleQueue()
    threading.Thread(
        target=_read_until_parent_leaves, args=(sys.stdin.buffer, frames_in), daemon=True
    ).start()
    jobs = _Jobs(load(), frames_out)
    jobs.say(FrameKind.READY, 0)
    while True:
        # With nothing to do, sleep until the next frame; else only look.
        if not jobs.busy:
            jobs.receive(frames_in.get())
        while not frames_in.empty():
            jobs.receive(frames_in.get())
        jobs.work_one_round()


class _Jobs:
    """The open jobs and what each has yet to do."""

    def __init__(self, open_job: JobFactory, out: BinaryIO) -> None:
        self._open_job = open_job
        self._out = out
        self._jobs: dict[int, Job] = {}
        self._pending: dict[int, deque[Frame]] = {}

    @property
    def busy(self) -> bool:
        """Whether any job has something to do."""
        return any(self._pending.values())

    def say(self, kind: FrameKind, channel: int, payload: bytes = b"") -> None:
        """Send a frame to the parent."""
        self._out.write(encode(Frame(kind, channel, payload)))
        self._out.flush()

    def receive(self, frame: Frame) -> None:
        """Take a frame: cancel at once, put the rest in the job's line."""
        if frame.kind is FrameKind.CANCEL:
            self._drop(frame.channel)
        elif frame.kind is FrameKind.OPEN:
            self._pending[frame.channel] = deque([frame])
        elif frame.channel in self._pending:
            self._pending[frame.channel].append(frame)

    def work_one_round(self) -> None:
        """Let each job do the next thing in its line."""
        for channel in list(self._pending):
            if self._pending[channel]:
                self._work(channel, self._pending[channel].popleft())

    def _work(self, channel: int, frame: Frame) -> None:
        try:
            if frame.kind is FrameKind.OPEN:
                self._jobs[channel] = self._open_job(frame.payload)
            elif frame.kind is FrameKind.DATA:
                self._say_all(channel, self._jobs[channel].feed(frame.payload))
                self.say(FrameKind.CONSUMED, channel, encode_count(len(frame.payload)))
            else:
                self._say_all(channel, self._jobs[channel].finish())
                self._drop(channel)
                self.say(FrameKind.ENDED, channel)
        except Exception as error:  # noqa: BLE001 - a job may raise anything; its neighbours go on
            # Its place but not its message, which may hold what a user said.
            traceback.print_tb(error.__traceback__)
            self._drop(channel)
            self.say(FrameKind.FAILED, channel, type(error).__name__.encode())

    def _say_all(self, channel: int, messages: Iterable[bytes]) -> None:
        for message in messages:
            self.say(FrameKind.MESSAGE, channel, message)

    def _drop(self, channel: int) -> None:
        self._pending.pop(channel, None)
        job = self._jobs.pop(channel, None)
        if job is not None:
            job.close()


def _read_until_parent_leaves(stream: BinaryIO, frames: "queue.SimpleQueue[Frame]") -> None:
    while (frame := read_frame_blocking(stream)) is not None:
        frames.put(frame)
    # The main thread may be deep in C code: nothing here is worth an orderly end.
    os._exit(0)


def _claim_stdout() -> BinaryIO:
    """Keep the pipe for frames; what a library prints goes to stderr."""
    frames_out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return frames_out


def _become_child(niceness: int) -> None:
    """Leave stopping to the parent (which may have a turn to finish), die with it, and
    give way to its event loop.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if sys.platform == "linux":
        # The end of the input says the same, but only once the interpreter lock is
        # free.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if niceness and hasattr(os, "nice"):  # Windows has none
        os.nice(niceness)
