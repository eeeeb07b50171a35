"""What a process that decodes cannot do, whoever has taken it over."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.processes.test_forked import COMMAND, ask, fails
from tests.processes.test_pool import warm_pool
from voicechat.processes import sandbox
from voicechat.processes.forked import ForkServer

MISSING = sandbox.missing()
FILES_AND_NETWORK = (
    "read {folder}/file",
    "make {folder}/new",
    "remove {folder}/file",
    "connect {port}",
)
PROCESSES = ("listen", "run", "fork", "signal {pid}", "map")

pytestmark = [
    pytest.mark.real_time,
    pytest.mark.skipif(bool(MISSING), reason=f"this kernel has no {MISSING}"),
]


@pytest.fixture
async def port() -> AsyncIterator[int]:
    async def close(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(close, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()


@pytest.mark.parametrize(
    ("without", "misdeeds"),
    [
        ((), FILES_AND_NETWORK + PROCESSES),
        (("without", "Landlock"), FILES_AND_NETWORK + PROCESSES),
        (("without", "seccomp"), FILES_AND_NETWORK),
    ],
)
async def test_a_job_touches_nothing_but_what_it_was_given(
    without: tuple[str, ...], misdeeds: tuple[str, ...], port: int, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("secret")
    server = ForkServer([*COMMAND, *without])
    for misdeed in misdeeds:
        stream = await server.fork(b"")
        assert await ask(stream, "echo a") == [b"", b"a"]
        stream.send(misdeed.format(folder=tmp_path, port=port, pid=os.getpid()).encode())
        assert await fails(stream), misdeed
        stream.close()
    await server.aclose()
    assert os.listdir(tmp_path) == ["file"]


async def test_a_job_has_nothing_of_the_servers_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("VOICECHAT_LLM__DEFAULT__API_KEY", "secret")
    server = ForkServer(COMMAND)
    await server.start()
    assert server._process is not None
    with open(f"/proc/{server._process.pid}/environ", "rb") as environ:  # noqa: ASYNC230 - in memory
        assert b"secret" not in environ.read()
    stream = await server.fork(b"")
    (environment,) = await ask(stream, "environment")
    assert b"secret" not in environment
    assert b"VOICECHAT" not in environment
    stream.close()
    await server.aclose()


async def test_a_process_that_recognises_has_none_of_it_either(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("VOICECHAT_LLM__DEFAULT__API_KEY", "secret")
    async with warm_pool() as pool:
        (pid,) = pool.pids
        with open(f"/proc/{pid}/environ", "rb") as environ:  # noqa: ASYNC230 - in memory
            assert b"secret" not in environ.read()


def test_a_kernel_without_it_is_named() -> None:
    code = """
from voicechat.processes import sandbox
sandbox.platform.machine = lambda: "sparc64"
sandbox._landlock_version = lambda: 0
assert sandbox.missing() == ("seccomp", "Landlock")
sandbox.close_everything()
open("/dev/null").close()
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_threads_may_be_allowed_and_processes_are_not() -> None:
    code = """
import os, threading
from voicechat.processes import sandbox
sandbox.close_everything(threads=True)
ran = []
thread = threading.Thread(target=ran.append, args=[1])
thread.start()
thread.join()
assert ran
try:
    os.fork()
except PermissionError:
    os._exit(7)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 7
