"""OpenAI's videos API: creates a job, polls it, and fetches its content."""

from collections.abc import Mapping

import aiohttp
import orjson

from voicechat.errors import RequestRefusedError
from voicechat.providers.lenient_json import read_json
from voicechat.providers.media import VideoGenerator, VideoJob, VideoMade, VideoRequest
from voicechat.providers.openai_http import PROVIDER, Body, OpenAIEndpoint, read_whole
from voicechat.providers.openai_images import add_picture, broken, read_answer
from voicechat.providers.remote_jobs import IDEMPOTENCY_KEY, poll_until_ended, within

MAX_ANSWER_BYTES = 1 << 20
_JSON = {"Content-Type": "application/json", "Accept": "application/json"}
_FINISHED = ("completed", "succeeded")
_FAILED = ("failed", "cancelled", "canceled", "expired")


class OpenAIVideos(VideoGenerator):
    """A `VideoGenerator` over HTTP."""

    def __init__(
        self, endpoint: OpenAIEndpoint, model: str, *, poll_s: float, total_s: float
    ) -> None:
        """``poll_s``: interval between polls of a job. ``total_s``: limit for the whole
        job.
        """
        self._endpoint = endpoint
        self._model = model
        self._poll_s = poll_s
        self._total_s = total_s

    @property
    def edits(self) -> bool:
        """True: videos made by the same service can be remixed."""
        return True

    async def start(self) -> None:
        """Warm up a connection, as `OpenAIEndpoint.start`."""
        await self._endpoint.start()

    async def aclose(self) -> None:
        """Close all connections; requests in progress fail."""
        await self._endpoint.aclose()

    async def make_video(self, request: VideoRequest, job: VideoJob) -> VideoMade:
        """Make a video. Raises `ProviderError` as `OpenAIEndpoint.post`, TIMEOUT after
        ``total_s``, and the service's error for a failed job.
        """
        async with within(PROVIDER, self._total_s):
            video_id = await job.begin(lambda: self._submit(request, job.key))
            made = await self._finished(video_id, job)
            async with self._endpoint.get(f"videos/{video_id}/content") as response:
                content_type = response.content_type
                async for piece in response.content.iter_any():
                    await job.write_piece(piece)
        return VideoMade(
            content_type=content_type if content_type.startswith("video/") else "video/mp4",
            seconds=_number(made.get("seconds")),
            resolution=str(made.get("size") or ""),
            source=video_id,
        )

    async def stop_job(self, remote_id: str) -> None:
        """Delete a video. Raises `ProviderError`."""
        async with self._endpoint.delete(f"videos/{remote_id}") as response:
            await read_whole(response.content, MAX_ANSWER_BYTES)

    async def _submit(self, request: VideoRequest, key: str) -> str:
        """Begin a video, and return its id. A service that knows ``key`` already begins
        no second one.
        """
        if request.source:
            remix = orjson.dumps({"prompt": request.prompt})
            return await self._post(f"videos/{request.source}/remix", remix, _JSON, key)

        def form() -> aiohttp.FormData:
            data = aiohttp.FormData(self._fields(request))
            for picture in request.pictures:
                add_picture(data, "input_reference", picture)
            return data

        if request.pictures:
            return await self._post("videos", form, {}, key)
        return await self._post("videos", orjson.dumps(self._fields(request)), _JSON, key)

    async def _post(self, path: str, body: Body, headers: Mapping[str, str], key: str) -> str:
        sent = {**headers, IDEMPOTENCY_KEY: key}
        async with self._endpoint.post(path, body, sent) as response:
            return _id_of(read_answer(await read_whole(response.content, MAX_ANSWER_BYTES)))

    async def _finished(self, video_id: str, job: VideoJob) -> Mapping[str, object]:
        async def look() -> Mapping[str, object] | None:
            async with self._endpoint.get(f"videos/{video_id}") as response:
                state = read_json(await read_whole(response.content, MAX_ANSWER_BYTES))
            if not isinstance(state, dict):
                raise broken("the server did not answer with a JSON object")
            status = state.get("status")
            if status in _FAILED:
                error = state.get("error")
                code = error.get("code") if isinstance(error, dict) else None
                named = code if isinstance(code, str) and code.isidentifier() else ""
                raise RequestRefusedError(PROVIDER, "the video could not be made", code=named)
            if (done := _number(state.get("progress"))) is not None:
                job.report(min(1.0, max(0.0, done / 100)))
            return state if status in _FINISHED else None

        return await poll_until_ended(look, self._poll_s)

    def _fields(self, request: VideoRequest) -> dict[str, str]:
        """Return the fields; all are texts in this API."""
        size = f"{request.width}x{request.height}" if request.width and request.height else ""
        seed = "" if request.seed is None else str(request.seed)
        fields = {
            "prompt": request.prompt,
            "model": self._model or request.model,
            "seconds": "" if request.seconds is None else f"{request.seconds:g}",
            "size": size,
            "negative_prompt": request.negative_prompt,
            "seed": seed,
        }
        return {name: value for name, value in fields.items() if value}


def _id_of(answer: Mapping[str, object]) -> str:
    found = answer.get("id")
    if not isinstance(found, str) or not found or "/" in found or len(found) > 256:
        raise broken("the server answered without the id of a video")
    return found


def _number(value: object) -> float | None:
    try:
        return float(str(value))
    except ValueError:
        return None
