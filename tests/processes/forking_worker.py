"""A fork server whose jobs do what their payloads say: the child of the tests of ``voicechat.processes.forked``."""

import ctypes
import sys
from collections.abc import Iterator
from pathlib import Path

from voicechat.processes.fork_server import JobLimits, JobRefusalError, serve

MEGABYTE = 1 << 20


class Job:
    def __init__(self, options: bytes) -> None:
        self._options = options
        self._kept: list[bytearray] = []

    def feed(self, payload: bytes) -> Iterator[bytes]:
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
            case ["refuse"]:
                raise JobRefusalError("40001 not this")
            case ["print"]:
                print("this must not get between the frames", flush=True)
            case other:
                raise ValueError(other)

    def finish(self) -> Iterator[bytes]:
        yield b"rest"


if __name__ == "__main__":
    limits = JobLimits(step_cpu_ms=300, memory_bytes=64 * MEGABYTE)
    serve(Job, limits) if sys.argv[1:] != ["broken"] else sys.exit(3)
