"""OpenAI's images and videos API, as far as its SDKs use it."""

from collections.abc import Mapping
from typing import Any, TypeVar

from aiohttp import web
from pydantic import BaseModel

from voicechat.errors import RemoteProtocolError, Status
from voicechat.pictures.picture import Picture
from voicechat.providers.media import ImageRequest, VideoRequest
from voicechat.runtime.wall_clock import unix_s
from voicechat.schema.json_text import read_object
from voicechat.schema.large_text import LargeText
from voicechat.server.auth import Principal
from voicechat.server.rest.failures import Handler
from voicechat.server.rest.forms import FORM
from voicechat.server.rest.media.files import PATH as FILE_PATH
from voicechat.server.rest.media.inputs import read_request
from voicechat.server.rest.media.media import MEDIA_ERRORS, Media, as_base64, read_size_text
from voicechat.server.rest.media.openai_schemas import (
    ImageEditForm,
    ImageEditRequest,
    ImageItem,
    ImagesAnswer,
    ImagesRequest,
    RemixRequest,
    VideoAnswer,
    VideoDeleted,
    VideoFailure,
    VideoList,
    VideosRequest,
)
from voicechat.server.rest.media.tasks import MediaTask
from voicechat.server.rest.operation import FIND_ERRORS, JSON, Body, Operation, Parameter, Shape
from voicechat.store.tasks.interface import TaskStatus

IMAGE_NUMBERS = {
    "n": int,
    "seed": int,
    "output_compression": int,
    "steps": int,
    "guidance_scale": float,
}
"""Fields that are numbers, which a form has as text."""
STATUSES = {
    TaskStatus.WAITING: "queued",
    TaskStatus.DOING: "in_progress",
    TaskStatus.SUCCESS: "completed",
    TaskStatus.FAILED: "failed",
}
MAX_SECONDS = 600
REFERENCE = "input_reference"
EditModel = TypeVar("EditModel", bound=ImageEditRequest)
VIDEO_TYPES = (Body("video/mp4"),)


