"""A scripted OpenAI-compatible service on a socket of its own."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import BodyPartReader, web

from tests.unused_port import unused_port

Answer = Callable[[web.Request, web.StreamResponse], Awaitable[None]]


@dataclass
class Asked:
    """One request; ``fields`` of a form are texts, and its file the bytes of
    ``file``.
    """

    path: str
    authorization: str | None
    body: dict[str, object] = field(default_factory=dict)
    fields: list[tuple[str, str]] = field(default_factory=list)
    file: bytes = b""
    query: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


class Service:
    """Answers as told; remembers what it was asked and over how many connections."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        """For the requests in turn; the last one for all that follow."""
        self.status = 200
        self.headers = {"Content-Type": "text/event-stream"}
        self.asked: list[Asked] = []
        self.warmed_up = 0
        self.models: tuple[int, dict[str, str]] | None = (401, {})
        """Status and headers when the models are asked for; None: no answer."""
        self.peers: set[object] = set()
        self.base_url = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        await self._note(request)
        response = web.StreamResponse(status=self.status, headers=self.headers)
        if self.status == 200 and request.path.endswith("audio/speech"):
            response.headers["Content-Type"] = "audio/pcm"
        if self.status == 307:
            response.headers["Location"] = str(request.url)
        if self.answers:
            answer = self.answers[min(len(self.asked), len(self.answers)) - 1]
            await answer(request, response)
        if not response.prepared:
            await response.prepare(request)
        return response

    async def handle_models(self, request: web.Request) -> web.StreamResponse:
        self.warmed_up += 1
        self._note_peer(request)
        if self.models is None:
            await asyncio.sleep(60)
            raise web.HTTPInternalServerError
        status, headers = self.models
        return web.json_response({"object": "list", "data": []}, status=status, headers=headers)

    async def _note(self, request: web.Request) -> None:
        self._note_peer(request)
        asked = Asked(
            request.path,
            request.headers.get("Authorization"),
            query=request.query_string,
            headers=dict(request.headers),
        )
        if request.content_type == "application/json":
            asked.body = await request.json()
        else:
            # Not `request.post`: that keeps the file on disk.
            async for part in await request.multipart():
                assert isinstance(part, BodyPartReader)
                if part.filename is None:
                    asked.fields.append((part.name or "", await part.text()))
                else:
                    asked.file = bytes(await part.read())
        self.asked.append(asked)

    def _note_peer(self, request: web.Request) -> None:
        assert request.transport is not None
        self.peers.add(request.transport.get_extra_info("peername"))


def saying(*pieces: bytes, status: int = 200, content_type: str = "", pause_s: float = 0) -> Answer:
    """Answer with ``pieces``, one after the other."""

    async def answer(request: web.Request, response: web.StreamResponse) -> None:
        response.set_status(status)
        if content_type:
            response.headers["Content-Type"] = content_type
        await response.prepare(request)
        for piece in pieces:
            await response.write(piece)
            await asyncio.sleep(pause_s)

    return answer


async def hanging_up(request: web.Request, response: web.StreamResponse) -> None:
    """Close the connection without an answer, as a server does with one that was idle
    for too long.
    """
    assert request.transport is not None
    request.transport.abort()


def cut_off(*pieces: bytes) -> Answer:
    """Answer with ``pieces``, then break the connection."""

    async def answer(request: web.Request, response: web.StreamResponse) -> None:
        await saying(*pieces)(request, response)
        await hanging_up(request, response)

    return answer


class Endless:
    """Answers with ``piece`` again and again, until nobody listens any more: then
    ``gone`` is set.
    """

    def __init__(self, piece: bytes) -> None:
        self._piece = piece
        self.gone = asyncio.Event()

    async def __call__(self, request: web.Request, response: web.StreamResponse) -> None:
        await response.prepare(request)
        try:
            while True:
                await response.write(self._piece)
                await asyncio.sleep(0.001)
        except (ConnectionError, asyncio.CancelledError):
            self.gone.set()
            raise


@asynccontextmanager
async def serving() -> AsyncIterator[Service]:
    service = Service()
    application = web.Application()
    for path in ("chat/completions", "audio/speech", "audio/transcriptions", "embeddings"):
        application.router.add_post(f"/v1/{path}", service.handle)
    application.router.add_get("/v1/models", service.handle_models)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    listening = socket.create_server(("127.0.0.1", 0))
    await web.SockSite(runner, listening).start()
    service.base_url = f"http://127.0.0.1:{listening.getsockname()[1]}/v1/"
    try:
        async with asyncio.timeout(120):
            yield service
    finally:
        await runner.cleanup()


def unused_url() -> str:
    """An address where nobody listens."""
    return f"http://127.0.0.1:{unused_port()}/v1"
