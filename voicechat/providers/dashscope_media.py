"""DashScope's asynchronous tasks for pictures (Qwen-Image, Wan) and videos (Wan), over
HTTP.

Source: the public Python SDK, ``dashscope/aigc/image_synthesis.py``,
``dashscope/aigc/video_synthesis.py`` and ``dashscope/client/base_api.py``. A test sends
the same requests by that SDK and compares them.
"""

import asyncio
from base64 import b64encode
from collections.abc import Mapping

import orjson

from voicechat.errors import RequestRefusedError
from voicechat.pictures.inspection import read_size
from voicechat.pictures.picture import Picture
from voicechat.providers.media import (
    ImageGenerator,
    ImageRequest,
    RemoteJob,
    VideoGenerator,
    VideoJob,
    VideoMade,
    VideoRequest,
)
from voicechat.providers.openai_http import OpenAIEndpoint, read_whole
from voicechat.providers.openai_images import MAX_PICTURE_BYTES, broken, read_answer
from voicechat.providers.remote_jobs import IDEMPOTENCY_KEY, poll_until_ended, within

BASE_URL = "https://dashscope.aliyuncs.com/api/v1"
IMAGE_PATH = "services/aigc/text2image/image-synthesis"
VIDEO_PATH = "services/aigc/video-generation/video-synthesis"
FRAMES_PATH = "services/aigc/image2video/video-synthesis"
"""For the models ``kf2v``, which make a video between two pictures."""
MAX_ANSWER_BYTES = 1 << 20
_HEADERS = {"Content-Type": "application/json", "X-DashScope-Async": "enable"}
_PROVIDER = "dashscope"


class DashScopeMediaTasks:
    """Submits tasks and waits for them."""

    def __init__(self, endpoint: OpenAIEndpoint, *, poll_s: float, total_s: float) -> None:
        self.endpoint = endpoint
        self._poll_s = poll_s
        self.total_s = total_s

    async def begin(self, path: str, body: Mapping[str, object], job: RemoteJob | None) -> str:
        """Submit a task, unless the job has been begun already; return its id."""
        if job is None:
            return await self._submit(path, body, {})
        headers = {IDEMPOTENCY_KEY: job.key}
        return await job.begin(lambda: self._submit(path, body, headers))

    async def _submit(
        self, path: str, body: Mapping[str, object], headers: Mapping[str, str]
    ) -> str:
        sent = {**_HEADERS, **headers}
        content = await asyncio.to_thread(orjson.dumps, body)  # it may contain pictures
        async with self.endpoint.post(path, content, sent) as response:
            output = _output(await read_whole(response.content, MAX_ANSWER_BYTES))[0]
        task_id = output.get("task_id")
        if not isinstance(task_id, str) or not task_id or "/" in task_id:
            raise broken("the service answered without a task_id")
        return task_id

    async def finished(self, task_id: str) -> tuple[Mapping[str, object], Mapping[str, object]]:
        """Poll until the task has succeeded; returns its output and usage.

        Raises `ProviderError`; `RequestRefusedError` with the service's code when it
        failed.
        """

        async def look() -> tuple[Mapping[str, object], Mapping[str, object]] | None:
            async with self.endpoint.get(f"tasks/{task_id}") as response:
                content = await read_whole(response.content, MAX_ANSWER_BYTES)
            output, usage = _output(content)
            match output.get("task_status"):
                case "SUCCEEDED":
                    return output, usage
                case "FAILED" | "CANCELED" | "UNKNOWN":
                    code = str(output.get("code") or "")
                    named = code if code.replace(".", "").isalnum() else ""
                    raise RequestRefusedError(_PROVIDER, "the task failed", code=named)
                case _:
                    return None

        return await poll_until_ended(look, self._poll_s)

    async def cancel(self, task_id: str) -> None:
        """Cancel a task; the service does so only before it has begun. Raises
        `ProviderError`.
        """
        async with self.endpoint.post(f"tasks/{task_id}/cancel", b"", {}) as response:
            await read_whole(response.content, MAX_ANSWER_BYTES)