class OpenAIMedia:
    """The endpoints. A video belongs to its key; for others it does not exist."""

    def __init__(self, media: Media, *, guests: bool = False) -> None:
        """``guests``: whether a request for a picture without a key counts as one with
        the guest key.
        """
        self._media = media
        self._guests = guests

    def operations(self) -> list[Operation]:
        """List the endpoints."""
        return [*self._image_operations(), *self._video_operations(), self._file_operation()]

    def _image_operations(self) -> list[Operation]:
        return [
            Operation(
                method="POST",
                paths=("/v1/images/generations",),
                tag="images",
                summary="Make pictures",
                handle=self._generate,
                body=ImagesRequest,
                forms=(Body(FORM, ImagesRequest),),
                answers={200: (Body(JSON, ImagesAnswer),)},
                errors=MEDIA_ERRORS,
                shape=Shape.OPENAI,
            ),
            Operation(
                method="POST",
                paths=("/v1/images/edits",),
                tag="images",
                summary="Change pictures",
                details="A form with the files `image` or `image[]`, 16 at most, and perhaps "
                "`mask`; or JSON, where they are addresses, data URLs or base64.",
                handle=self._edit,
                body=ImageEditRequest,
                forms=(Body(FORM, ImageEditForm),),
                answers={200: (Body(JSON, ImagesAnswer),)},
                errors=MEDIA_ERRORS,
                shape=Shape.OPENAI,
            ),
        ]

    def _video_operations(self) -> list[Operation]:
        def operation(
            method: str,
            path: str,
            summary: str,
            handle: Handler,
            answer: Body,
            **more: Any,
        ) -> Operation:
            return Operation(
                method=method,
                paths=(path,),
                tag="videos",
                summary=summary,
                handle=handle,
                answers={200: (answer,)},
                shape=Shape.OPENAI,
                **{"errors": FIND_ERRORS, **more},
            )

        made = Body(JSON, VideoAnswer)
        return [
            operation(
                "POST",
                "/v1/videos",
                "Make a video, as a task",
                self._create_video,
                made,
                body=VideosRequest,
                forms=(Body(FORM, VideosRequest),),
                errors=MEDIA_ERRORS,
            ),
            operation(
                "GET", "/v1/videos", "List the newest videos", self._list, Body(JSON, VideoList)
            ),
            operation("GET", "/v1/videos/{video}", "Look at a video", self._look, made),
            operation(
                "DELETE",
                "/v1/videos/{video}",
                "Delete a video, or cancel its making",
                self._delete,
                Body(JSON, VideoDeleted),
            ),
            operation(
                "GET",
                "/v1/videos/{video}/content",
                "Fetch a finished video",
                self._content,
                VIDEO_TYPES[0],
                errors=(400, 401, 404, 429, 500, 503),
                parameters=(VARIANT,),
            ),
            operation(
                "POST",
                "/v1/videos/{video}/remix",
                "Change a finished video, as a task",
                self._remix,
                made,
                body=RemixRequest,
                errors=(*MEDIA_ERRORS[:4], 409, *MEDIA_ERRORS[4:]),
            ),
        ]

    def _file_operation(self) -> Operation:
        return Operation(
            method="GET",
            paths=(FILE_PATH,),
            tag="server",
            summary="Fetch a result by its address",
            details="The addresses that answers name. They need no key, and end with the result.",
            handle=self._media.files.serve,
            answers={200: (Body("image/png"), Body("image/jpeg"), Body("video/mp4"))},
            errors=(404,),
            needs_key=False,
        )

    async def _generate(self, request: web.Request) -> web.Response:
        async with self._media.admitted(request, guests=self._guests) as principal:
            asked, _ = await read_request(request, ImagesRequest, numbers=IMAGE_NUMBERS)
            made = await self._media.make_images("model", asked.model, image_request(asked))
            return await self._answer(request, principal, asked, made)

    async def _edit(self, request: web.Request) -> web.Response:
        async with self._media.admitted(request) as principal:
            asked, wanted = await read_edit(self._media, request, principal, ImageEditRequest)
            made = await self._media.make_images("model", asked.model, wanted)
            return await self._answer(request, principal, asked, made)

    async def _answer(
        self,
        request: web.Request,
        principal: Principal,
        asked: ImagesRequest,
        made: tuple[Picture, ...],
    ) -> web.Response:
        if asked.wants_base64:
            items = [ImageItem(b64_json=await as_base64(picture.content)) for picture in made]
        else:
            items = [
                ImageItem(url=await self._media.publish(request, picture, principal.key_id))
                for picture in made
            ]
        return json_response(ImagesAnswer(created=int(unix_s()), data=items))

    async def _create_video(self, request: web.Request) -> web.Response:
        async with self._media.admitted(request) as principal:
            asked, files = await read_request(request, VideosRequest, (REFERENCE,))
            service = self._media.services.videos.resolve("model", asked.model).name
            pictures = await read_references(self._media, principal, asked.input_reference, files)
            wanted = video_request(asked, pictures)
            task = await self._media.tasks.submit(principal, service, wanted)
        return json_response(video_answer(task, self._media))

    async def _remix(self, request: web.Request) -> web.Response:
        async with self._media.admitted(request) as principal:
            asked, _ = await read_request(request, RemixRequest)
            task = await submit_remix(
                self._media, principal, request.match_info["video"], asked.prompt, "video"
            )
        return json_response(video_answer(task, self._media))

    async def _list(self, request: web.Request) -> web.Response:
        async with self._media.admitted(request) as principal:
            tasks = await self._media.tasks.newest(principal, "video")
        data = [video_answer(task, self._media) for task in tasks]
        ids: list[str | None] = [video.id for video in data] or [None]
        return json_response(VideoList(data=data, first_id=ids[0], last_id=ids[-1]))

    async def _look(self, request: web.Request) -> web.Response:
        async with self._media.admitted(request) as principal:
            video = request.match_info["video"]
            task = await self._media.tasks.find(principal, "video", video, "video")
        return json_response(video_answer(task, self._media))

    async def _delete(self, request: web.Request) -> web.Response:
        async with self._media.admitted(request) as principal:
            video = request.match_info["video"]
            task = await self._media.tasks.delete(principal, "video", video, "video")
        return json_response(VideoDeleted(id=task.id))

    async def _content(self, request: web.Request) -> web.StreamResponse:
        async with self._media.admitted(request) as principal:
            if request.query.get("variant", "video") != "video":
                raise RemoteProtocolError(Status.INVALID_PARAMETER, "variant: only video is there")
            video = request.match_info["video"]
            task = await self._media.tasks.find(principal, "video", video, "video")
            return await content_of(task, self._media, "video")


VARIANT = Parameter("query", "variant", "Only `video` is there.", {"enum": ["video"]})


def image_request(asked: ImagesRequest, **more: Any) -> ImageRequest:
    """Convert a request in OpenAI's form. Raises ``RemoteProtocolError``."""
    width, height = read_size_text(asked.size, "size")
    return ImageRequest(
        prompt=asked.prompt,
        negative_prompt=asked.negative_prompt,
        model=asked.model,
        width=width,
        height=height,
        count=asked.n,
        seed=asked.seed,
        options=asked.options,
        **more,
    )


async def read_edit(
    media: Media, request: web.Request, principal: Principal, model: type[EditModel]
) -> tuple[EditModel, ImageRequest]:
    """Read a request to change pictures. Raises ``RemoteProtocolError``."""
    asked, files = await read_request(request, model, ("image", "mask"), numbers=IMAGE_NUMBERS)
    texts = asked.image if isinstance(asked.image, list) else [asked.image]
    pictures = await media.inputs.read_all(
        filter(None, texts), files.get("image", ()), "image", principal.key_id
    )
    if not pictures:
        raise RemoteProtocolError(Status.INVALID_PARAMETER, "image: must be present")
    masks = await media.inputs.read_all(
        filter(None, [asked.mask]), files.get("mask", ()), "mask", principal.key_id
    )
    if masks and (masks[0].width, masks[0].height) != (pictures[0].width, pictures[0].height):
        raise RemoteProtocolError(
            Status.INVALID_PARAMETER, "mask: should have the size of the picture"
        )
    return asked, image_request(asked, pictures=pictures, mask=masks[0] if masks else None)


