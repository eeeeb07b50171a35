"""A child process that a chaos tool kills and starts again."""

import asyncio
import sys


class KillableWorker:
    """A child process, and the one request that may be under way to it.

    The program prints ``ready``; then it reads a number a line, and answers each with
    the id of what it has stored.
    """

    def __init__(self, module: str, *arguments: str) -> None:
        self._command = (sys.executable, "-m", module, *arguments)
        self._process: asyncio.subprocess.Process | None = None
        self._ready = asyncio.Event()

    async def start(self) -> None:
        """Start it. Raises ``RuntimeError`` if it does not get ready."""
        self._process = await asyncio.create_subprocess_exec(
            *self._command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        if await _line(self._process) != "ready":
            raise RuntimeError("a worker did not start")
        self._ready.set()

    async def ask(self, number: int) -> str:
        """Return the id; empty when the worker died before it acknowledged."""
        await self._ready.wait()
        # Held on to: a kill puts another one in its place while the answer is awaited.
        process = self._process
        assert process is not None
        assert process.stdin is not None
        try:
            process.stdin.write(f"{number}\n".encode())
            await process.stdin.drain()
        except ConnectionError:
            return ""
        return await _line(process)

    async def kill(self) -> None:
        """Kill it, and wait for its end."""
        assert self._process is not None
        self._ready.clear()
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()


async def _line(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    line = (await process.stdout.readline()).decode()
    return line.strip() if line.endswith("\n") else ""
