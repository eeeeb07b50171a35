"""The models of OpenAI's images and videos API."""

from typing import Annotated, Any, Literal

from pydantic import Field, WithJsonSchema

from voicechat.schema.checked import Check, Either, Items, RequestModel, between, one_of, only
from voicechat.schema.json_text import shown
from voicechat.schema.large_text import LargeText, MayBeLarge
from voicechat.server.rest.media.inputs import MAX_PICTURES
from voicechat.server.rest.media.media import MAX_IMAGES, MAX_PROMPT_CHARACTERS
from voicechat.server.rest.schemas import ResponseModel, SparseResponse

FilePart = Annotated[bytes, WithJsonSchema({"type": "string", "format": "binary"})]
"""A form's file. This only describes it."""

PictureText = Annotated[str | LargeText, MayBeLarge()]
"""An address, a data URL or base64."""

PASSED_ON = (
    "background",
    "moderation",
    "output_compression",
    "output_format",
    "quality",
    "style",
    "user",
    "input_fidelity",
    "steps",
    "guidance_scale",
)
"""Options that go to the service unchanged."""


def _prompt(text: str) -> str:
    if not text.strip():
        raise ValueError("should say what is to be seen")
    if len(text) > MAX_PROMPT_CHARACTERS:
        raise ValueError(f"{len(text)} characters are more than {MAX_PROMPT_CHARACTERS}")
    return text


Prompt = Annotated[str, Check(_prompt, {"minLength": 1, "maxLength": MAX_PROMPT_CHARACTERS})]


def _no_stream(value: object) -> str:
    return f"{shown(value)} is not possible: pictures are sent whole"


def left_out() -> Any:
    """Return the default of a field that is omitted when it has no value."""
    return Field(default_factory=lambda: None)


class ImagesRequest(RequestModel):
    """OpenAI's table; other options are passed on to the service."""

    prompt: Prompt
    """What is to be seen."""
    model: str = ""
    """A configured service for pictures; without one the default."""
    n: Annotated[int, between(1, MAX_IMAGES)] = 1
    """How many pictures."""
    size: str = "auto"
    """Such as 1024x1024; auto: the service decides."""
    response_format: Annotated[str, one_of("url", "b64_json")] | None = None
    """Without it: an address, but base64 for models called gpt-image."""
    negative_prompt: str = ""
    """What is not to be seen."""
    seed: Annotated[int, between(0, 2**32 - 1)] | None = None
    stream: Annotated[bool, only(False, _no_stream)] = False
    background: str | None = None
    moderation: str | None = None
    output_compression: Annotated[int, between(0, 100)] | None = None
    output_format: str | None = None
    quality: str | None = None
    style: str | None = None
    user: str | None = None
    input_fidelity: str | None = None
    steps: Annotated[int, between(1, 500)] | None = None
    guidance_scale: Annotated[float, between(0, 100)] | None = None

    @property
    def options(self) -> dict[str, object]:
        """The options that the client has given and the service gets."""
        return self.model_dump(include=set(PASSED_ON), exclude_none=True)

    @property
    def wants_base64(self) -> bool:
        """Whether the pictures come in the answer itself."""
        wanted = self.response_format
        return wanted == "b64_json" or (wanted is None and self.model.startswith("gpt-image"))


class ImageEditRequest(ImagesRequest):
    """The same for pictures that are to be changed."""

    image: Annotated[
        PictureText | Annotated[list[PictureText], Items(0, MAX_PICTURES, "pictures")],
        Either("a text or an array of texts"),
    ] = ""
    """In JSON: an address, a data URL or base64, or several; in a form: files."""
    mask: PictureText = ""
    """Transparent where the first picture is to be changed."""


class ImageEditForm(ImageEditRequest):
    """The form: ``image`` or ``image[]`` are files."""

    image: FilePart = b""  # type: ignore[assignment]
    mask: FilePart = b""  # type: ignore[assignment]


class ImageItem(SparseResponse):
    """One picture: its address, or itself in base64."""

    url: str = left_out()
    b64_json: str = left_out()


class ImagesAnswer(ResponseModel):
    """The pictures."""

    created: int
    """Unix time."""
    data: list[ImageItem]


class VideosRequest(RequestModel):
    """OpenAI's table, as JSON or as a form whose ``input_reference`` is a file."""

    prompt: Prompt
    """What is to be seen."""
    model: str = ""
    """A configured service for videos; without one the default."""
    seconds: Annotated[str | float, Either("a number or a text")] | None = None
    """Length."""
    size: str = ""
    """Such as 1280x720."""
    input_reference: object = None
    """What the video begins with: an address, a data URL, base64, a list of these, or
    an object with ``image_url``.
    """


class RemixRequest(RequestModel):
    """How a video is to be changed."""

    prompt: Prompt
    """What is to be different."""


class VideoFailure(ResponseModel):
    """Why a video could not be made."""

    code: str
    message: str


class VideoAnswer(SparseResponse):
    """A video, made or in the making."""

    id: str
    object: Literal["video"] = "video"
    model: str
    status: Literal["queued", "in_progress", "completed", "failed"]
    progress: int
    """In percent."""
    created_at: int
    completed_at: int | None = None
    expires_at: int | None = None
    prompt: str | None = None
    seconds: str
    """Empty while it is not known."""
    size: str
    """Empty while it is not known."""
    remixed_from_video_id: str | None = None
    error: VideoFailure | None = None


class VideoList(SparseResponse):
    """The newest videos of the key, newest first."""

    object: Literal["list"] = "list"
    data: list[VideoAnswer]
    first_id: str | None = None
    last_id: str | None = None
    has_more: bool = False


class VideoDeleted(ResponseModel):
    """The video is deleted."""

    id: str
    object: Literal["video.deleted"] = "video.deleted"
    deleted: Literal[True] = True
