"""The endpoints of the platforms."""

from collections.abc import Mapping

from aiohttp import web

from voicechat.config.server_sections import PlatformConfig
from voicechat.errors import RemoteProtocolError, Status
from voicechat.names import ServiceNames, quoted
from voicechat.providers.media import ImageRequest
from voicechat.runtime.wall_clock import unix_s
from voicechat.server.auth import Principal
from voicechat.server.response_notes import add_note
from voicechat.server.rest.chat import CompletionRequest
from voicechat.server.rest.compat.parts import CompatParts
from voicechat.server.rest.compat.platforms.schemas import (
    PlatformEditForm,
    PlatformEditRequest,
    PlatformImagesRequest,
    PlatformRemixRequest,
    PlatformTask,
    PlatformVideosRequest,
)
from voicechat.server.rest.event_stream import CONTENT_TYPE as EVENTS
from voicechat.server.rest.forms import FORM, read_flag
from voicechat.server.rest.media.inputs import read_request
from voicechat.server.rest.media.media import MEDIA_ERRORS, as_base64
from voicechat.server.rest.media.openai_media import (
    IMAGE_NUMBERS,
    REFERENCE,
    STATUSES,
    VIDEO_TYPES,
    content_of,
    image_request,
    json_response,
    read_edit,
    read_references,
    submit_remix,
    video_request,
)
from voicechat.server.rest.media.openai_schemas import ImageItem, ImagesAnswer
from voicechat.server.rest.media.tasks import MediaTask
from voicechat.server.rest.operation import (
    CHAT_ERRORS,
    FIND_ERRORS,
    JSON,
    Body,
    Operation,
    Parameter,
    Shape,
)
from voicechat.server.rest.schemas import ChatCompletionAnswer, ChatCompletionChunk

ASYNC = Parameter("query", "async", "true: a task is made.", {"type": "boolean"})
LOOK_ERRORS = (400, *FIND_ERRORS)
DETAIL = Parameter("query", "detail", "true: with what is known of it.", {"type": "boolean"})


