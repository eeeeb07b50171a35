"""The child's side of one process for each stream: a warm process that forks a copy of
itself when asked to.

A copy has the libraries loaded already and shares their memory, so that it costs a few
milliseconds and a few MB. It carries one job over a socket of its own, in the frames of
`voicechat.processes.frames`: OPEN with the job's options comes first, then DATA, each
answered by any number of MESSAGE and one CONSUMED, and FINISH, answered by MESSAGE and
ENDED, after which DATA may go on. FAILED is the last frame of a job that raised. A copy
that crashes, or is killed by one of its limits, just closes its socket.
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
from voicechat.processes.fork_protocol import READY, REQUEST
from voicechat.processes.frames import Frame, FrameKind, encode, encode_count, read_frame_blocking

_DRAIN_BYTES = 1 << 16
_PAGE_BYTES = resource.getpagesize()


@dataclass(frozen=True, slots=True, kw_only=True)
class JobLimits:
    """What the kernel allows one forked process, besides what
    `voicechat.processes.sandbox` takes away.

    It cannot write to files and keeps no core dump.
    """

    step_cpu_ms: int = 500
    """CPU time of the work on one payload; past it the process is killed."""
    total_cpu_s: int = 3_600
    memory_bytes: int = 256 << 20
    """Address space beyond what the process has when it begins."""
    open_files: int = 16


class ForkedJob(Protocol):
    """What a forked process does. What it needs to be open it opens when it is made:
    later it cannot.
    """

    def feed(self, payload: bytes) -> Iterable[bytes]:
        """Work off a payload; give the answers that are due."""

    def finish(self) -> Iterable[bytes]:
        """Give what is held back. More may be fed afterwards."""


class JobRefusalError(Exception):
    """Ends a job with a reason that the other side is to read; any other exception ends
    it with its type alone.
    """


def serve(open_job: Callable[[bytes], ForkedJob], limits: JobLimits) -> None:
    """Fork a process for each socket that arrives on standard input, until the other
    end of that closes.

    Everything the jobs need must be loaded before, without starting a thread: threads
    do not survive a fork.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # The kernel forgets ended children by itself: nobody asks for their status.
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
    control.sendall(READY)
    while True:
        request, fds, _, _ = socket.recv_fds(control, len(REQUEST), 1)
        if request != REQUEST:
            os._exit(0)
        for fd in fds:
            if os.fork() == 0:
                try:
                    control.close()
                    _carry(socket.socket(fileno=fd), open_job, limits)
                finally:  # whatever happened: this copy must never become a server itself
                    os._exit(0)
            os.close(fd)


def _carry(
    stream: socket.socket, open_job: Callable[[bytes], ForkedJob], limits: JobLimits
) -> None:
    """Carry one job to the end of its socket. What it raises is told, unless memory is
    too short even for that.
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
        return  # nobody wants the answers any more
    except JobRefusalError as refusal:
        _say(frames_out, FrameKind.FAILED, str(refusal).encode())
        # Closed before the other side has stopped sending, the socket would be reset,
        # and the reason lost.
        while frames_in.read(_DRAIN_BYTES):
            pass
    except BaseException as error:  # noqa: BLE001 - whatever it is, this process ends and says so
        _say(frames_out, FrameKind.FAILED)
        with contextlib.suppress(
            OSError
        ):  # standard error is a file, which this process may not write to
            # The type only: a message may hold what a user said.
            print(f"a forked job raised {type(error).__name__}", file=sys.stderr)  # noqa: T201 - the child's log


def _work(frames_in: BinaryIO, frames_out: BinaryIO, job: ForkedJob, limits: JobLimits) -> None:
    while (frame := read_frame_blocking(frames_in)) is not None:
        signal.setitimer(signal.ITIMER_PROF, limits.step_cpu_ms / 1000)
        answers = job.feed(frame.payload) if frame.kind is FrameKind.DATA else job.finish()
        for answer in answers:
            _say(frames_out, FrameKind.MESSAGE, answer)
        signal.setitimer(signal.ITIMER_PROF, 0)
        if frame.kind is FrameKind.DATA:
            _say(frames_out, FrameKind.CONSUMED, encode_count(len(frame.payload)))
        else:
            _say(frames_out, FrameKind.ENDED)


def confine(limits: JobLimits) -> None:
    """Put ``limits`` on this process, and close its sandbox, for ever.

    SIGPROF, which `JobLimits.step_cpu_ms` sends, then kills it.
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
    sandbox.close_everything()


def _address_space_bytes() -> int:
    try:
        with open("/proc/self/statm", "rb") as statm:
            return int(statm.read().split()[0]) * _PAGE_BYTES
    except OSError:  # not Linux: the library and the interpreter take about this
        return 1 << 30


def _say(frames_out: BinaryIO, kind: FrameKind, payload: bytes = b"") -> None:
    frames_out.write(encode(Frame(kind, 0, payload)))
    frames_out.flush()
