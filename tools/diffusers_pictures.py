"""Pictures by diffusers through every document's route: ``python -m
tools.diffusers_pictures --python PYTHON``.

``PYTHON`` is an interpreter that has torch, transformers, diffusers and aiohttp: a
virtual environment of its own, because they take 5.7 GB. `tools/diffusers_server.py`
runs in it, with a tiny model of random weights. A voicechat server is started as users
start it, with that one as its service for pictures; every document that has a text to
image is asked for a picture with the same seed. Each must be the picture that the
service makes by itself.
"""

import argparse
import asyncio
import base64
import hashlib
import io
import os
import socket
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
from PIL import Image

KEY = "key-of-the-environment"
CONFIG = """
[server]
port = {port}
[admission]
unquestioned_sessions = 1000000
[images.default]
provider = "openai"
base_url = "http://127.0.0.1:{back}/v1"
also = ["*"]
"""
SERVER = Path(__file__).with_name("diffusers_server.py")
READY_S = 300.0
PROMPT = "a small cat"
SEED = 42
SIZE = (64, 64)
RELAY_SIZE = "256x256"


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@asynccontextmanager
async def running(*command: str, folder: Path, ready: str) -> AsyncIterator[None]:
    """Run a program while the context lasts. It begins when ``ready`` answers 200."""
    environ = {**os.environ, "VOICECHAT_API_KEY": KEY, "VOICECHAT_DATA_DIR": str(folder / "data")}
    with open(folder / "log", "ab") as log:  # noqa: ASYNC230 - of a command
        process = await asyncio.create_subprocess_exec(
            *command, cwd=folder, env=environ, stdout=log, stderr=log
        )
    try:
        async with asyncio.timeout(READY_S), aiohttp.ClientSession() as session:
            while True:
                if process.returncode is not None:
                    raise RuntimeError(f"{command[0]} ended: {(folder / 'log').read_text()}")
                try:
                    async with session.get(ready) as response:
                        if response.status == 200:
                            break
                except aiohttp.ClientError:
                    pass
                await asyncio.sleep(0.2)
        yield
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()


class Routes:
    """The documents' ways to a picture from a text."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url

    async def _ask(self, path: str, body: object = None) -> Any:
        method = "GET" if body is None else "POST"
        async with self._session.request(method, self._url + path, json=body) as response:
            answer = await response.json()
            if response.status != 200:
                raise RuntimeError(f"{path}: {response.status} {answer}")
            return answer

    async def _fetch(self, address: str) -> bytes:
        async with aiohttp.ClientSession() as without_key, without_key.get(address) as response:
            return await response.read()

    async def openai(self) -> bytes:
        """OpenAI's API, which is also the portal's."""
        body = {"prompt": PROMPT, "seed": SEED, "response_format": "b64_json"}
        answer = await self._ask("/v1/images/generations", body)
        return base64.b64decode(answer["data"][0]["b64_json"])

    async def sophnet(self) -> bytes:
        """SophNet's tasks."""
        tasks = "/api/open-apis/projects/p/easyllms/texttoimage/task"
        body = {
            "easyllm_id": "default",
            "model": "qwen-image",
            "input": {"prompt": PROMPT},
            "parameters": {"size": f"{SIZE[0]}*{SIZE[1]}", "seed": SEED},
        }
        task = (await self._ask(tasks, body))["output"]
        async with asyncio.timeout(READY_S):
            while task["taskStatus"] not in ("SUCCEEDED", "FAILED"):
                await asyncio.sleep(0.2)
                task = (await self._ask(f"{tasks}/{task['taskId']}"))["output"]
        return await self._fetch(task["results"][0]["url"])

    async def platform(self) -> bytes:
        """A platform's pictures, as a task."""
        body = {"prompt": PROMPT, "model": "m", "seed": SEED, "response_format": "url"}
        task = await self._ask("/any/v1/images/generations?async=true", body)
        async with asyncio.timeout(READY_S):
            while task["status"] not in ("completed", "failed"):
                await asyncio.sleep(0.2)
                task = await self._ask(f"/any/v1/images/{task['id']}")
        return await self._fetch(task["data"][0]["url"])

    async def platform_at_once(self) -> bytes:
        """The same while the client waits."""
        body = {"prompt": PROMPT, "model": "m", "seed": SEED}
        answer = await self._ask("/any/v1/images/generations", body)
        return base64.b64decode(answer["data"][0]["b64_json"].partition(",")[2])

    async def relay(self) -> bytes:
        """The relay's pictures, which have no seed and other sizes."""
        answer = await self._ask("/openai/image", {"prompt": PROMPT, "n": 1, "size": RELAY_SIZE})
        item = answer["data"][0]
        return (
            await self._fetch(item["url"]) if "url" in item else base64.b64decode(item["b64_json"])
        )


def about(content: bytes) -> str:
    with Image.open(io.BytesIO(content)) as image:
        colours = image.convert("RGB").getcolors(1 << 24) or []
        return (
            f"{image.format} {image.width}x{image.height}, {len(colours)} colours, "
            f"SHA-256 {hashlib.sha256(image.convert('RGB').tobytes()).hexdigest()[:12]}"
        )


async def run(python: str) -> int:
    """Print each route's picture; return how many differ from the service's own."""
    back, port = free_port(), free_port()
    wrong = 0
    with tempfile.TemporaryDirectory(prefix="diffusers-") as name:
        folder = Path(name)
        (folder / "voicechat.toml").write_text(CONFIG.format(port=port, back=back), "utf-8")
        async with (
            running(
                python,
                str(SERVER),
                str(back),
                folder=folder,
                ready=f"http://127.0.0.1:{back}/v1/models",
            ),
            running(
                *(sys.executable, "-m", "voicechat", "serve"),
                folder=folder,
                ready=f"http://127.0.0.1:{port}/readyz",
            ),
            aiohttp.ClientSession(headers={"Authorization": f"Bearer {KEY}"}) as session,
        ):

            async def by_itself(**asked: object) -> str:
                url = f"http://127.0.0.1:{back}/v1/images/generations"
                async with session.post(url, json={"prompt": PROMPT, **asked}) as response:
                    item = (await response.json())["data"][0]
                return about(base64.b64decode(item["b64_json"]))

            expected = await by_itself(seed=SEED)
            print(f"diffusers itself: {expected}")
            routes = Routes(session, f"http://127.0.0.1:{port}")
            for route in (
                routes.openai,
                routes.sophnet,
                routes.platform,
                routes.platform_at_once,
                routes.relay,
            ):
                found = about(await route())
                if route == routes.relay:
                    expected = await by_itself(size=RELAY_SIZE)
                right = found == expected
                wrong += not right
                print(f"{route.__name__}: {found}{'' if right else ' DIFFERS'}", flush=True)
    return wrong


def main() -> None:
    """Run; the exit status is 1 if a picture is another one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", required=True, help="an interpreter with diffusers")
    sys.exit(asyncio.run(run(parser.parse_args().python)) > 0)


if __name__ == "__main__":
    main()
