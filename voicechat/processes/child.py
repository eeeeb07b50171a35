"""The child's side: a round-robin loop that processes one payload of each job in turn.

A reader thread receives frames, so that a cancellation takes effect between two
payloads and the parent's exit takes effect at once. All jobs run on the main thread. A
job waits as long as the other jobs' payloads take, so callers send small payloads.
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

from voicechat.processes.frames import (
    Frame,
    FrameKind,
    decode_job,
    encode,
    encode_count,
    read_frame_blocking,
)

MAX_REASON_CHARACTERS = 500
"""Bound of the reason sent to the parent when ``load`` fails."""

_PR_SET_PDEATHSIG = 1
"""From linux/prctl.h."""


class ChildJob(Protocol):
    """Processes the payloads of one channel. An exception ends only this job.

    Each answer is sent as soon as it is made. A job that computes for long returns a
    generator: a cancellation then takes effect at its next answer.
    """

    def feed_payload(self, payload: bytes) -> Iterable[bytes]:
        """Process a payload and return the answers that are ready."""

    def finish_input(self) -> Iterable[bytes]:
        """Return the last answers. No payload follows."""

    def close(self) -> None:
        """Release all resources. Called exactly once, however the job ended."""


JobFactory = Callable[[bytes], ChildJob]


def serve(load: Callable[[], JobFactory], *, niceness: int = 0) -> None:
    """Call ``load``, send READY, and run jobs until the parent closes the pipe or dies.

    Call this before any slow start-up work: it detects the parent's exit during
    ``load``. If ``load`` raises, the parent receives the reason, and the process exits.
    """
    _become_child(niceness)
    frames_out = _claim_stdout()
    frames_in: queue.SimpleQueue[Frame] = queue.SimpleQueue()
    threading.Thread(
        target=_read_until_parent_leaves, args=(sys.stdin.buffer, frames_in), daemon=True
    ).start()
    try:
        open_job = load()
    except Exception as error:  # noqa: BLE001 - a library that loads a model may raise anything
        reason = f"{type(error).__name__}: {error}"[:MAX_REASON_CHARACTERS]
        frames_out.write(encode(Frame(FrameKind.FAILED, 0, reason.encode("utf-8", "replace"))))
        frames_out.flush()
        return
    jobs = _Jobs(open_job, frames_in, frames_out)
    jobs.write_frame(FrameKind.READY, 0)
    while True:
        # If no job has work, block until the next frame; else only poll.
        if not jobs.busy:
            jobs.handle_frame(frames_in.get())
        jobs.handle_frames()
        jobs.work_one_round()


class _Jobs:
    """The open jobs and their queues of unprocessed frames."""

    def __init__(
        self, open_job: JobFactory, frames_in: "queue.SimpleQueue[Frame]", out: BinaryIO
    ) -> None:
        self._open_job = open_job
        self._frames_in = frames_in
        self._out = out
        self._jobs: dict[int, ChildJob] = {}
        self._callers: dict[int, str] = {}
        self._pending: dict[int, deque[Frame]] = {}
        """Unprocessed frames of each job. The job served last comes last."""

    @property
    def busy(self) -> bool:
        """Whether any job has a queued frame."""
        return any(self._pending.values())

    def write_frame(self, kind: FrameKind, channel: int, payload: bytes = b"") -> None:
        """Send a frame to the parent."""
        self._out.write(encode(Frame(kind, channel, payload)))
        self._out.flush()

    def handle_frame(self, frame: Frame) -> None:
        """Apply a cancellation at once; append any other frame to its job's queue."""
        if frame.kind is FrameKind.CANCEL:
            self._drop(frame.channel)
        elif frame.kind is FrameKind.OPEN:
            caller, options = decode_job(frame.payload)
            self._callers[frame.channel] = caller
            self._pending[frame.channel] = deque([Frame(frame.kind, frame.channel, options)])
        elif frame.channel in self._pending:
            self._pending[frame.channel].append(frame)

    def handle_frames(self) -> None:
        """Apply or queue all frames that have arrived."""
        while not self._frames_in.empty():
            self.handle_frame(self._frames_in.get())

    def work_one_round(self) -> None:
        """Process one queued frame of each caller, taking its jobs in turn."""
        served: set[str] = set()
        for channel in list(self._pending):
            # A cancellation that arrived meanwhile may have removed the job.
            if self._pending.get(channel) and self._callers[channel] not in served:
                served.add(self._callers[channel])
                self._pending[channel] = self._pending.pop(channel)
                self._work(channel, self._pending[channel].popleft())

    def _work(self, channel: int, frame: Frame) -> None:
        try:
            if frame.kind is FrameKind.OPEN:
                self._jobs[channel] = self._open_job(frame.payload)
            elif frame.kind is FrameKind.DATA:
                if self._say_all(channel, self._jobs[channel].feed_payload(frame.payload)):
                    self.write_frame(FrameKind.CONSUMED, channel, encode_count(len(frame.payload)))
            elif self._say_all(channel, self._jobs[channel].finish_input()):
                self._drop(channel)
                self.write_frame(FrameKind.ENDED, channel)
        except Exception as error:  # noqa: BLE001 - a job may raise anything; its neighbours go on
            # Log the traceback without the message, which may contain user speech.
            traceback.print_tb(error.__traceback__)
            self._drop(channel)
            self.write_frame(FrameKind.FAILED, channel, type(error).__name__.encode())

    def _say_all(self, channel: int, messages: Iterable[bytes]) -> bool:
        """Send each answer as soon as it is made. Returns False if the job was
        cancelled meanwhile.
        """
        for message in messages:
            self.handle_frames()
            if channel not in self._jobs:
                return False
            self.write_frame(FrameKind.MESSAGE, channel, message)
        return True

    def _drop(self, channel: int) -> None:
        self._pending.pop(channel, None)
        self._callers.pop(channel, None)
        job = self._jobs.pop(channel, None)
        if job is not None:
            job.close()


def _read_until_parent_leaves(stream: BinaryIO, frames: "queue.SimpleQueue[Frame]") -> None:
    while (frame := read_frame_blocking(stream)) is not None:
        frames.put(frame)
    # The main thread may be inside C code and cannot be interrupted: exit at once.
    os._exit(0)


def _claim_stdout() -> BinaryIO:
    """Reserve the stdout pipe for frames; redirect prints of libraries to stderr."""
    frames_out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return frames_out


def _become_child(niceness: int) -> None:
    """Ignore SIGINT and SIGTERM (the parent decides when to stop), die with the parent,
    and lower the priority below the parent's event loop.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if sys.platform == "linux":
        # End of input also means that the parent died, but the reader thread sees it
        # only once the interpreter lock is free.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if niceness and hasattr(os, "nice"):  # Windows has none
        os.nice(niceness)
