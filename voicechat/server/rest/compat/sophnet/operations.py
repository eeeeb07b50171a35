"""The endpoints of SophNet's pictures, videos and OCR."""

from collections.abc import Mapping

from aiohttp import web

from voicechat.errors import RemoteProtocolError, Status
from voicechat.names import quoted
from voicechat.pictures.inspection import PictureLimits
from voicechat.providers.media import BlockKind, ImageRequest, TextBlock, VideoRequest
from voicechat.server.response_notes import add_note
from voicechat.server.rest.bodies import read_body, read_body_with_pictures
from voicechat.server.rest.compat.sophnet.schemas import (
    MAX_SEED,
    SIZES,
    ImageResult,
    ImageTaskAnswer,
    ImageTaskOutput,
    ListedTask,
    ListedTasks,
    MediaTaskDeleted,
    OcrAnswer,
    OcrBlock,
    OcrMarkdown,
    OcrRequest,
    TextToImageRequest,
    VideoAddress,
    VideoParameters,
    VideoTaskAnswer,
    VideoTaskRequest,
    VideoUsage,
)
from voicechat.server.rest.failures import Handler
from voicechat.server.rest.media.inputs import MAX_JSON_BYTES
from voicechat.server.rest.media.media import (
    MEDIA_ERRORS,
    Media,
    read_size_text,
    whole_seconds,
)
from voicechat.server.rest.media.openai_media import json_response
from voicechat.server.rest.media.tasks import MediaTask
from voicechat.server.rest.operation import FIND_ERRORS, JSON, KEY_ERRORS, Body, Operation
from voicechat.store.tasks.interface import TaskStatus

_FOLDER = "/api/open-apis/projects/{project}/easyllms"
IMAGE_TASKS_PATH = f"{_FOLDER}/texttoimage/task"
VIDEO_TASKS_PATH = f"{_FOLDER}/videogenerator/task"
OCR_PATH = f"{_FOLDER}/image-ocr"
FRAME_LIMITS = PictureLimits(least_side=300, most_side=6000, least_ratio=0.4, most_ratio=2.5)
"""The document's limits for the first picture of a video."""
IMAGE_STATUSES = {
    TaskStatus.WAITING: "PENDING",
    TaskStatus.DOING: "RUNNING",
    TaskStatus.SUCCESS: "SUCCEEDED",
    TaskStatus.FAILED: "FAILED",
}
"""The document's text also has SUCCESSED, but its sample waits for SUCCEEDED."""
VIDEO_STATUSES = {
    TaskStatus.WAITING: "queued",
    TaskStatus.DOING: "running",
    TaskStatus.SUCCESS: "succeeded",
    TaskStatus.FAILED: "failed",
}
_WAN_2_1 = "Wan2.1-"
_WAN_2_2 = "Wan2.2-"
_DURATIONS: Mapping[str, tuple[float, ...]] = {_WAN_2_1: (5.0,), _WAN_2_2: (1.0, 5.0)}


