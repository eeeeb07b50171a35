import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from types import MappingProxyType

import pytest
from aiohttp import web

from voicechat.errors import ConfigError, FailureKind, ProviderError
from voicechat.providers.interfaces import ChatRequest, ReplyFinished, ReplyPart, TextDelta
from voicechat.providers.openai import OpenAIChatModel, open_chat_model

pytestmark = pytest.mark.real_time

Answer = Callable[[web.Request, web.StreamResponse], Awaitable[None]]
ASKED = ChatRequest(messages=({"role": "user", "content": "你好"},), options={"temperature": 0.5, "model": "mine"})
REPLY = [TextDelta("你"), TextDelta("好"), ReplyFinished("stop", 3, 2)]
EVENTS = [
    {"choices": [{"index": 0, "delta": {"role": "assistant", "content": "你"}}]},
    {"choices": [{"index": 0, "delta": {"content": "好"}}]},
    {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
    {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}},
]
BODY = "".join(f"data: {json.dumps(event, ensure_ascii=False)}\r\n\r\n" for event in EVENTS).encode()
DONE = b"data: [DONE]\n\n"


class Endpoint:
    """A scripted chat endpoint; remembers what it was asked and over how many connections."""

    def __init__(self) -> None:
        self.answer: Answer = whole_answer
        self.status = 200
        self.bodies: list[dict[str, object]] = []
        self.authorization: str | None = None
        self.peers: set[object] = set()
        self.base_url = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.bodies.append(await request.json())
        self.authorization = request.headers.get("Authorization")
        assert request.transport is not None
        self.peers.add(request.transport.get_extra_info("peername"))
        response = web.StreamResponse(status=self.status, headers={"Content-Type": "text/event-stream"})
        if self.status == 307:
            response.headers["Location"] = str(request.url)
        await response.prepare(request)
        await self.answer(request, response)
        return response


async def whole_answer(_request: web.Request, response: web.StreamResponse) -> None:
    await response.write(BODY + DONE)


@asynccontextmanager
async def serving() -> AsyncIterator[tuple[Endpoint, OpenAIChatModel]]:
    endpoint = Endpoint()
    application = web.Application()
    application.router.add_post("/v1/chat/completions", endpoint.handle)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    listening = socket.create_server(("127.0.0.1", 0))
    await web.SockSite(runner, listening).start()
    endpoint.base_url = f"http://127.0.0.1:{listening.getsockname()[1]}/v1/"
    model = open_chat_model(model="m", base_url=endpoint.base_url, api_key="secret")
    try:
        async with asyncio.timeout(20):
            yield endpoint, model
    finally:
        await model.aclose()
        await runner.cleanup()


async def ask(model: OpenAIChatModel, request: ChatRequest = ASKED) -> list[ReplyPart]:
    return [part async for part in model.reply(request)]


async def failure(model: OpenAIChatModel, request: ChatRequest = ASKED) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await ask(model, request)
    return caught.value


async def test_a_reply_with_its_request() -> None:
    async with serving() as (endpoint, model):
        assert await ask(model) == REPLY
        assert endpoint.bodies == [
            {
                "model": "m",
                "messages": [{"role": "user", "content": "你好"}],
                "stream": True,
                "stream_options": {"include_usage": True},
                "temperature": 0.5,
            }
        ]
        assert endpoint.authorization == "Bearer secret"


async def test_a_reply_in_single_bytes() -> None:
    async def answer(_request: web.Request, response: web.StreamResponse) -> None:
        for byte in BODY + DONE:
            await response.write(bytes([byte]))

    async with serving() as (endpoint, model):
        endpoint.answer = answer
        assert await ask(model) == REPLY


async def test_text_is_given_out_before_the_reply_is_complete() -> None:
    heard = asyncio.Event()

    async def answer(_request: web.Request, response: web.StreamResponse) -> None:
        await response.write(BODY.split(b"\r\n\r\n")[0] + b"\r\n\r\n")
        await heard.wait()
        await response.write(DONE)

    async with serving() as (endpoint, model):
        endpoint.answer = answer
        reply = model.reply(ASKED)
        assert await anext(reply) == TextDelta("你")
        heard.set()
        assert [part async for part in reply] == [ReplyFinished()]


async def test_the_connection_is_used_again_although_the_body_ends_late() -> None:
    async def answer(_request: web.Request, response: web.StreamResponse) -> None:
        await response.write(BODY + DONE)
        await asyncio.sleep(0.01)

    async with serving() as (endpoint, model):
        endpoint.answer = answer
        for _ in range(3):
            await ask(model)
        assert len(endpoint.peers) == 1


async def test_the_end_of_the_body_may_stand_for_done() -> None:
    async def answer(_request: web.Request, response: web.StreamResponse) -> None:
        await response.write(BODY)

    async with serving() as (endpoint, model):
        endpoint.answer = answer
        assert await ask(model) == REPLY


