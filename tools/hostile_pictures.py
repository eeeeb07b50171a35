"""Sends hostile pictures to a server by every way in: ``python -m
tools.hostile_pictures``.

Each of ``tests/pictures/bombs.py`` is sent as an address, a data URL, base64, the file
of a form and a plain body, to every endpoint that takes pictures. Every one must be
refused with a 4xx status. The time of each request is printed, less the time that as
many zero bytes take, which are sent first.
"""

import argparse
import asyncio
import base64
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from tests.compat.stage import Stage, media_stage
from tests.pictures.bombs import every_bomb
from tests.rest.live import KEY, PROJECT

KEY_HEADER = {"Authorization": f"Bearer {KEY}"}
LIMIT_S = 1.0
"""The longest that the refusal of one may take beyond its transfer."""


@dataclass(frozen=True)
class Entry:
    """One way in."""

    name: str
    send: Callable[["Sender", bytes], Awaitable[int]]


class Sender:
    """Sends pictures to one server."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._session = stage.live.session
        self.file = b""
        """What the address of ``address`` serves."""
        self.address = ""

    async def post(self, path: str, **body: Any) -> int:
        """Send a request; return its status."""
        url = self._stage.live.url + path
        async with self._session.post(url, headers=KEY_HEADER, **body) as response:
            await response.read()
            return response.status

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Serve ``file`` at ``address`` while the context lasts."""

        async def fetch(_: web.Request) -> web.Response:
            return web.Response(body=self.file, content_type="image/png")

        app = web.Application()
        app.add_routes([web.get("/picture", fetch)])
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.address = f"http://127.0.0.1:{runner.addresses[0][1]}/picture"
        try:
            yield
        finally:
            await runner.cleanup()


def data_url(content: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(content).decode()


def form(name: str, content: bytes, **fields: str) -> aiohttp.FormData:
    data = aiohttp.FormData(fields)
    data.add_field(name, content, filename="p.png", content_type="image/png")
    return data


def of_text(name: str, path: str, body: Callable[[str], object]) -> list[Entry]:
    """Return the ways in of an endpoint that takes a picture as a text."""

    async def by_address(sender: Sender, content: bytes) -> int:
        sender.file = content
        return await sender.post(path, json=body(sender.address))

    async def by_data_url(sender: Sender, content: bytes) -> int:
        return await sender.post(path, json=body(data_url(content)))

    async def by_base64(sender: Sender, content: bytes) -> int:
        if not content:
            return 400  # an empty text is no picture, which some requests need not have
        return await sender.post(path, json=body(base64.b64encode(content).decode()))

    return [
        Entry(f"{name}, address", by_address),
        Entry(f"{name}, data URL", by_data_url),
        Entry(f"{name}, base64", by_base64),
    ]


def of_form(name: str, path: str, field: str, **fields: str) -> Entry:
    async def send(sender: Sender, content: bytes) -> int:
        return await sender.post(path, data=form(field, content, **fields))

    return Entry(f"{name}, form", send)


def of_body(name: str, path: str) -> Entry:
    async def send(sender: Sender, content: bytes) -> int:
        return await sender.post(path, data=content)

    return Entry(f"{name}, body", send)


def frame(url: str) -> object:
    return {
        "easyllm_id": "default",
        "model": "Wan2.1-I2V-14B",
        "content": [
            {"type": "text", "text": "x"},
            {"type": "image_url", "image_url": {"url": url}},
        ],
    }


def page(url: str) -> object:
    return {"easyllm_id": "default", "type": "image_url", "image_url": {"url": url}}


ENTRIES = [
    *of_text("edits", "/v1/images/edits", lambda url: {"prompt": "x", "image": url}),
    of_form("edits", "/v1/images/edits", "image", prompt="x"),
    of_form("mask", "/v1/images/edits", "mask", prompt="x"),
    *of_text("videos", "/v1/videos", lambda url: {"prompt": "x", "input_reference": url}),
    of_form("videos", "/v1/videos", "input_reference", prompt="x"),
    *of_text("platform", "/any/v1/videos", lambda url: {"prompt": "x", "input_reference": url}),
    *of_text("SophNet video", f"{PROJECT}/easyllms/videogenerator/task", frame),
    *of_text("SophNet OCR", f"{PROJECT}/easyllms/image-ocr", page),
    of_form("portal", "/image/imageToText", "file"),
    of_form("portal enhance", "/image/enhanceImage", "file"),
    of_form("portal video", "/image/generateVideo", "file"),
    of_body("Spark", "/PictureToTextModel/chat"),
]


async def run(entries: list[Entry]) -> int:
    """Send everything, print what was slowest, and return how many were not refused in
    time.
    """
    wrong: list[str] = []
    worst = 0.0
    with tempfile.TemporaryDirectory(prefix="hostile-pictures-") as folder:
        async with media_stage(Path(folder)) as stage:
            sender = Sender(stage)
            async with sender.serving():
                await entries[0].send(sender, b"")  # starts the processes that decode
                for name, content in every_bomb():
                    slowest, at = 0.0, ""
                    for entry in entries:
                        began = time.monotonic()
                        await entry.send(sender, bytes(len(content)))
                        transfer_s = time.monotonic() - began
                        began = time.monotonic()
                        status = await entry.send(sender, content)
                        took_s = time.monotonic() - began - transfer_s
                        if took_s > slowest:
                            slowest, at = took_s, entry.name
                        if not 400 <= status < 500 or took_s > LIMIT_S:
                            wrong.append(f"{name}, {entry.name}: {status} after {took_s:.2f} s")
                    worst = max(worst, slowest)
                    print(f"{name}: {slowest:.2f} s at most ({at})", flush=True)
    print(f"{len(entries)} ways in; the slowest refusal took {worst:.2f} s")
    print("\n".join(wrong) if wrong else "all were refused in time")
    return len(wrong)


def main() -> None:
    """Run; the exit status is 1 if one was accepted, or refused too late."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    sys.exit(asyncio.run(run(ENTRIES)) > 0)


if __name__ == "__main__":
    main()
