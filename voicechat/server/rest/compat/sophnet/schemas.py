"""The models of SophNet's pictures, videos and OCR."""

from typing import Annotated, Literal

from pydantic import RootModel

from voicechat.schema.checked import Check, Either, Items, RequestModel, between, one_of
from voicechat.schema.json_text import shown
from voicechat.server.rest.media.media import MAX_SIDE
from voicechat.server.rest.media.openai_schemas import PictureText, Prompt, left_out
from voicechat.server.rest.schemas import ResponseModel, SparseResponse

MAX_SEED = 2**32 - 1
SIZES = (
    *("832*480", "480*832", "624*624"),
    *("1280*720", "720*1280", "960*960", "1088*832", "832*1088"),
    *("1920*1080", "1080*1920", "1440*1440", "1632*1248", "1248*1632"),
)
"""Of Wan2.2."""
_SIZE_PATTERN = r"^\d{1,4}[*x]\d{1,4}$"


def _size(text: str) -> str:
    width, _, height = text.replace("x", "*").partition("*")
    if not all(side.isdecimal() and 1 <= int(side) <= MAX_SIDE for side in (width, height)):
        raise ValueError(f"{shown(text)} is not WIDTH*HEIGHT, each side at most {MAX_SIDE}")
    return text


Size = Annotated[str, Check(_size, {"pattern": _SIZE_PATTERN})]


class TextToImageInput(RequestModel):
    """What is to be seen, and what not."""

    prompt: Prompt
    negative_prompt: str = ""


class TextToImageParameters(RequestModel):
    """How the picture is to be made."""

    size: Size = "1328*1328"
    """In pixels. The document lists those of qwen-image, and its sample has another."""
    seed: Annotated[int, between(0, MAX_SEED)] | None = None
    steps: Annotated[int, between(1, 500)] | None = None
    """Without it the service's own default; the document says 30."""
    prompt_extend: bool | None = None
    """Whether the service writes the prompt anew; without it its own default."""


class TextToImageRequest(RequestModel):
    """The document's table."""

    easyllm_id: str
    """A configured service for pictures."""
    model: str
    """Goes to the service, unless its configuration names one."""
    input: TextToImageInput
    parameters: TextToImageParameters = TextToImageParameters()


class ImageResult(ResponseModel):
    """A picture."""

    url: str


class ImageTaskOutput(SparseResponse):
    """The state of a task."""

    taskId: str  # noqa: N815 - the document's name
    taskStatus: Literal["PENDING", "RUNNING", "SUCCEEDED", "FAILED"]  # noqa: N815 - as above
    results: list[ImageResult] = left_out()
    """Once it has succeeded."""
    message: str = left_out()
    """Why it failed."""


class ImageTaskAnswer(ResponseModel):
    """A task that makes a picture."""

    output: ImageTaskOutput


class ListedTask(ResponseModel):
    """A task of a list."""

    task_id: str
    model: str
    status: str


class ListedTasks(RootModel[list[ListedTask]]):
    """The newest tasks of the key in this project, newest first."""


class MediaTaskDeleted(ResponseModel):
    """The task is deleted with its results; one at work is cancelled."""

    taskId: str  # noqa: N815 - the document's name
    deleted: Literal[True] = True


class ImageAddress(RequestModel):
    """A picture: ``data:image/...;base64,...``, or a public http(s) address."""

    url: PictureText


class VideoContent(RequestModel):
    """A text, or a picture that the video begins with."""

    type: Annotated[str, one_of("text", "image_url")]
    text: str = ""
    negative_prompt: str = ""
    image_url: ImageAddress | None = None


class VideoParameters(RequestModel):
    """How the video is to be made. What a known model does not support is ignored."""

    resolution: Annotated[str, one_of("480p", "720p")] = ""
    """Wan2.1 only."""
    size: Size = ""
    """Wan2.2 only."""
    ratio: Annotated[str, one_of("16:9", "9:16")] = ""
    """Wan2.1-I2V-14B only."""
    duration: Annotated[float, between(1, 600)] | None = None
    """In seconds: 5 for Wan2.1, 1 or 5 for Wan2.2."""
    watermark: bool = False
    """Wan2.1 only."""
    seed: Annotated[str | int, Either("a whole number or a text with one")] | None = None
    """From 0 to 4294967295, as a text or a number."""
    fps: Annotated[int, between(1, 240)] | None = None
    """Frames in a second; in the document's sample, not in its table."""


class VideoTaskRequest(RequestModel):
    """The document's table."""

    easyllm_id: str
    """A configured service for videos."""
    model: str
    """Goes to the service, unless its configuration names one."""
    content: Annotated[list[VideoContent], Items(1, 16, "contents")]
    parameters: VideoParameters = VideoParameters()


class VideoAddress(ResponseModel):
    """The finished video."""

    video_url: str


class VideoUsage(SparseResponse):
    """What was made, as far as the service says."""

    duration: int = left_out()
    resolution: str = left_out()
    video_count: int
    fps: int = left_out()
    ratio: str = left_out()


class VideoTaskAnswer(SparseResponse):
    """A task that makes a video. What has no value is left out."""

    id: str
    model: str
    status: Literal["queued", "running", "succeeded", "failed"]
    content: VideoAddress = left_out()
    usage: VideoUsage = left_out()
    message: str = left_out()
    """Why it failed."""
    created_at: int
    updated_at: int


class OcrRequest(RequestModel):
    """The document's table."""

    easyllm_id: str
    """A configured reader."""
    model: str
    """For services with several models; one with a single model ignores it."""
    type: Annotated[str, one_of("image_url")]
    image_url: ImageAddress
    prompt: str = ""
    """For services that take one."""
    prettify_markdown: bool = True
    """False: the Markdown is the text as it stands in the picture, without tables."""
    show_formula_number: bool = False
    """Formulas are read as text, with their numbers."""


class OcrBlock(ResponseModel):
    """A paragraph or table."""

    label: Literal["text", "table"]
    texts: str
    """Of a table: a Markdown table."""
    position: str
    """left,top,right,bottom in pixels."""


class OcrMarkdown(ResponseModel):
    """All of it as Markdown."""

    text: str


class OcrAnswer(ResponseModel):
    """What stands in the picture, in reading order."""

    status: Literal[0] = 0
    message: str = "请求成功"
    result: list[OcrBlock]
    markdown: OcrMarkdown
