"""A server of one file that can misbehave: cut connections, forget ranges, change the
file, be slow.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web


@dataclass
class FileServer:
    """What it serves and how; ``asked`` are the Range headers that came."""

    content: bytes
    url: str = ""
    etag: str | None = None
    knows_ranges: bool = True
    cut_after: list[int] = field(default_factory=list)
    """Bytes after which the connections of the next requests are cut."""
    statuses: list[int] = field(default_factory=list)
    """Answers to the next requests."""
    hold_after: int | None = None
    """Bytes after which everything stands still."""
    length_told: bool = True
    asked: list[str | None] = field(default_factory=list)
    held: asyncio.Event = field(default_factory=asyncio.Event)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request.headers.get("Range"))
        if self.statuses:
            return web.Response(status=self.statuses.pop(0))
        etag = self.etag or '"' + hashlib.sha256(self.content).hexdigest()[:16] + '"'
        begin, status = 0, 200
        if (
            self.knows_ranges
            and "Range" in request.headers
            and request.headers.get("If-Range") == etag
        ):
            begin, status = (
                int(request.headers["Range"].removeprefix("bytes=").removesuffix("-")),
                206,
            )
            if begin >= len(self.content):
                return web.Response(status=416)
        response = web.StreamResponse(status=status, headers={"ETag": etag})
        if status == 206:
            response.headers["Content-Range"] = (
                f"bytes {begin}-{len(self.content) - 1}/{len(self.content)}"
            )
        if self.length_told:
            response.content_length = len(self.content) - begin
        await response.prepare(request)
        if self.cut_after:
            await response.write(self.content[begin : begin + self.cut_after.pop(0)])
            assert request.transport is not None
            request.transport.close()
            return response
        if self.hold_after is not None:
            await response.write(self.content[begin : begin + self.hold_after])
            self.held.set()
            await asyncio.Event().wait()
        await response.write(self.content[begin:])
        return response


@asynccontextmanager
async def serving(server: FileServer, name: str) -> AsyncIterator[FileServer]:
    """Serve on a free port; ``server.url`` ends in ``name``."""
    app = web.Application()
    app.router.add_get("/{path:.*}", server.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    server.url = f"http://127.0.0.1:{port}/models/{name}"
    try:
        yield server
    finally:
        await runner.cleanup()