class SophNet:
    """The endpoints. A task belongs to its key and project; for others it does not
    exist.
    """

    def __init__(self, media: Media) -> None:
        self._media = media

    def operations(self) -> list[Operation]:
        """List the endpoints."""
        return [*self._image_operations(), *self._video_operations(), self._ocr_operation()]

    def _image_operations(self) -> list[Operation]:
        task = Body(JSON, ImageTaskAnswer)
        return [
            Operation(
                method="POST",
                paths=(IMAGE_TASKS_PATH,),
                tag="sophnet",
                summary="Make a picture, as a task",
                details="The task is durable when it is answered.",
                handle=self._submit_image,
                body=TextToImageRequest,
                answers={200: (task,)},
                errors=MEDIA_ERRORS,
            ),
            self._listing(IMAGE_TASKS_PATH, "pictures", self._list_images),
            Operation(
                method="GET",
                paths=(IMAGE_TASKS_PATH + "/{taskId}",),
                tag="sophnet",
                summary="Look at a task, and get its picture's address",
                handle=self._look_at_image,
                answers={200: (task,)},
                errors=FIND_ERRORS,
            ),
            self._deletion(IMAGE_TASKS_PATH, "image"),
        ]

    def _video_operations(self) -> list[Operation]:
        return [
            Operation(
                method="POST",
                paths=(VIDEO_TASKS_PATH,),
                tag="sophnet",
                summary="Make a video, as a task",
                details="The answer is the task's id as plain text. A picture that the video "
                "begins with has 300 to 6000 pixels on a side, a width of 0.4 to 2.5 of its "
                "height, and less than 30 MB.",
                handle=self._submit_video,
                body=VideoTaskRequest,
                answers={200: (Body("text/plain"),)},
                errors=MEDIA_ERRORS,
            ),
            self._listing(VIDEO_TASKS_PATH, "videos", self._list_videos),
            Operation(
                method="GET",
                paths=(VIDEO_TASKS_PATH + "/{taskId}",),
                tag="sophnet",
                summary="Look at a task, and get its video's address",
                handle=self._look_at_video,
                answers={200: (Body(JSON, VideoTaskAnswer),)},
                errors=FIND_ERRORS,
            ),
            self._deletion(VIDEO_TASKS_PATH, "video"),
        ]

    def _ocr_operation(self) -> Operation:
        return Operation(
            method="POST",
            paths=(OCR_PATH,),
            tag="sophnet",
            summary="Read the text in a picture",
            details="Paragraphs and tables in reading order, with their positions, and all of it "
            "as Markdown.",
            handle=self._read_text,
            body=OcrRequest,
            answers={200: (Body(JSON, OcrAnswer),)},
            errors=MEDIA_ERRORS,
        )

    def _listing(self, path: str, what: str, handle: Handler) -> Operation:
        return Operation(
            method="GET",
            paths=(path,),
            tag="sophnet",
            summary=f"List the newest tasks that make {what}",
            handle=handle,
            answers={200: (Body(JSON, ListedTasks),)},
            errors=KEY_ERRORS,
        )

    def _deletion(self, path: str, kind: str) -> Operation:
        async def delete(request: web.Request) -> web.Response:
            async with self._media.admitted(request) as principal:
                task_id = request.match_info["taskId"]
                task = await self._media.tasks.delete(principal, kind, task_id, "taskId")
            return json_response(MediaTaskDeleted(taskId=task.id))

        return Operation(
            method="DELETE",
            paths=(path + "/{taskId}",),
            tag="sophnet",
            summary="Delete a task and its results, or cancel it",
            handle=delete,
            answers={200: (Body(JSON, MediaTaskDeleted),)},
            errors=FIND_ERRORS,
        )

    async def _submit_image(self, request: web.Request) -> web.Response:
        async with self._media.admitted(request) as principal:
            asked = await read_body(request, TextToImageRequest)
            found = self._media.services.images.resolve("easyllm_id", asked.easyllm_id)
            add_note(found.note)
            parameters = asked.parameters
            width, height = read_size_text(parameters.size, "parameters.size")
            wanted = ImageRequest(
                prompt=asked.input.prompt,
                negative_prompt=asked.input.negative_prompt,
                model=asked.model,
                width=width,
                height=height,
                seed=parameters.seed,
                options=parameters.model_dump(
                    include={"steps", "prompt_extend"}, exclude_none=True
                ),
            )
            task = await self._media.tasks.submit(principal, found.name, wanted)
        return json_response(self._image_answer(request, task))

    async def _list_images(self, request: web.Request) -> web.Response:
        return await self._list(request, "image", IMAGE_STATUSES)

    async def _list_videos(self, request: web.Request) -> web.Response:
        return await self._list(request, "video", VIDEO_STATUSES)

    async def _list(
        self, request: web.Request, kind: str, statuses: Mapping[TaskStatus, str]
    ) -> web.Response:
        async with self._media.admitted(request) as principal:
            tasks = await self._media.tasks.newest(principal, kind)
        listed = [
            ListedTask(task_id=task.id, model=task.model, status=statuses[task.status])
            for task in tasks
        ]
        return json_response(ListedTasks(listed))

    async def _look_at_image(self, request: web.Request) -> web.Response:
        async with self._media.admitted(request) as principal:
            task_id = request.match_info["taskId"]
            task = await self._media.tasks.find(principal, "image", task_id, "taskId")
        return json_response(self._image_answer(request, task))

    def _image_answer(self, request: web.Request, task: MediaTask) -> ImageTaskAnswer:
        output: dict[str, object] = {"taskId": task.id, "taskStatus": IMAGE_STATUSES[task.status]}
        if task.files:
            output["results"] = [
                ImageResult(url=self._media.files.address(request, file.name, file.content_type))
                for file in task.files
            ]
        if task.error:
            output["message"] = task.error
        return ImageTaskAnswer(output=ImageTaskOutput.model_validate(output))

    async def _submit_video(self, request: web.Request) -> web.Response:
        async with self._media.admitted(request) as principal:
            asked = await read_body_with_pictures(request, VideoTaskRequest, MAX_JSON_BYTES)
            found = self._media.services.videos.resolve("easyllm_id", asked.easyllm_id)
            add_note(found.note)
            texts = [item for item in asked.content if item.type == "text"]
            if not any(item.text.strip() for item in texts):
                raise RemoteProtocolError(
                    Status.INVALID_PARAMETER, "content: one of type text must have a text"
                )
            fields = _video_fields(asked.model, asked.parameters)
            unwanted = [item.negative_prompt for item in texts if item.negative_prompt]
            if unwanted and asked.model.startswith(_WAN_2_1):
                add_note("content: this model does not support negative_prompt; ignored")
                unwanted = []
            pictures = []
            for number, item in enumerate(asked.content):
                if item.type != "image_url":
                    continue
                path = f"content[{number}].image_url.url"
                if item.image_url is None:
                    raise RemoteProtocolError(Status.INVALID_PARAMETER, f"{path}: must be present")
                pictures.append(
                    await self._media.inputs.read(
                        item.image_url.url, path, principal.key_id, FRAME_LIMITS
                    )
                )
            wanted = VideoRequest(
                prompt="\n".join(item.text for item in texts if item.text),
                negative_prompt="\n".join(unwanted),
                model=asked.model,
                pictures=tuple(pictures),
                **fields,  # type: ignore[arg-type]
            )
            task = await self._media.tasks.submit(principal, found.name, wanted)
        return web.Response(text=task.id)

    async def _look_at_video(self, request: web.Request) -> web.Response:
        async with self._media.admitted(request) as principal:
            task_id = request.match_info["taskId"]
            task = await self._media.tasks.find(principal, "video", task_id, "taskId")
        answer: dict[str, object] = {
            "id": task.id,
            "model": task.model,
            "status": VIDEO_STATUSES[task.status],
            "created_at": task.created_s,
            "updated_at": task.finished_s or task.created_s,
        }
        if task.files:
            file, made = task.files[0], task.video
            address = self._media.files.address(request, file.name, file.content_type)
            answer["content"] = VideoAddress(video_url=address)
            usage = {
                "duration": whole_seconds(made.seconds),
                "resolution": made.resolution or task.request.get("resolution"),
                "video_count": 1,
                "fps": made.frame_rate or task.request.get("frame_rate"),
                "ratio": made.ratio or task.request.get("ratio"),
            }
            answer["usage"] = VideoUsage.model_validate(
                {name: value for name, value in usage.items() if value}
            )
        if task.error:
            answer["message"] = task.error
        return json_response(VideoTaskAnswer.model_validate(answer))

    async def _read_text(self, request: web.Request) -> web.Response:
        async with self._media.admitted(request) as principal:
            asked = await read_body_with_pictures(request, OcrRequest, MAX_JSON_BYTES)
            found = self._media.services.ocr.resolve("easyllm_id", asked.easyllm_id)
            add_note(found.note)
            reader = self._media.services.ocr.find("easyllm_id", found.name)
            picture = await self._media.inputs.read(
                asked.image_url.url, "image_url.url", principal.key_id
            )
            async with self._media.asking_service():
                blocks = await reader.read_text(picture, asked.prompt)
        return json_response(
            OcrAnswer(
                result=[_ocr_block(block) for block in blocks],
                markdown=OcrMarkdown(text=_markdown(blocks, pretty=asked.prettify_markdown)),
            )
        )


