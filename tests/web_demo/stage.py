"""What the browser tests stand on: a server of their own, a network that can be cut, a
recording as microphone.
"""

import os
import re
import select
import shutil
import socket
import subprocess
import sys
import threading
import time
import wave
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.request import urlopen

from tests.patience import PATIENT
from tests.unused_port import unused_port

SPEECH_RATE_HZ = 16_000
_LAST_LOUD_MS = (
    "Math.max(0, ...loudness.filter(([, level]) => level > 0.003).map(([, , at]) => at))"
)
SILENT_FOR_A_SECOND = f"() => stopped.length && soundMs() > {_LAST_LOUD_MS} + 1000"
"""Whether the loudspeaker has been told to stop, and has been silent for a second."""
SOUND_AFTER_STOP_MS = f"{_LAST_LOUD_MS} - stopped[0][1]"
"""How long something was heard after the loudspeaker had confirmed the first stop. On a
busy machine the browser's clock of the sound jumps by some hundred milliseconds: compare
it with the seconds that were left of the reply.
"""
_ADDRESS = re.compile(r"(http://127\.0\.0\.1:\d+)/(#key=\S+)")


def chromium() -> str | None:
    """The Chromium of the system, if there is one."""
    return shutil.which("chromium") or shutil.which("chromium-browser")


@contextmanager
def serving(data_dir: Path) -> Iterator[tuple[str, str]]:
    """Run a server on embedded services; gives its address and the fragment with its
    key.
    """
    environ = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("VOICECHAT_", "OPENAI_"))
    }
    environ["VOICECHAT_DATA_DIR"] = str(data_dir)
    environ.update(PATIENT)
    command = [sys.executable, "-m", "voicechat", "serve", "--port", str(unused_port())]
    log = data_dir / "server.log"
    with (
        log.open("w") as output,
        subprocess.Popen(
            command, cwd=data_dir, env=environ, stdout=output, stderr=subprocess.STDOUT
        ) as server,
    ):
        try:
            yield _address(server, log)
        finally:
            server.terminate()
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                server.kill()


def _address(
    server: "subprocess.Popen[bytes]", log: Path, within_s: float = 120
) -> tuple[str, str]:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline and server.poll() is None:
        if found := _ADDRESS.search(log.read_text()):
            return found[1], found[2]
        time.sleep(0.1)
    raise AssertionError("the server did not start: " + log.read_text())


def write_microphone(path: Path, speech: bytes) -> None:
    """Write what the microphone hears, over and over: the speech (s16le mono 16 kHz)
    between two pauses.
    """
    silence = bytes(SPEECH_RATE_HZ * 2 * 4 // 10)
    with wave.open(str(path), "wb") as recording:
        recording.setparams((1, 2, SPEECH_RATE_HZ, 0, "NONE", ""))
        recording.writeframes(silence + speech + 3 * silence)


class Network:
    """A TCP proxy before the server: what the browser's network is, and what can be
    cut.
    """

    def __init__(self, server_url: str) -> None:
        self._target = ("127.0.0.1", int(server_url.rsplit(":", 1)[1]))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._open: set[socket.socket] = set()
        self._up = True
        self._closed = False
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def cut(self) -> None:
        """Break every connection, and refuse new ones."""
        self._up = False
        for connection in list(self._open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def restore(self) -> None:
        """Take connections again."""
        self._up = True

    def close(self) -> None:
        """Cut it for good, and wait for its threads."""
        self._closed = True
        self.cut()
        self._listener.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
        self._listener.close()

    def _accept(self) -> None:
        while not self._closed:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if not self._up:
                client.close()
                continue
            thread = threading.Thread(target=self._carry, args=(client,))
            self._threads.append(thread)
            thread.start()

    def _carry(self, client: socket.socket) -> None:
        with client, socket.create_connection(self._target) as server:
            self._open |= {client, server}
            other = {client: server, server: client}
            with suppress(OSError):
                while True:
                    for source in select.select([client, server], [], [])[0]:
                        data = source.recv(65536)
                        if not data:
                            return
                        other[source].sendall(data)
            self._open -= {client, server}


def wait_ready(url: str, within_s: float = 120) -> None:
    """Wait until the server takes sessions."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        with suppress(OSError), urlopen(f"{url}/readyz", timeout=5) as answer:
            if answer.status == 200:
                return
        time.sleep(0.1)
    raise AssertionError("the server is not ready")