async def test_a_server_that_holds_the_end_back_does_not_hold_the_reply() -> None:
    async def answer(request: web.Request, response: web.StreamResponse) -> None:
        await response.write(BODY + DONE)
        await asyncio.Event().wait()

    async with serving() as (endpoint, model):
        endpoint.answer = answer
        assert await ask(model) == REPLY


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, FailureKind.REJECTED),
        (401, FailureKind.REJECTED),
        (403, FailureKind.REJECTED),
        (404, FailureKind.REJECTED),
        (408, FailureKind.TIMEOUT),
        (429, FailureKind.RATE_LIMIT),
        (500, FailureKind.CONNECTIVITY),
        (503, FailureKind.CONNECTIVITY),
        (204, FailureKind.BROKEN),
        (307, FailureKind.BROKEN),
    ],
)
async def test_statuses(status: int, kind: FailureKind) -> None:
    async with serving() as (endpoint, model):
        endpoint.status = status
        assert (await failure(model)).kind is kind
        assert len(endpoint.bodies) == 1  # a redirect is not followed: it could take the key elsewhere


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"", FailureKind.CONNECTIVITY),
        (BODY[:90], FailureKind.CONNECTIVITY),
        (BODY[:120], FailureKind.CONNECTIVITY),
        (b"data: <html>\n\n", FailureKind.BROKEN),
        (b"<html>not found</html>", FailureKind.CONNECTIVITY),
        (b"x" * 2_000_000, FailureKind.BROKEN),
        (b'data: {"error": {"type": "server_error"}}\n\n', FailureKind.CONNECTIVITY),
    ],
)
async def test_bodies_that_are_no_reply(body: bytes, kind: FailureKind) -> None:
    async def answer(_request: web.Request, response: web.StreamResponse) -> None:
        await response.write(body)

    async with serving() as (endpoint, model):
        endpoint.answer = answer
        assert (await failure(model)).kind is kind


async def test_a_connection_cut_in_the_middle_can_be_tried_again() -> None:
    async def answer(request: web.Request, response: web.StreamResponse) -> None:
        await response.write(BODY.split(b"\r\n\r\n")[0] + b"\r\n\r\n")
        assert request.transport is not None
        request.transport.abort()

    async with serving() as (endpoint, model):
        endpoint.answer = answer
        assert (await failure(model)).kind is FailureKind.CONNECTIVITY


async def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    model = open_chat_model(model="m", base_url=f"http://127.0.0.1:{port}/v1")
    assert (await failure(model)).kind is FailureKind.CONNECTIVITY
    await model.aclose()


async def test_a_server_that_does_not_accept_is_a_timeout() -> None:
    # A full backlog leaves further connections unanswered.
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server, socket.socket() as one, socket.socket() as two:
        for filler in (one, two):
            filler.setblocking(False)
            filler.connect_ex(server.getsockname())
        url = f"http://127.0.0.1:{server.getsockname()[1]}/v1"
        model = open_chat_model(model="m", base_url=url, connect_ms=100)
        assert (await failure(model)).kind is FailureKind.TIMEOUT
        await model.aclose()


async def test_a_server_that_falls_silent_is_a_timeout() -> None:
    async def answer(_request: web.Request, response: web.StreamResponse) -> None:
        await asyncio.Event().wait()

    async with serving() as (endpoint, _):
        endpoint.answer = answer
        model = open_chat_model(model="m", base_url=endpoint.base_url, silence_ms=100)
        assert (await failure(model)).kind is FailureKind.TIMEOUT
        await model.aclose()


@pytest.mark.parametrize("how", ["closed", "cancelled"])
async def test_cancelling_closes_the_connection_at_once(how: str) -> None:
    gone = asyncio.Event()

    async def answer(request: web.Request, response: web.StreamResponse) -> None:
        try:
            while True:
                await response.write(BODY.split(b"\r\n\r\n")[0] + b"\r\n\r\n")
                await asyncio.sleep(0.001)
        except (ConnectionError, asyncio.CancelledError):
            gone.set()
            raise

    async with serving() as (endpoint, model):
        endpoint.answer = answer
        reply = model.reply(ASKED)
        await anext(reply)
        if how == "closed":
            await reply.aclose()
        else:
            task = asyncio.get_running_loop().create_task(ask(model))
            await asyncio.sleep(0)
            await reply.aclose()
            task.cancel()
            await asyncio.wait([task])
        await gone.wait()


async def test_messages_of_any_kind_of_mapping_are_sent() -> None:
    async with serving() as (endpoint, model):
        part = MappingProxyType({"type": "text", "text": "x"})
        await ask(model, ChatRequest(messages=(MappingProxyType({"role": "user", "content": (part,)}),)))
        assert endpoint.bodies[0]["messages"] == [{"role": "user", "content": [{"type": "text", "text": "x"}]}]


async def test_what_is_no_json_is_rejected_without_asking() -> None:
    async with serving() as (endpoint, model):
        for content in ("\ud800", object()):
            rejected = await failure(model, ChatRequest(messages=({"role": "user", "content": content},)))
            assert rejected.kind is FailureKind.REJECTED
        assert endpoint.bodies == []


async def test_usage_need_not_be_asked_for() -> None:
    async with serving() as (endpoint, _):
        model = open_chat_model(model="m", base_url=endpoint.base_url, include_usage=False)
        await ask(model)
        assert "stream_options" not in endpoint.bodies[0]
        assert endpoint.authorization is None
        await model.aclose()


async def test_a_closed_model_says_so() -> None:
    async with serving() as (_, model):
        await model.aclose()
        assert (await failure(model)).kind is FailureKind.CONNECTIVITY


def test_an_unusable_address_stops_the_start() -> None:
    with pytest.raises(ConfigError, match="base_url: 'localhost:1' does not begin with"):
        open_chat_model(model="m", base_url="localhost:1")
