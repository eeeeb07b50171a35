"""A fork server whose jobs do what their payloads say: the child of the tests of
``voicechat.processes.forked``.
"""

import ctypes
import mmap
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

from voicechat.processes import sandbox
from voicechat.processes.fork_server import JobLimits, JobRefusalError, serve

MEGABYTE = 1 << 20


class Job:
    def __init__(self, options: bytes) -> None:
        self._options = options
        self._kept: list[bytearray] = []

    def feed_payload(self, payload: bytes) -> Iterator[bytes]:
        match payload.decode().split():
            case ["echo", text]:
                yield self._options
                yield text.encode()
            case ["crash"]:
                ctypes.string_at(0)
            case ["spin"]:
                while True:
                    pass
            case ["grow"]:
                self._kept.append(bytearray(200 * MEGABYTE))
            case ["write", path]:
                Path(path).write_bytes(bytes(MEGABYTE))
            case ["read", path]:
                yield Path(path).read_bytes()
            case ["make", path]:
                os.mkdir(path)
            case ["remove", path]:
                os.unlink(path)
            case ["connect", port]:
                socket.create_connection(("127.0.0.1", int(port))).close()
            case ["listen"]:
                socket.create_server(("127.0.0.1", 0)).close()
            case ["run"]:
                os.execv(sys.executable, [sys.executable, "-c", ""])
            case ["fork"]:
                os.fork()
            case ["signal", pid]:
                os.kill(int(pid), 0)
            case ["map"]:
                mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
            case ["environment"]:
                yield repr(dict(os.environ)).encode()
            case ["refuse"]:
                raise JobRefusalError("40001 not this")
            case ["print"]:
                print("this must not get between the frames", flush=True)
            case other:
                raise ValueError(other)

    def finish_input(self) -> Iterator[bytes]:
        yield b"rest"


if __name__ == "__main__":
    limits = JobLimits(step_cpu_ms=300, memory_bytes=64 * MEGABYTE)
    match sys.argv[1:]:
        case ["broken"]:
            sys.exit(3)
        case ["without", "seccomp"]:
            sandbox._has_seccomp = lambda: False
        case ["without", "Landlock"]:
            sandbox._landlock_version = lambda: 0
        case _:
            pass
    serve(Job, limits)
