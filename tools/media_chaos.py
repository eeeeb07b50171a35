"""Whether media tasks survive their server: ``python -m tools.media_chaos``.

A server is started as users start it, and asked for pictures and videos, half of each,
whose back end is a scripted one in this process. While the tasks are performed the
server, with all its processes, is killed again and again (SIGKILL) and started anew. At
the end each task must have exactly one result that can be fetched, and no video may
have been begun twice at the back end. When the server is killed between the back end's
answer and the note of it, the request is repeated with the same idempotency key, which
the back end honours; ``--forgetful``: it does not.
"""

import argparse
import asyncio
import os
import random
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from tests.compat.vendors import PICTURE, VIDEO, Vendors, scripted_vendors

KEY = "key-of-the-environment"
CONFIG = """
[server]
port = {port}
workers = 2
[admission]
unquestioned_sessions = 1000000
[transcription]
workers = 4
max_attempts = 1000
[images.default]
provider = "openai"
base_url = "{url}/v1"
[videos.default]
provider = "openai"
base_url = "{url}/v1"
poll_s = 0.2
"""
READY_S = 120.0
END_S = 900.0


class Chaos:
    """One run."""

    def __init__(self, folder: Path, vendors: Vendors, port: int) -> None:
        self._folder = folder
        self._url = f"http://127.0.0.1:{port}"
        self._vendors = vendors
        (folder / "voicechat.toml").write_text(
            CONFIG.format(port=port, url=vendors.base_url), "utf-8"
        )
        self._process: asyncio.subprocess.Process | None = None
        self._session = aiohttp.ClientSession(headers={"Authorization": f"Bearer {KEY}"})

    async def start(self) -> None:
        """Start the server, and wait until it is ready."""
        environ = {
            **os.environ,
            "VOICECHAT_API_KEY": KEY,
            "VOICECHAT_DATA_DIR": str(self._folder / "data"),
        }
        with open(self._folder / "log", "ab") as log:  # noqa: ASYNC230 - of a command
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "voicechat", "serve"),
                cwd=self._folder,
                env=environ,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        async with asyncio.timeout(READY_S):
            while True:
                try:
                    async with self._session.get(f"{self._url}/readyz") as response:
                        if response.status == 200:
                            return
                except aiohttp.ClientError:
                    pass
                await asyncio.sleep(0.2)

    async def kill(self) -> None:
        """Kill the server and all its processes."""
        if self._process is None or self._process.returncode is not None:
            return
        os.killpg(self._process.pid, signal.SIGKILL)
        await self._process.wait()

    async def submit(self, kind: str, number: int) -> str:
        """Submit a task until it is acknowledged, and return its id."""
        path = "/chaos/v1/videos" if kind == "video" else "/chaos/v1/images/generations?async=true"
        body = {"prompt": f"{kind} {number}", "model": "m", "response_format": "url"}
        async with asyncio.timeout(END_S):
            while True:
                try:
                    async with self._session.post(self._url + path, json=body) as response:
                        if response.status == 200:
                            return str((await response.json())["id"])
                except aiohttp.ClientError:
                    pass
                await asyncio.sleep(0.2)

    async def result(self, kind: str, task_id: str) -> str:
        """Wait for a task's end; return its status, and whether its result is right."""
        async with asyncio.timeout(END_S):
            while True:
                try:
                    async with self._session.get(
                        f"{self._url}/chaos/v1/{kind}s/{task_id}"
                    ) as response:
                        task = await response.json()
                    if response.status == 404:
                        return "lost"
                    if task.get("status") in ("completed", "failed"):
                        return await self._checked(kind, task)
                except aiohttp.ClientError:
                    pass
                await asyncio.sleep(0.2)

    async def _checked(self, kind: str, task: dict[str, Any]) -> str:
        if task["status"] == "failed":
            return f"failed: {task.get('error')}"
        address = f"{self._url}/chaos/v1/videos/{task['id']}/content"
        if kind == "image":
            address = task["data"][0]["url"]
        async with self._session.get(address) as response:
            content = await response.read()
        return "right" if content == (VIDEO if kind == "video" else PICTURE) else "wrong content"

    async def aclose(self) -> None:
        """End the server."""
        await self.kill()
        await self._session.close()


@asynccontextmanager
async def staging(port: int) -> AsyncIterator[tuple[Chaos, Vendors]]:
    with tempfile.TemporaryDirectory(prefix="media-chaos-") as folder:
        async with scripted_vendors() as vendors:
            vendors.polls = 3
            chaos = Chaos(Path(folder), vendors, port)
            try:
                await chaos.start()
                yield chaos, vendors
            finally:
                await chaos.aclose()


async def run(tasks: int, kills: int, port: int, *, forgetful: bool) -> int:
    """Run, print what became of the tasks, and return how many are not right."""
    rng = random.Random(7)
    async with staging(port) as (chaos, vendors):
        vendors.knows_keys = not forgetful
        kinds = ["video" if number % 2 else "image" for number in range(tasks)]
        killed = 0

        async def killing() -> None:
            nonlocal killed
            while killed < kills:
                await asyncio.sleep(rng.uniform(2.0, 6.0))
                await chaos.kill()
                killed += 1
                await chaos.start()

        async def everything() -> list[str]:
            ids = [await chaos.submit(kind, number) for number, kind in enumerate(kinds)]
            return await asyncio.gather(*map(chaos.result, kinds, ids))

        async with asyncio.TaskGroup() as group:
            group.create_task(killing())
            outcomes = await group.create_task(everything())
        asked = Counter(str(body["prompt"]) for path, body in vendors.asked if path == "/v1/videos")
        wanted = sum(kind == "video" for kind in kinds)
    repeated = sum(number > 1 for number in asked.values())
    twice = len(vendors.jobs) - wanted
    print(f"{tasks} tasks, {killed} kills: {dict(Counter(outcomes))}")
    print(f"videos requested more than once at the back end: {repeated}, begun twice: {twice}")
    return sum(outcome != "right" for outcome in outcomes) + (0 if forgetful else twice)


def main() -> None:
    """Run; the exit status is 1 if a task has no right result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=200)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--port", type=int, default=8765)
    parser.add_argument("--forgetful", action="store_true")
    arguments = parser.parse_args()
    wrong = run(arguments.tasks, arguments.kills, arguments.port, forgetful=arguments.forgetful)
    sys.exit(asyncio.run(wrong) > 0)


if __name__ == "__main__":
    main()
