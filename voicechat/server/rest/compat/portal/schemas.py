"""The models of the portal's answers and forms."""

from typing import Literal

from voicechat.schema.checked import RequestModel
from voicechat.server.rest.media.openai_schemas import FilePart
from voicechat.server.rest.schemas import ResponseModel


class AsrAnswer(ResponseModel):
    """What was said."""

    result: str
    status: Literal[20000000] = 20000000


class FileForm(RequestModel):
    """A form with a file."""

    file: FilePart


class LearningFileForm(RequestModel):
    """A form with a file to learn from."""

    fileToUpload: FilePart  # noqa: N815 - the document's name


class LearningAnswer(ResponseModel):
    """Whether the file is learnt."""

    result: bool


class ImageToTextAnswer(ResponseModel):
    """What a picture shows."""

    classification: str
    """The kinds of things in it, with spaces between them."""
    caption: str
    samUrl: str  # noqa: N815 - the document's name
    """Empty: nothing here cuts pictures into segments."""
    status: Literal["success"] = "success"


class EnhancedImage(ResponseModel):
    """The address of the enhanced picture."""

    enhanceImageUrl: str  # noqa: N815 - the document's name
    status: Literal["success"] = "success"


class GeneratedVideo(ResponseModel):
    """The address of the video."""

    svdVideoUrl: str  # noqa: N815 - the document's name
    status: Literal["success"] = "success"


class ProcessedVideo(ResponseModel):
    """The address of the processed video."""

    data: str
    status: Literal["success"] = "success"
