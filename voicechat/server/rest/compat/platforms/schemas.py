"""The models of the platforms' pictures and videos."""

from typing import Annotated, Any, Literal

from pydantic import Field

from voicechat.schema.checked import RequestModel, one_of
from voicechat.server.rest.media.openai_schemas import (
    FilePart,
    ImageEditRequest,
    ImageItem,
    ImagesRequest,
    Prompt,
    VideosRequest,
    left_out,
)
from voicechat.server.rest.schemas import SparseResponse


class PlatformImagesRequest(ImagesRequest):
    """The document's table; OpenAI's other parameters work too."""

    model: str
    """One of the platform's services for pictures."""
    response_format: Annotated[str, one_of("b64_json", "url")] = "b64_json"
    is_async: bool = Field(default=False, alias="async")
    """Whether a task is made; in the query as well."""


class PlatformEditRequest(ImageEditRequest):
    """The same for pictures that are to be changed."""

    model: str
    """One of the platform's services for pictures."""
    response_format: Annotated[str, one_of("b64_json", "url")] = "b64_json"
    is_async: bool = Field(default=False, alias="async")
    """Whether a task is made; in the query as well."""


class PlatformEditForm(PlatformEditRequest):
    """The form: ``image`` or ``image[]`` are files."""

    image: FilePart = b""  # type: ignore[assignment]
    mask: FilePart = b""  # type: ignore[assignment]


class PlatformVideosRequest(VideosRequest):
    """The document's table, and OpenAI's size and seconds."""

    model: str
    """One of the platform's services for videos."""


class PlatformRemixRequest(RequestModel):
    """How a video is to be changed."""

    prompt: Prompt
    model: str
    """One of the platform's; the video is changed by the service that made it."""
    input_reference: object = None
    """Not possible: no service takes pictures for this."""


class PlatformTask(SparseResponse):
    """A task. What has no value is left out."""

    id: str
    object: Literal["image", "video"]
    model: str
    status: Literal["queued", "in_progress", "completed", "failed"]
    created_at: int
    data: list[ImageItem] = left_out()
    """The pictures, once they are made."""
    error: str = left_out()
    """Why it failed."""
    detail: dict[str, Any] = left_out()
    """With ``detail=true``: what was asked, progress, times."""