def _video_fields(model: str, asked: VideoParameters) -> dict[str, object]:
    """Return the fields of a `VideoRequest` that the parameters mean. Raises
    ``RemoteProtocolError``.
    """
    is_2_1, is_2_2 = model.startswith(_WAN_2_1), model.startswith(_WAN_2_2)
    ignored = []
    fields: dict[str, object] = {
        "seconds": asked.duration,
        "seed": _seed(asked.seed),
        "frame_rate": asked.fps,
        "watermark": asked.watermark if "watermark" in asked.model_fields_set else None,
    }
    for family, allowed in _DURATIONS.items():
        if model.startswith(family) and asked.duration not in (None, *allowed):
            seconds = " or ".join(f"{each:g}" for each in allowed)
            raise RemoteProtocolError(
                Status.INVALID_PARAMETER,
                f"parameters.duration: {asked.duration:g} is not possible with this model, "
                f"but {seconds}",
            )
    if asked.size:
        if is_2_1:
            ignored.append("size")
        elif is_2_2 and asked.size not in SIZES:
            raise RemoteProtocolError(
                Status.INVALID_PARAMETER,
                f"parameters.size: {quoted(asked.size)} is not one of {', '.join(SIZES)}",
            )
        else:
            fields["width"], fields["height"] = read_size_text(asked.size, "parameters.size")
    if asked.resolution and is_2_2:
        ignored.append("resolution")
    else:
        fields["resolution"] = asked.resolution
    if asked.ratio and (is_2_2 or (is_2_1 and "I2V" not in model)):
        ignored.append("ratio")
    else:
        fields["ratio"] = asked.ratio
    if fields["watermark"] is not None and is_2_2:
        ignored.append("watermark")
        fields["watermark"] = None
    if ignored:
        add_note(f"parameters: this model does not support {', '.join(ignored)}")
    return fields


def _seed(seed: str | int | None) -> int | None:
    if seed is None:
        return None
    text = str(seed)
    if not (text.isascii() and text.isdecimal() and len(text) <= 10 and int(text) <= MAX_SEED):
        raise RemoteProtocolError(
            Status.INVALID_PARAMETER, f"parameters.seed: should be a whole number to {MAX_SEED}"
        )
    return int(text)


def _ocr_block(block: TextBlock) -> OcrBlock:
    corners = (block.left, block.top, block.right, block.bottom)
    return OcrBlock(label=block.kind.value, texts=block.text, position=",".join(map(str, corners)))


def _markdown(blocks: tuple[TextBlock, ...], *, pretty: bool) -> str:
    if pretty:
        return "\n\n".join(block.text for block in blocks)
    lines = []
    for block in blocks:
        if block.kind is BlockKind.TABLE:
            rows = [row.strip("| ").split(" | ") for row in block.text.splitlines()]
            lines += [" ".join(cells) for cells in rows if set("".join(cells)) != {"-"}]
        else:
            lines.append(block.text)
    return "\n".join(lines)