def video_request(asked: VideosRequest, pictures: tuple[Picture, ...]) -> VideoRequest:
    """Convert a request in OpenAI's form. Raises ``RemoteProtocolError``."""
    width, height = read_size_text(asked.size, "size")
    return VideoRequest(
        prompt=asked.prompt,
        model=asked.model,
        width=width,
        height=height,
        seconds=_read_seconds(asked.seconds, "seconds"),
        pictures=pictures,
    )


async def read_references(
    media: Media, principal: Principal, value: object, files: Mapping[str, list[bytes]]
) -> tuple[Picture, ...]:
    """Read the pictures of an ``input_reference``: its value, and files of a form.
    Raises ``RemoteProtocolError``.
    """
    texts = _reference_texts(value)
    return await media.inputs.read_all(texts, files.get(REFERENCE, ()), REFERENCE, principal.key_id)


def _reference_texts(value: object) -> list[str | LargeText]:
    """Return the addresses, data URLs and base64 of an ``input_reference``. Raises
    ``RemoteProtocolError``.
    """
    if value is None or value == "":
        return []
    return [_text(item) for item in (value if isinstance(value, list) else [value])]


def _text(item: object) -> str | LargeText:
    if isinstance(item, str) and item.startswith("{"):
        item = read_object(item)
    if isinstance(item, dict):
        item = item.get("image_url") or item.get("url")
        item = item.get("url") if isinstance(item, dict) else item
    if not isinstance(item, str | LargeText) or not item:
        raise RemoteProtocolError(
            Status.INVALID_PARAMETER,
            f"{REFERENCE}: should be an address, a data URL, base64, or a list of these",
        )
    return item


def _read_seconds(value: str | float | None, path: str) -> float | None:
    """Read a length, which OpenAI writes as a text. Raises ``RemoteProtocolError``
    naming ``path``.
    """
    if value is None or value == "":
        return None
    try:
        seconds = float(value)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= MAX_SECONDS:
        raise RemoteProtocolError(
            Status.INVALID_PARAMETER, f"{path}: should be above 0 and at most {MAX_SECONDS}"
        )
    return seconds


async def submit_remix(
    media: Media,
    principal: Principal,
    task_id: str,
    prompt: str,
    path: str,
    *,
    platform: str = "",
) -> MediaTask:
    """Submit a task that changes a finished video, to the service that made it. Raises
    ``RemoteProtocolError``.
    """
    source = await media.tasks.find(principal, "video", task_id, path)
    if source.status is not TaskStatus.SUCCESS or not source.video.source:
        raise RemoteProtocolError(Status.NOT_ALLOWED_NOW, f"{path}: the video is not finished")
    if not media.services.videos.find(path, source.service).edits:
        raise RemoteProtocolError(
            Status.INVALID_PARAMETER, f"{path}: the service that made it cannot change videos"
        )
    wanted = VideoRequest(prompt=prompt, model=source.model, source=source.video.source)
    return await media.tasks.submit(
        principal, source.service, wanted, platform=platform, remix_of=task_id
    )


async def content_of(task: MediaTask, media: Media, path: str) -> web.StreamResponse:
    """Respond with the file of a finished task. Raises ``RemoteProtocolError``."""
    if not task.files:
        failed = task.status is TaskStatus.FAILED
        raise RemoteProtocolError(
            Status.NOT_FOUND, f"{path}: {'failed' if failed else 'is not finished'}"
        )
    file = task.files[0]
    return await media.files.respond(file.name, file.content_type)


def video_answer(task: MediaTask, media: Media) -> VideoAnswer:
    """Convert a task to OpenAI's form."""
    asked: Mapping[str, Any] = task.request
    seconds = task.video.seconds or asked.get("seconds")
    size = f"{asked['width']}x{asked['height']}" if asked.get("width") else ""
    failure = None
    if task.status is TaskStatus.FAILED:
        status, message = task.failure
        failure = VideoFailure(code=status.name.lower(), message=message)
    finished = task.status is TaskStatus.SUCCESS
    return VideoAnswer.model_validate(
        {
            "id": task.id,
            "model": task.model,
            "status": STATUSES[task.status],
            "progress": round(task.progress * 100),
            "created_at": task.created_s,
            "completed_at": task.finished_s if finished else None,
            "expires_at": task.finished_s + int(media.files.settings.keep_s) if finished else None,
            "prompt": asked.get("prompt"),
            "seconds": "" if seconds is None else f"{seconds:g}",
            "size": size or task.video.resolution,
            "remixed_from_video_id": task.remix_of or None,
            "error": failure,
        }
    )


def json_response(answer: BaseModel, *, exclude_none: bool = True) -> web.Response:
    """Build a response from a model, without the fields that have no value."""
    return web.json_response(text=answer.model_dump_json(exclude_none=exclude_none))
