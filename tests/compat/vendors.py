"""Scripted vendors on a socket of their own: OpenAI's images and videos API, and
DashScope's tasks. Their pictures and videos are those of ``PICTURE`` and ``VIDEO``.
"""

import asyncio
import base64
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler
from PIL import Image

from tests.compat.model_vendor import fail, model_routes


def picture(width: int = 64, height: int = 48, kind: str = "PNG", colour: str = "teal") -> bytes:
    written = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(written, kind)
    return written.getvalue()


PICTURE = picture()
VIDEO = b"\x00\x00\x00\x18ftypmp42" + bytes(range(256)) * 20


def _set_event() -> asyncio.Event:
    event = asyncio.Event()
    event.set()
    return event


@dataclass
class Vendors:
    """What they were asked, and how they answer."""

    base_url: str = ""
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    files: list[tuple[str, bytes]] = field(default_factory=list)
    as_address: bool = False
    """Whether pictures are answered as addresses."""
    polls: int = 1
    """How often a job is in progress before it has ended."""
    fails: bool = False
    status: int = 200
    """Of answers; other than 200: an error."""
    fault: str = ""
    """Of every request; see ``fail``."""
    breaks: bool = False
    """Whether replies break off after their first piece."""
    most_messages: int = 1000
    """Of a chat; one with more is too long for the model."""
    jobs: dict[str, int] = field(default_factory=dict)
    """How often each job was looked at."""
    stopped: list[str] = field(default_factory=list)
    """The jobs that were deleted or cancelled."""
    keys: dict[str, str] = field(default_factory=dict)
    """The jobs by the idempotency keys of their requests."""
    knows_keys: bool = True
    answers: asyncio.Event = field(default_factory=_set_event)
    """While it is not set, a job that was begun is not answered."""

    def begin(self, request: web.Request, kind: str) -> str:
        """Begin a job, unless the key of the request has begun one."""
        key = request.headers.get("Idempotency-Key", "")
        name = self.keys.get(key) or kind.format(len(self.jobs) + 1)
        self.jobs.setdefault(name, 0)
        if key and self.knows_keys:
            self.keys[key] = name
        return name

    def last(self, path: str) -> dict[str, Any]:
        return next(body for asked, body in reversed(self.asked) if asked == path)


async def _body(vendors: Vendors, request: web.Request) -> dict[str, Any]:
    body: dict[str, Any] = {}
    if request.content_type == "application/json":
        body = await request.json()
    else:
        async for part in await request.multipart():
            content = bytes(await part.read())  # type: ignore[union-attr]
            if part.filename is None:  # type: ignore[union-attr]
                body[part.name or ""] = content.decode()  # type: ignore[union-attr]
            else:
                vendors.files.append((part.name or "", content))  # type: ignore[union-attr]
    vendors.asked.append((request.path, body))
    return body


@asynccontextmanager
async def scripted_vendors() -> AsyncIterator[Vendors]:
    vendors = Vendors()

    async def images(request: web.Request) -> web.Response:
        body = await _body(vendors, request)
        if vendors.status != 200:
            error = {"message": "quoting the prompt", "type": "x", "code": "content_policy"}
            return web.json_response({"error": error}, status=vendors.status)
        item = {"b64_json": base64.b64encode(PICTURE).decode()}
        if vendors.as_address:
            item = {"url": f"{vendors.base_url}/picture.png"}
        return web.json_response({"created": 1, "data": [item] * int(body.get("n", 1))})

    async def fetch(_: web.Request) -> web.Response:
        return web.Response(body=PICTURE, content_type="image/png")

    async def video(request: web.Request) -> web.Response:
        await _body(vendors, request)
        name = vendors.begin(request, "video_{}")
        await vendors.answers.wait()
        return web.json_response({"id": name, "object": "video", "status": "queued"})

    async def look(request: web.Request) -> web.Response:
        name = request.match_info["id"]
        vendors.jobs[name] += 1
        status = "completed" if vendors.jobs[name] > vendors.polls else "in_progress"
        if vendors.fails:
            status = "failed"
        about = {"id": name, "status": status, "progress": 50, "seconds": "4", "size": "1280x720"}
        error = {"code": "moderation_blocked", "message": "m"} if vendors.fails else None
        return web.json_response(about | {"error": error})

    async def stop(request: web.Request) -> web.Response:
        name = request.match_info["id"]
        vendors.stopped.append(name)
        return web.json_response({"id": name, "object": "video.deleted", "deleted": True})

    async def content(_: web.Request) -> web.Response:
        return web.Response(body=VIDEO, content_type="video/mp4")

    async def task(request: web.Request) -> web.Response:
        await _body(vendors, request)
        if request.headers.get("X-DashScope-Async") != "enable":
            return web.json_response({"code": "AccessDenied", "message": "m"}, status=403)
        kind = "video" if "video" in request.path else "image"
        name = vendors.begin(request, f"task-{{}}-{kind}")
        return web.json_response(
            {"output": {"task_id": name, "task_status": "PENDING"}, "request_id": "r"}
        )

    async def look_task(request: web.Request) -> web.Response:
        name = request.match_info["id"]
        vendors.jobs[name] += 1
        done = vendors.jobs[name] > vendors.polls
        output: dict[str, Any] = {"task_id": name, "task_status": "RUNNING"}
        if vendors.fails:
            output |= {"task_status": "FAILED", "code": "DataInspectionFailed", "message": "m"}
        elif done and name.endswith("video"):
            output |= {"task_status": "SUCCEEDED", "video_url": f"{vendors.base_url}/video.mp4"}
        elif done:
            url = f"{vendors.base_url}/picture.png"
            output |= {"task_status": "SUCCEEDED", "results": [{"url": url}]}
        usage = {"video_duration": 5, "video_ratio": "16:9", "video_count": 1}
        return web.json_response({"output": output, "usage": usage, "request_id": "r"})

    @web.middleware
    async def failing(request: web.Request, handler: Handler) -> web.StreamResponse:
        return await (fail(request, vendors.fault) if vendors.fault else handler(request))

    app = web.Application(client_max_size=64 << 20, middlewares=[failing])
    app.add_routes(
        [
            *model_routes(vendors),
            web.post("/v1/images/generations", images),
            web.post("/v1/images/edits", images),
            web.post("/v1/videos", video),
            web.post("/v1/videos/{id}/remix", video),
            web.get("/v1/videos/{id}", look),
            web.delete("/v1/videos/{id}", stop),
            web.get("/v1/videos/{id}/content", content),
            web.get("/picture.png", fetch),
            web.get("/video.mp4", content),
            web.post("/api/services/aigc/text2image/image-synthesis", task),
            web.post("/api/services/aigc/video-generation/video-synthesis", task),
            web.post("/api/services/aigc/image2video/video-synthesis", task),
            web.get("/api/tasks/{id}", look_task),
            web.post("/api/tasks/{id}/cancel", stop),
        ]
    )
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    vendors.base_url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield vendors
    finally:
        await runner.cleanup()
