"""A fork server: a warm process that forks a copy of itself for each job.

The copy inherits the loaded libraries copy-on-write, so it costs a few milliseconds and
a few MB. It runs one job over a socket of its own, in the frames of
`voicechat.processes.frames`: first OPEN with the job's options, then DATA, each
answered by any number of MESSAGE and one CONSUMED, and FINISH, answered by MESSAGE and
ENDED, after which DATA may continue. FAILED is the last frame of a job that raised. A
copy that crashes, or that exceeds one of its limits and is killed, closes its socket
without a frame.
"""

import contextlib
import gc
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import BinaryIO, Protocol

from voicechat.processes import sandbox
from voicechat.processes.frames import (
    FORK_REQUEST,
    FORK_SERVER_READY,
    Frame,
    FrameKind,
    encode,
    encode_count,
    read_frame_blocking,
)

_DRAIN_BYTES = 1 << 16
_PAGE_BYTES = resource.getpagesize()


@dataclass(frozen=True, slots=True, kw_only=True)
class JobLimits:
    """Resource limits (setrlimit) of one forked process.

    They complement `voicechat.processes.sandbox`. The process cannot write to files and
    leaves no core dump.
    """

    step_cpu_ms: int = 500
    """CPU time for one payload. The kernel kills a process that exceeds it."""
    total_cpu_s: int = 3_600
    memory_bytes: int = 256 << 20
    """Address space beyond what the process has when the limit is set."""
    open_files: int = 16
    threads: bool = False
    """Whether the process may start threads, for libraries that need them."""


class ForkedJob(Protocol):
    """The work of a forked process. The constructor opens all files that it needs: the
    sandbox forbids opening any later.
    """

    def feed_payload(self, payload: bytes) -> Iterable[bytes]:
        """Process a payload and return the answers that are ready."""

    def finish_input(self) -> Iterable[bytes]:
        """Return the output that is still buffered. More payloads may follow."""


class JobRefusalError(Exception):
    """Ends a job and sends its message to the parent. The text of any other exception
    is not sent.
    """


def serve(open_job: Callable[[bytes], ForkedJob], limits: JobLimits) -> None:
    """Fork a process for each socket received on standard input, until the input is
    closed.

    Load everything the jobs need before this call, without starting a thread: threads
    do not survive a fork.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # With SIG_IGN the kernel reaps ended children itself; their status is not needed.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    gc.collect()
    gc.freeze()  # a collection in a child would write to, and so copy, every page it shares
    control = socket.socket(fileno=os.dup(0))
    if without := sandbox.missing():
        words = f"this system has no {' and no '.join(without)}: see protocol/THREATS.md"
        print(words, file=sys.stderr)  # noqa: T201 - the child's log
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    control.sendall(FORK_SERVER_READY)
    while True:
        request, fds, _, _ = socket.recv_fds(control, len(FORK_REQUEST), 1)
        if request != FORK_REQUEST:
            os._exit(0)
        for fd in fds:
            if os.fork() == 0:
                try:
                    control.close()
                    _carry(socket.socket(fileno=fd), open_job, limits)
                finally:  # the copy must not return to the server's loop
                    os._exit(0)
            os.close(fd)


def _carry(
    stream: socket.socket, open_job: Callable[[bytes], ForkedJob], limits: JobLimits
) -> None:
    """Run one job until its socket ends. Sends FAILED if it raises, unless out of
    memory.
    """
    frames_in, frames_out = stream.makefile("rb"), stream.makefile("wb")
    try:
        opening = read_frame_blocking(frames_in)
        if opening is None:
            return
        job = open_job(opening.payload)
        confine(limits)
        _work(frames_in, frames_out, job, limits)
    except (BrokenPipeError, ConnectionResetError):
        return  # the parent has closed the socket: the answers are not needed
    except JobRefusalError as refusal:
        _say(frames_out, FrameKind.FAILED, str(refusal).encode())
        # Read until the parent stops sending: closing with unread data would reset the
        # socket and lose the reason.
        while frames_in.read(_DRAIN_BYTES):
            pass
    except BaseException as error:  # noqa: BLE001 - any failure is reported, then the process ends
        _say(frames_out, FrameKind.FAILED)
        with contextlib.suppress(
            OSError
        ):  # standard error is a file, which this process may not write to
            # Log the type only: a message may contain user speech.
            print(f"a forked job raised {type(error).__name__}", file=sys.stderr)  # noqa: T201 - the child's log


def _work(frames_in: BinaryIO, frames_out: BinaryIO, job: ForkedJob, limits: JobLimits) -> None:
    while (frame := read_frame_blocking(frames_in)) is not None:
        signal.setitimer(signal.ITIMER_PROF, limits.step_cpu_ms / 1000)
        answers = (
            job.feed_payload(frame.payload) if frame.kind is FrameKind.DATA else job.finish_input()
        )
        for answer in answers:
            _say(frames_out, FrameKind.MESSAGE, answer)
        signal.setitimer(signal.ITIMER_PROF, 0)
        if frame.kind is FrameKind.DATA:
            _say(frames_out, FrameKind.CONSUMED, encode_count(len(frame.payload)))
        else:
            _say(frames_out, FrameKind.ENDED)


def confine(limits: JobLimits) -> None:
    """Apply ``limits`` to this process and enter the sandbox, irrevocably.

    From then on SIGPROF, the timer signal of `JobLimits.step_cpu_ms`, kills it.
    """
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    for what, allowed in (
        (resource.RLIMIT_AS, _address_space_bytes() + limits.memory_bytes),
        (resource.RLIMIT_CPU, limits.total_cpu_s),
        (resource.RLIMIT_NOFILE, limits.open_files),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (allowed, allowed))
    sandbox.close_everything(threads=limits.threads)


def _address_space_bytes() -> int:
    try:
        with open("/proc/self/statm", "rb") as statm:
            return int(statm.read().split()[0]) * _PAGE_BYTES
    except OSError:  # not Linux: assume 1 GiB for the interpreter and the libraries
        return 1 << 30


def _say(frames_out: BinaryIO, kind: FrameKind, payload: bytes = b"") -> None:
    frames_out.write(encode(Frame(kind, 0, payload)))
    frames_out.flush()
