"""A child for the tests: echoes what it is given, or misbehaves when told to."""

import ctypes
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator

from voicechat.processes.child import serve


class EchoJob:
    open_jobs = 0

    def __init__(self, options: bytes) -> None:
        EchoJob.open_jobs += 1
        self._options = options
        self._total_bytes = 0

    def feed_payload(self, payload: bytes) -> Iterator[bytes]:
        self._total_bytes += len(payload)
        match payload:
            case b"crash":
                os._exit(3)
            case b"hang":
                while True:
                    pass
            case b"hold the lock":
                ctypes.PyDLL(None).sleep(60)
            case b"raise":
                raise ValueError("what a user said")
            case b"print":
                print("a library talks to the terminal")
            case b"open jobs":
                yield str(EchoJob.open_jobs).encode()
            case b"inherited":
                yield ",".join(sorted(os.listdir("/proc/self/fd"), key=int)).encode()
            case b"nice":
                yield str(os.nice(0)).encode()
            case b"count":
                number = 0
                while True:
                    number += 1
                    time.sleep(0.01)
                    yield str(number).encode()
            case _ if payload.startswith(b"sleep "):
                time.sleep(float(payload[6:]))
            case _:
                pass
        yield self._options + payload

    def finish_input(self) -> Iterable[bytes]:
        return [f"{self._total_bytes} bytes".encode()]

    def close(self) -> None:
        EchoJob.open_jobs -= 1


def load() -> Callable[[bytes], EchoJob]:
    if "--never-ready" in sys.argv:
        sys.exit(1)
    if "--refuse" in sys.argv:
        raise ValueError("no such model")
    if "--slow-start" in sys.argv:
        time.sleep(60)
    return EchoJob


if __name__ == "__main__":
    serve(load, niceness=3)
