"""The cluster under test: HAProxy with the configuration of ``deploy/``, Redis, and
servers with scripted services, all on this machine.
"""

import asyncio
import os
import re
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiohttp

from tests.unused_port import unused_port
from tools.cluster_chaos.script import GREETING
from voicechat.bench.resource_usage import usage_of

ROOT = Path(__file__).parent.parent.parent
KEY = "key-of-the-cluster"
READY_S = 120.0
STOP_S = 60.0
LOOK_S = 0.05
CONFIG = f"""
[server]
workers = 1
max_sessions = 10000
drain_s = 20.0
speech_cache_mib = 0
[admission]  # conversations are counted, not refused
unquestioned_sessions = 1000000
[asr.default]
provider = "tools.cluster_chaos.services:open_recognizer"
[llm.default]
provider = "tools.cluster_chaos.services:open_chat_model"
[tts.default]
provider = "tools.cluster_chaos.services:open_synthesizer"
[agents.default]
greeting = "{GREETING}"
"""


class ClusterError(Exception):
    """A part of the cluster does not start or does not end."""


class Part:
    """A process of the cluster."""

    def __init__(self, command: list[str], folder: Path, environ: dict[str, str]) -> None:
        self._command, self._folder, self._environ = command, folder, environ
        self.process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start the process. Its output goes to ``log`` in its folder."""
        with open(self._folder / "log", "ab") as log:  # noqa: ASYNC230 - of a command
            self.process = await asyncio.create_subprocess_exec(
                *self._command,
                cwd=self._folder,
                env={**os.environ, **self._environ},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    async def wait_until_answers(self, url: str) -> None:
        """Wait until ``url`` answers with 200. Raises ``ClusterError``, also if the
        process ends.
        """
        try:
            async with asyncio.timeout(READY_S), aiohttp.ClientSession() as http:
                while not await _answers(http, url):
                    if self.process is None or self.process.returncode is not None:
                        raise ClusterError((self._folder / "log").read_text()[-2000:])
                    await asyncio.sleep(LOOK_S)
        except TimeoutError:
            raise ClusterError(f"{url} does not answer within {READY_S:g} s") from None

    async def kill(self) -> None:
        """Kill the process with its children."""
        process = self.process
        if process is not None and process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()

    async def terminate(self) -> None:
        """Ask the process to end, and wait. Raises ``ClusterError``."""
        process = self.process
        if process is not None and process.returncode is None:
            process.terminate()
            try:
                async with asyncio.timeout(STOP_S):
                    await process.wait()
            except TimeoutError:
                raise ClusterError(f"{self._folder.name} does not end") from None


class Server(Part):
    """One server of the cluster, on a port of its own."""

    def __init__(self, folder: Path, environ: dict[str, str]) -> None:
        folder.mkdir()
        (folder / "voicechat.toml").write_text(CONFIG, "utf-8")
        self.port = unused_port()
        super().__init__(
            [sys.executable, "-m", "voicechat", "serve", "--port", str(self.port)],
            folder,
            {
                "PYTHONPATH": str(ROOT),
                "VOICECHAT_API_KEY": KEY,
                "VOICECHAT_DATA_DIR": str(folder / "data"),
                **environ,
            },
        )

    @property
    def cpu_s(self) -> float:
        """The CPU time of the server so far. Raises ``ClusterError`` without it."""
        usage = None if self.process is None else usage_of(self.process.pid)
        if usage is None:
            raise ClusterError("CPU time is read from /proc of Linux, of a server that runs")
        return usage.cpu_s

    async def wait_until_ready(self) -> None:
        """Wait until the server takes sessions. Raises ``ClusterError``."""
        await self.wait_until_answers(f"http://127.0.0.1:{self.port}/readyz")


class Cluster:
    """The running parts."""

    def __init__(self, servers: list[Server], url: str, redis: Part | None) -> None:
        self.servers, self.url, self.redis = servers, url, redis


def proxy_configuration(servers: list[int], port: int, statistics_port: int) -> str:
    """Return ``deploy/haproxy.cfg`` with the ports of this cluster's servers, and for
    as many connections as an ordinary limit of descriptors allows.
    """
    text = (ROOT / "deploy" / "haproxy.cfg").read_text("utf-8")
    text = text.replace("maxconn 20000", "maxconn 4000")
    text = re.sub(r"\nresolvers containers\n(?:    .*\n)+", "\n", text)
    text = text.replace(" resolvers containers init-addr libc,none", "")
    lines = "".join(
        f"    server voicechat-{number} 127.0.0.1:{server}\n"
        for number, server in enumerate(servers, 1)
    )
    text = re.sub(r"(?:    server \S+ \S+\n)+", lines, text)
    return text.replace("bind :8000", f"bind 127.0.0.1:{port}").replace(
        "bind :8404", f"bind 127.0.0.1:{statistics_port}"
    )


@asynccontextmanager
async def running_cluster(
    folder: Path, servers: int, *, redis: bool = True, environ: dict[str, str] | None = None
) -> AsyncIterator[Cluster]:
    """Run a cluster while the context lasts. ``environ`` is added to the environment of
    each server.

    Raises ``ClusterError`` if a part is missing or does not start.
    """
    haproxy = shutil.which("haproxy", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    program = shutil.which("redis-server") or shutil.which("valkey-server")
    if haproxy is None or (redis and program is None):
        raise ClusterError("needs haproxy and redis-server (Debian packages of these names)")
    async with AsyncExitStack() as parts:
        store: Part | None = None
        if program is not None and redis:
            kept, redis_port = folder / "redis", unused_port()
            kept.mkdir()
            options = ["--port", str(redis_port), "--bind", "127.0.0.1", "--appendonly", "yes"]
            store = Part([program, *options], kept, {})
            await store.start()
            parts.push_async_callback(store.kill)
        made = [Server(folder / f"server-{n}", environ or {}) for n in range(1, servers + 1)]
        for server in made:
            parts.push_async_callback(server.kill)
            await server.start()
        for server in made:
            await server.wait_until_ready()
        port = unused_port()
        (folder / "haproxy").mkdir()
        (folder / "haproxy" / "haproxy.cfg").write_text(
            proxy_configuration([server.port for server in made], port, unused_port()), "utf-8"
        )
        proxy = Part([haproxy, "-db", "-f", "haproxy.cfg"], folder / "haproxy", {})
        await proxy.start()
        parts.push_async_callback(proxy.kill)
        url = f"http://127.0.0.1:{port}"
        await proxy.wait_until_answers(f"{url}/readyz")
        yield Cluster(made, url, store)


async def _answers(http: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with http.get(url) as response:
            return response.status == 200
    except aiohttp.ClientError:
        return False