class DashScopeImages(ImageGenerator):
    """An `ImageGenerator` of asynchronous tasks."""

    def __init__(self, tasks: DashScopeMediaTasks, model: str) -> None:
        """``model``: empty: as the client named it."""
        self._tasks = tasks
        self._model = model

    async def aclose(self) -> None:
        """Close all connections."""
        await self._tasks.endpoint.aclose()

    async def stop_job(self, remote_id: str) -> None:
        """Cancel a task. Raises `ProviderError`."""
        await self._tasks.cancel(remote_id)

    async def make_images(
        self, request: ImageRequest, job: RemoteJob | None = None
    ) -> tuple[Picture, ...]:
        """Make pictures. Raises `ProviderError`."""
        parameters: dict[str, object] = {"n": request.count}
        if request.width and request.height:
            parameters["size"] = f"{request.width}*{request.height}"
        if request.seed is not None:
            parameters["seed"] = request.seed
        parameters |= {
            name: request.options[name]
            for name in ("prompt_extend", "steps", "watermark")
            if name in request.options
        }
        body = {
            "model": self._model or request.model,
            "input": _filled(prompt=request.prompt, negative_prompt=request.negative_prompt),
            "parameters": parameters,
        }
        async with within(_PROVIDER, self._tasks.total_s):
            task_id = await self._tasks.begin(IMAGE_PATH, body, job)
            output, _ = await self._tasks.finished(task_id)
            results = output.get("results")
            addresses = [
                str(item["url"])
                for item in (results if isinstance(results, list) else [])
                if isinstance(item, dict) and item.get("url")
            ]
            if not addresses:
                raise broken("the task succeeded without pictures")
            try:
                return tuple(
                    [
                        read_size(await self._tasks.endpoint.download(address, MAX_PICTURE_BYTES))
                        for address in addresses
                    ]
                )
            except ValueError as error:
                raise broken("a result is no picture") from error


class DashScopeVideos(VideoGenerator):
    """A `VideoGenerator` of asynchronous tasks."""

    def __init__(self, tasks: DashScopeMediaTasks, model: str) -> None:
        """``model``: empty: as the client named it."""
        self._tasks = tasks
        self._model = model

    async def aclose(self) -> None:
        """Close all connections."""
        await self._tasks.endpoint.aclose()

    async def stop_job(self, remote_id: str) -> None:
        """Cancel a task. Raises `ProviderError`."""
        await self._tasks.cancel(remote_id)

    async def make_video(self, request: VideoRequest, job: VideoJob) -> VideoMade:
        """Make a video. Raises `ProviderError`."""
        async with within(_PROVIDER, self._tasks.total_s):
            body = await asyncio.to_thread(self._body, request)
            path = FRAMES_PATH if "kf2v" in str(body["model"]) else VIDEO_PATH
            task_id = await self._tasks.begin(path, body, job)
            output, usage = await self._tasks.finished(task_id)
            address = output.get("video_url")
            if not isinstance(address, str):
                raise broken("the task succeeded without a video")
            async for piece in self._tasks.endpoint.stream(address):
                await job.write_piece(piece)
        seconds = usage.get("video_duration") or usage.get("duration")
        return VideoMade(
            seconds=float(seconds) if isinstance(seconds, int | float) else None,
            resolution=str(usage.get("size") or usage.get("SR") or ""),
            ratio=str(usage.get("video_ratio") or ""),
            source=task_id,
        )

    def _body(self, request: VideoRequest) -> dict[str, object]:
        given: dict[str, object] = {"prompt": request.prompt}
        if request.negative_prompt:
            given["negative_prompt"] = request.negative_prompt
        model = self._model or request.model
        between = ("first_frame_url", "last_frame_url") if "kf2v" in model else ("img_url",)
        for name, picture in zip(between, request.pictures, strict=False):
            encoded = b64encode(picture.content).decode()
            given[name] = f"data:{picture.content_type};base64,{encoded}"
        parameters: dict[str, object] = {}
        if request.width and request.height:
            parameters["size"] = f"{request.width}*{request.height}"
        if request.resolution:
            parameters["resolution"] = request.resolution.upper()
        if request.ratio:
            parameters["ratio"] = request.ratio
        for name, value in (
            ("duration", request.seconds),
            ("seed", request.seed),
            ("watermark", request.watermark),
        ):
            if value is not None:
                parameters[name] = value
        return {"model": model, "input": given, "parameters": parameters}


def _output(content: bytes) -> tuple[Mapping[str, object], Mapping[str, object]]:
    answer = read_answer(content)
    output, usage = answer.get("output"), answer.get("usage")
    if not isinstance(output, dict):
        raise broken("the service answered without an output")
    return output, usage if isinstance(usage, dict) else {}


def _filled(**fields: str) -> dict[str, str]:
    return {name: value for name, value in fields.items() if value}
