"""A server of recordings on 127.0.0.3, which stands for the public internet."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from tests.tasks.transcription_server import wav


async def _give(request: web.Request) -> web.Response:
    return web.Response(body=wav(2.0), status=200 if request.path == "/a.wav" else 404)


@asynccontextmanager
async def recording_host() -> AsyncIterator[int]:
    """Serve ``/a.wav``, two seconds long, and nothing else; gives the port."""
    app = web.Application()
    app.router.add_get("/{path}", _give)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.3", 0).start()
    try:
        port: int = runner.addresses[0][1]
        yield port
    finally:
        await runner.cleanup()