class Platforms:
    """The endpoints. A task belongs to its key and platform; for others it does not
    exist.
    """

    def __init__(self, parts: CompatParts) -> None:
        self._chat = parts.chat
        self._backend = parts.backend
        self._media = parts.media
        self._platforms = parts.settings.platforms

    def operations(self) -> list[Operation]:
        """List the endpoints."""
        return [*self._chat_operations(), *self._image_operations(), *self._video_operations()]

    def _chat_operations(self) -> list[Operation]:
        return [
            Operation(
                method="POST",
                paths=("/{platform}/v1/chat/completions",),
                tag="platforms",
                summary="Ask a chat model of a platform",
                handle=self._complete,
                body=CompletionRequest,
                answers={
                    200: (Body(JSON, ChatCompletionAnswer), Body(EVENTS, ChatCompletionChunk))
                },
                errors=CHAT_ERRORS,
                shape=Shape.OPENAI,
            )
        ]

    def _image_operations(self) -> list[Operation]:
        made = {200: (Body(JSON, ImagesAnswer), Body(JSON, PlatformTask))}
        return [
            Operation(
                method="POST",
                paths=("/{platform}/v1/images/generations",),
                tag="platforms",
                summary="Make pictures",
                details="In base64 they come as data URLs. With `async=true` a task is answered.",
                handle=self._generate,
                body=PlatformImagesRequest,
                forms=(Body(FORM, PlatformImagesRequest),),
                parameters=(ASYNC,),
                answers=made,
                errors=MEDIA_ERRORS,
                shape=Shape.OPENAI,
            ),
            Operation(
                method="POST",
                paths=("/{platform}/v1/images/edits",),
                tag="platforms",
                summary="Change pictures",
                details="One or several, as JSON or as a form; see `/v1/images/edits`.",
                handle=self._edit,
                body=PlatformEditRequest,
                forms=(Body(FORM, PlatformEditForm),),
                parameters=(ASYNC,),
                answers=made,
                errors=MEDIA_ERRORS,
                shape=Shape.OPENAI,
            ),
            Operation(
                method="GET",
                paths=("/{platform}/v1/images/{task}",),
                tag="platforms",
                summary="Look at a task that makes pictures",
                handle=self._look_at_image,
                parameters=(DETAIL,),
                answers={200: (Body(JSON, PlatformTask),)},
                errors=LOOK_ERRORS,
                shape=Shape.OPENAI,
            ),
        ]

    def _video_operations(self) -> list[Operation]:
        task = {200: (Body(JSON, PlatformTask),)}
        return [
            Operation(
                method="POST",
                paths=("/{platform}/v1/videos",),
                tag="platforms",
                summary="Make a video, as a task",
                handle=self._create_video,
                body=PlatformVideosRequest,
                forms=(Body(FORM, PlatformVideosRequest),),
                answers=task,
                errors=MEDIA_ERRORS,
                shape=Shape.OPENAI,
            ),
            Operation(
                method="POST",
                paths=("/{platform}/v1/videos/{task}/remix",),
                tag="platforms",
                summary="Change a finished video, as a task",
                handle=self._remix,
                body=PlatformRemixRequest,
                forms=(Body(FORM, PlatformRemixRequest),),
                answers=task,
                errors=(*MEDIA_ERRORS[:4], 409, *MEDIA_ERRORS[4:]),
                shape=Shape.OPENAI,
            ),
            Operation(
                method="GET",
                paths=("/{platform}/v1/videos/{task}",),
                tag="platforms",
                summary="Look at a task that makes a video",
                handle=self._look_at_video,
                parameters=(DETAIL,),
                answers=task,
                errors=LOOK_ERRORS,
                shape=Shape.OPENAI,
            ),
            Operation(
                method="GET",
                paths=("/{platform}/v1/videos/{task}/content",),
                tag="platforms",
                summary="Fetch a finished video",
                handle=self._content,
                answers={200: VIDEO_TYPES},
                errors=FIND_ERRORS,
                shape=Shape.OPENAI,
            ),
        ]

    def _platform(self, request: web.Request) -> PlatformConfig:
        """Return the platform of the path. Raises ``RemoteProtocolError``
        (NOT_FOUND).
        """
        name = request.match_info["platform"]
        if not self._platforms:
            return PlatformConfig()
        if name not in self._platforms:
            known = ", ".join(sorted(self._platforms))
            raise RemoteProtocolError(
                Status.NOT_FOUND, f"platform: {quoted(name)} is not one of {known}"
            )
        return self._platforms[name]

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        def resolve(wanted: str) -> str:
            platform = self._platform(request)
            if platform.llm is None:
                return wanted
            aliases = self._backend.services.aliases.models
            return _among(platform.llm, aliases, wanted)

        return await self._chat.complete(request, resolve)

    def _image_service(self, platform: PlatformConfig, wanted: str) -> str:
        images = self._media.services.images
        if platform.images is None:
            return images.resolve("model", wanted).name
        return _among(platform.images, images.aliases, wanted)

    def _video_service(self, platform: PlatformConfig, wanted: str) -> str:
        videos = self._media.services.videos
        if platform.videos is None:
            return videos.resolve("model", wanted).name
        return _among(platform.videos, videos.aliases, wanted)

    async def _generate(self, request: web.Request) -> web.Response:
        async with self._media.admitted(request) as principal:
            platform = self._platform(request)
            asked, _ = await read_request(request, PlatformImagesRequest, numbers=IMAGE_NUMBERS)
            service = self._image_service(platform, asked.model)
            return await self._make(request, principal, asked, service, image_request(asked))

    async def _edit(self, request: web.Request) -> web.Response:
        async with self._media.admitted(request) as principal:
            platform = self._platform(request)
            asked, wanted = await read_edit(self._media, request, principal, PlatformEditRequest)
            service = self._image_service(platform, asked.model)
            return await self._make(request, principal, asked, service, wanted)

    async def _make(
        self,
        request: web.Request,
        principal: Principal,
        asked: PlatformImagesRequest | PlatformEditRequest,
        service: str,
        wanted: ImageRequest,
    ) -> web.Response:
        as_address = asked.response_format == "url"
        if read_flag(request.query.get("async", ""), "async") or asked.is_async:
            task = await self._media.tasks.submit(
                principal,
                service,
                wanted,
                platform=request.match_info["platform"],
                as_address=as_address,
            )
            return json_response(await self._task_answer(request, task, "image"))
        made = await self._media.make_images("model", service, wanted)
        items = [
            ImageItem(url=await self._media.publish(request, picture, principal.key_id))
            if as_address
            else await _data_url(picture.content, picture.content_type)
            for picture in made
        ]
        return json_response(ImagesAnswer(created=int(unix_s()), data=items))

    async def _create_video(self, request: web.Request) -> web.Response:
        async with self._media.admitted(request) as principal:
            platform = self._platform(request)
            asked, files = await read_request(request, PlatformVideosRequest, (REFERENCE,))
            service = self._video_service(platform, asked.model)
            pictures = await read_references(self._media, principal, asked.input_reference, files)
            wanted = video_request(asked, pictures)
            task = await self._media.tasks.submit(
                principal, service, wanted, platform=request.match_info["platform"]
            )
        return json_response(await self._task_answer(request, task, "video"))

    async def _remix(self, request: web.Request) -> web.Response:
        async with self._media.admitted(request) as principal:
            platform = self._platform(request)
            asked, files = await read_request(request, PlatformRemixRequest, (REFERENCE,))
            self._video_service(platform, asked.model)
            await self._find(request, principal, "video")
            if await read_references(self._media, principal, asked.input_reference, files):
                add_note("input_reference: no service takes pictures to change a video; ignored")
            task = await submit_remix(
                self._media,
                principal,
                request.match_info["task"],
                asked.prompt,
                "task_id",
                platform=request.match_info["platform"],
            )
        return json_response(await self._task_answer(request, task, "video"))

    async def _find(self, request: web.Request, principal: Principal, kind: str) -> MediaTask:
        task = await self._media.tasks.find(principal, kind, request.match_info["task"], "task_id")
        if task.platform != request.match_info["platform"]:
            raise RemoteProtocolError(Status.NOT_FOUND, "task_id: there is no such task")
        return task

    async def _look_at_image(self, request: web.Request) -> web.Response:
        return await self._look(request, "image")

    async def _look_at_video(self, request: web.Request) -> web.Response:
        return await self._look(request, "video")

    async def _look(self, request: web.Request, kind: str) -> web.Response:
        async with self._media.admitted(request) as principal:
            self._platform(request)
            detail = read_flag(request.query.get("detail", ""), "detail")
            task = await self._find(request, principal, kind)
            return json_response(await self._task_answer(request, task, kind, detail=detail))

    async def _content(self, request: web.Request) -> web.StreamResponse:
        async with self._media.admitted(request) as principal:
            task = await self._find(request, principal, "video")
            return await content_of(task, self._media, "task_id")

    async def _task_answer(
        self, request: web.Request, task: MediaTask, kind: str, *, detail: bool = False
    ) -> PlatformTask:
        answer: dict[str, object] = {
            "id": task.id,
            "object": kind,
            "model": task.model,
            "status": STATUSES[task.status],
            "created_at": task.created_s,
        }
        if task.files and kind == "image":
            answer["data"] = [
                ImageItem(url=self._media.files.address(request, file.name, file.content_type))
                if task.as_address
                else await _data_url(await self._media.files.read(file.name), file.content_type)
                for file in task.files
            ]
        if task.error:
            answer["error"] = task.error
        if detail:
            answer["detail"] = {
                "platform": task.platform,
                "request": dict(task.request),
                "progress": round(task.progress * 100),
                "completed_at": task.finished_s or None,
                "seconds": task.video.seconds,
                "size": task.video.resolution or None,
            }
        return PlatformTask.model_validate(answer)


def _among(names: tuple[str, ...], aliases: Mapping[str, str], wanted: str) -> str:
    """Return the service of a platform that a name refers to. Raises
    ``RemoteProtocolError`` (NOT_FOUND).
    """
    own = {alias: name for alias, name in aliases.items() if name in names}
    return ServiceNames(frozenset(names), own).resolve("model", wanted).name


async def _data_url(content: bytes, content_type: str) -> ImageItem:
    return ImageItem(b64_json=f"data:{content_type};base64,{await as_base64(content)}")
