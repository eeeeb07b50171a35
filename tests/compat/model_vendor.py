"""Scripted models in OpenAI's form: chat, speech and recognition."""

import asyncio
import json
from typing import TYPE_CHECKING, Any

from aiohttp import BodyPartReader, web

if TYPE_CHECKING:
    from tests.compat.vendors import Vendors

SAID = ("你好", "，世界", "。")
"""The pieces of every reply."""
HEARD = "go forward ten meters"
"""What every recording says."""
USAGE = {"prompt_tokens": 10, "completion_tokens": 20, "total_tokens": 30}


def model_routes(vendors: "Vendors") -> list[web.RouteDef]:
    async def chat(request: web.Request) -> web.StreamResponse:
        asked = await request.json()
        vendors.asked.append((request.path, asked))
        if len(asked["messages"]) > vendors.most_messages:
            error = {"message": "m", "type": "x", "code": "context_length_exceeded"}
            return web.json_response({"error": error}, status=400)
        about = {"id": "chatcmpl-1", "created": 1_700_000_000, "model": asked["model"]}
        if not asked.get("stream"):
            message = {"role": "assistant", "content": "".join(SAID)}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            answer = {**about, "object": "chat.completion", "choices": [choice], "usage": USAGE}
            return web.json_response(answer)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)

        async def send(choices: list[dict[str, Any]], **more: object) -> None:
            chunk = {**about, "object": "chat.completion.chunk", "choices": choices, **more}
            await response.write(f"data: {json.dumps(chunk)}\n\n".encode())

        def choice_of(delta: dict[str, str], reason: str | None = None) -> list[dict[str, Any]]:
            return [{"index": 0, "delta": delta, "finish_reason": reason}]

        await send(choice_of({"role": "assistant", "content": ""}))
        for number, piece in enumerate(SAID):
            if vendors.breaks and number == 1:
                request.transport.abort()  # type: ignore[union-attr]
                return response
            await send(choice_of({"content": piece}))
        await send(choice_of({}, "stop"))
        await send([], usage=USAGE)
        await response.write(b"data: [DONE]\n\n")
        return response

    async def speak(request: web.Request) -> web.Response:
        vendors.asked.append((request.path, await request.json()))
        return web.Response(body=bytes(24_000), content_type="audio/pcm")  # half a second

    async def recognise(request: web.Request) -> web.Response:
        fields: dict[str, Any] = {}
        async for part in await request.multipart():
            assert isinstance(part, BodyPartReader)
            content = bytes(await part.read())
            fields[part.name or ""] = content if part.filename else content.decode()
        vendors.asked.append((request.path, fields))
        return web.json_response({"text": HEARD})

    async def models(_: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": []})

    return [
        web.post("/v1/chat/completions", chat),
        web.post("/v1/audio/speech", speak),
        web.post("/v1/audio/transcriptions", recognise),
        web.get("/v1/models", models),
    ]


async def fail(request: web.Request, fault: str) -> web.StreamResponse:
    """Answer as a service with this fault does: it hangs up (``dead``), is silent
    (``late``), limits its users (``busy``), or fails (``broken``).
    """
    match fault:
        case "dead":
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        case "late":
            await asyncio.Event().wait()
            raise AssertionError
        case "busy":
            error = {"message": "m", "type": "requests", "code": "rate_limit_exceeded"}
            return web.json_response({"error": error}, status=429, headers={"Retry-After": "120"})
        case _:
            error = {"message": "m", "type": "server_error", "code": "x"}
            return web.json_response({"error": error}, status=500)
