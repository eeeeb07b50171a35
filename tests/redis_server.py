"""A Redis server of the tests' own."""

import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import ConnectionError as RedisConnectionError
from redis import Redis
from redis.exceptions import BusyLoadingError

from tests.unused_port import unused_port

_PATIENCE_S, _LOOK_S = 60.0, 0.02
PASSWORD = "secret-of-the-tests"


class RedisServer:
    """A server on a free port of loopback, which keeps nothing when it stops."""

    def __init__(self, program: str, folder: Path) -> None:
        self._program, self._folder = program, folder
        self._process: subprocess.Popen[bytes] | None = None
        self.port = unused_port()

    @property
    def url(self) -> str:
        """The address, with the password."""
        return f"redis://:{PASSWORD}@127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self._folder)]
        options += ["--save", "", "--appendonly", "no", "--requirepass", PASSWORD]
        self._process = subprocess.Popen([self._program, *options], stdout=subprocess.DEVNULL)
        with Redis.from_url(self.url) as client:
            for _ in range(int(_PATIENCE_S / _LOOK_S)):
                try:
                    client.ping()
                except (RedisConnectionError, BusyLoadingError):
                    assert self._process.poll() is None, "redis-server ended"
                    time.sleep(_LOOK_S)
                else:
                    return
        raise AssertionError("redis-server does not answer")

    def stop(self) -> None:
        """Kill it. What it kept is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """A running server; the test that stops it starts it again."""
    program = shutil.which("redis-server") or shutil.which("valkey-server")
    if program is None:
        pytest.skip("needs redis-server or valkey-server (Debian: apt-get install redis-server)")
    with tempfile.TemporaryDirectory() as folder:
        server = RedisServer(program, Path(folder))
        server.start()
        try:
            yield server
        finally:
            server.stop()
