"""A chat model that sees, behind a server with OpenAI's API: what it is sent, and what
becomes of its answers.
"""

import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web

from tests.compat.vendors import PICTURE
from voicechat.errors import FailureKind, ProviderError
from voicechat.pictures.picture import Picture
from voicechat.providers import openai
from voicechat.providers.chat_describer import MAX_ANSWER_CHARACTERS

pytestmark = pytest.mark.real_time

SEEN = Picture(PICTURE, "image/png", 64, 48)


@dataclass
class SeeingServer:
    """Answers in pieces, as vLLM and Ollama do."""

    answer: str = "A teal rectangle."
    status: int = 200
    bodies: list[dict[str, Any]] = field(default_factory=list)
    base_url: str = ""

    async def complete(self, request: web.Request) -> web.StreamResponse:
        self.bodies.append(await request.json())
        if self.status != 200:
            error = {"message": "this model takes no images", "code": "invalid_image"}
            return web.json_response({"error": error}, status=self.status)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for begin in range(0, len(self.answer), 4_000):
            delta = {"content": self.answer[begin : begin + 4_000]}
            chunk = {"id": "c", "choices": [{"index": 0, "delta": delta}]}
            await response.write(f"data: {json.dumps(chunk)}\n\n".encode())
        await response.write(b"data: [DONE]\n\n")
        return response


@asynccontextmanager
async def seeing_server() -> AsyncIterator[SeeingServer]:
    server = SeeingServer()
    app = web.Application()
    app.add_routes([web.post("/v1/chat/completions", server.complete)])
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.base_url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    try:
        yield server
    finally:
        await runner.cleanup()


async def test_the_picture_is_sent_as_a_data_url_with_the_question() -> None:
    async with seeing_server() as server:
        describer = openai.open_describer(base_url=server.base_url, model="qwen2.5vl:7b")
        assert await describer.describe_image(SEEN, "图里有什么？") == "A teal rectangle."
        await describer.aclose()
    (body,) = server.bodies
    assert body["model"] == "qwen2.5vl:7b"
    (message,) = body["messages"]
    question, picture = message["content"]
    assert (message["role"], question) == ("user", {"type": "text", "text": "图里有什么？"})
    head, _, encoded = picture["image_url"]["url"].partition(",")
    assert (picture["type"], head) == ("image_url", "data:image/png;base64")
    assert base64.b64decode(encoded) == PICTURE
    assert body["max_tokens"] > 0


async def test_an_endless_answer_is_cut() -> None:
    async with seeing_server() as server:
        describer = openai.open_describer(base_url=server.base_url, model="m")
        server.answer = "x" * (MAX_ANSWER_CHARACTERS + 9_000)
        found = await describer.describe_image(SEEN, "?")
        assert found == "x" * MAX_ANSWER_CHARACTERS
        await describer.aclose()


@pytest.mark.parametrize(
    ("status", "kind"), [(400, FailureKind.REJECTED), (429, FailureKind.RATE_LIMIT)]
)
async def test_refusals_are_failures_of_the_provider(status: int, kind: FailureKind) -> None:
    async with seeing_server() as server:
        server.status = status
        describer = openai.open_describer(base_url=server.base_url, model="m")
        with pytest.raises(ProviderError) as failed:
            await describer.describe_image(SEEN, "?")
        assert failed.value.kind is kind
        await describer.aclose()
