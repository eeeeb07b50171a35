"""Runs the bench's server as a child process."""

import asyncio
import os
import re
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from voicechat.bench.child import READY
from voicechat.bench.timestamps import Moments, TurnTimestamps
from voicechat.errors import VoiceChatError
from voicechat.processes import python

START_S = 60.0
STOP_S = 15.0
"""Time for a server without sessions to stop; then it is killed."""
TIMESTAMPS_FOLDER = "@timestamps@"
"""Placeholder in a configuration for the folder of the services' timestamps."""
EXIT_S = 2.0
"""Time to exit for a server that has written its report."""

SCRIPTED = f"""
[server]
workers = 1
port = 0
max_sessions = 10000
drain_s = 0.0
speech_cache_mib = 0
[admission]  # the bench measures overload, so admission control is off
busy_refuse_percent = 1e9
encoding_lag_refuse_ms = 1e9
loop_lag_refuse_ms = 1e9
detection_lag_refuse_ms = 1e9
waiting_streams_refuse = 1000000000
[asr.default]
provider = "voicechat.bench.services:open_recognizer"
timestamps = "{TIMESTAMPS_FOLDER}"
[llm.default]
provider = "voicechat.bench.services:open_chat_model"
[tts.default]
provider = "voicechat.bench.services:open_synthesizer"
"""
EMBEDDED = """
[server]
workers = 1
port = 0
drain_s = 0.0
"""

_ADDRESS = re.compile(r"(https?://\S+)/#key=(\S+)")


class BenchError(VoiceChatError):
    """The bench failed because its server did not start or stop."""


@dataclass(slots=True)
class BenchServer:
    """A running server. The fields from ``collector_pauses`` on are set once it has
    stopped.
    """

    url: str
    key: str
    pid: int
    collector_pauses: int | None = None
    longest_pause_ms: float | None = None
    timestamps: dict[int, Moments] = field(default_factory=dict)
    """The timestamps of the scripted services, by turn."""


@dataclass(frozen=True, slots=True)
class Cores:
    """The cores reserved for the server and for the clients; None: any core."""

    server: int | None = None
    client: int | None = None

    def __str__(self) -> str:
        """Format it for a report."""
        if self.server is None:
            return "server and clients on any core"
        return f"server on core {self.server}, clients on core {self.client}"


def separate_cores() -> Cores:
    """Reserve one core each if the machine has two and the system supports affinity."""
    allowed = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    return Cores(allowed[0], allowed[1]) if len(allowed) > 1 else Cores()


@contextmanager
def running_on(core: int | None) -> Iterator[None]:
    """Pin this process to one core while the context lasts."""
    if core is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@asynccontextmanager
async def bench_server(config: str, core: int | None) -> AsyncIterator[BenchServer]:
    """Run a server with this configuration while the context lasts. It logs warnings to
    stderr.

    Raises BenchError if it is not ready within 60 s or does not stop within 15 s.
    """
    with tempfile.TemporaryDirectory(prefix="voicechat-bench-") as name:
        directory = Path(name)
        timestamps = directory / "timestamps"
        timestamps.mkdir()
        (directory / "bench.toml").write_text(config.replace(TIMESTAMPS_FOLDER, str(timestamps)))
        options = [str(directory / "bench.toml"), str(directory / "data")]
        options += [] if core is None else [f"--core={core}"]
        process = await asyncio.create_subprocess_exec(
            *python.command("voicechat.bench.child", *options),
            stdout=asyncio.subprocess.PIPE,
            env=python.environment(),
        )
        assert process.stdout is not None
        try:
            server = await _ready(process.stdout, process.pid)
            yield server
            process.send_signal(signal.SIGTERM)
            await _last_words(process.stdout, server)
            server.timestamps = TurnTimestamps.read_from(timestamps)
        finally:
            await _end(process)


async def _ready(lines: asyncio.StreamReader, pid: int) -> BenchServer:
    try:
        async with asyncio.timeout(START_S):
            async for line in lines:
                address = _ADDRESS.search(line.decode())
                if line.startswith(READY.encode()) and address is not None:
                    return BenchServer(address[1], address[2], pid)
    except TimeoutError:
        raise BenchError(f"the server was not ready within {START_S:g} s") from None
    raise BenchError("the server ended before it was ready; its own words are above")


async def _last_words(lines: asyncio.StreamReader, server: BenchServer) -> None:
    """Read the server's report, its last line of output."""
    last = b""
    try:
        async with asyncio.timeout(STOP_S):
            async for line in lines:
                last = line
    except TimeoutError:
        raise BenchError(f"the server did not end within {STOP_S:g} s") from None
    if not last.startswith(b"{"):
        raise BenchError("the server did not end in order; its own words are above")
    account = orjson.loads(last)
    server.collector_pauses = account["pauses"]
    server.longest_pause_ms = account["longest_us"] / 1000


async def _end(process: asyncio.subprocess.Process) -> None:
    """Stop the process: wait 2 s, then terminate it, then kill it.

    A process that is about to exit must not be signalled: Popen would reap its exit
    status before the event loop does.
    """
    for stop in (None, process.terminate, process.kill):
        if stop is not None:
            stop()
        try:
            async with asyncio.timeout(EXIT_S if stop is None else STOP_S):
                await process.wait()
            return
        except TimeoutError:
            continue
