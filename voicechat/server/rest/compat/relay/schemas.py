"""The models of the relay."""

from typing import Annotated, Any, Literal

from voicechat.schema.chat_options import ChatMessage
from voicechat.schema.checked import Items, RequestModel, between, one_of
from voicechat.server.rest.media.media import MAX_IMAGES
from voicechat.server.rest.media.openai_schemas import Prompt, left_out
from voicechat.server.rest.schemas import ResponseModel, SparseResponse

MAX_TOKENS = 4096
MAX_REPLIES = 10
Temperature = Annotated[float, between(0, 2)]
Tokens = Annotated[int, between(0, MAX_TOKENS)]


class RelayCompletion(RequestModel):
    """The document's table of a streamed completion."""

    model: str
    """A configured chat model."""
    prompt: Prompt
    max_tokens: Tokens | None = None
    """0 and none: the model's own limit."""
    temperature: Temperature | None = None


class RelayCompletions(RelayCompletion):
    """The same, answered whole."""

    n: Annotated[int, between(1, MAX_REPLIES)] = 1
    """How many answers."""


class RelayChat(RequestModel):
    """The document's table."""

    model: str
    """A configured chat model."""
    messages: Annotated[list[ChatMessage], Items(1, 100, "messages")]
    """What is said next. What was said before is known by ``chatcode``."""
    chatcode: str = ""
    """Of a conversation; without one a new conversation begins."""
    initMessage: ChatMessage | None = None  # noqa: N815 - the document's name
    """What a new conversation begins with."""
    max_tokens: Tokens | None = None
    temperature: Temperature | None = None


class RelayEdits(RequestModel):
    """The document's table."""

    model: str
    """A configured chat model."""
    input: str
    """The text that is to be changed."""
    instruction: Prompt
    """How."""
    temperature: Temperature | None = None
    n: Annotated[int, between(1, MAX_REPLIES)] = 1


class RelayImage(RequestModel):
    """The document's table."""

    prompt: Prompt
    n: Annotated[int, between(1, MAX_IMAGES)] = 1
    size: Annotated[str, one_of("256x256", "512x512", "1024x1024")] = "1024x1024"
    response_format: Annotated[str, one_of("url", "b64_json")] = "url"


class SendRequest(RequestModel):
    """The document's table."""

    text: Prompt
    inputFileId: str = ""  # noqa: N815 - the document's name
    """Of a conversation; without one a new conversation begins."""


class RelayAnswer(ResponseModel):
    """An answer in one piece."""

    code: Literal[0] = 0
    data: Any
    message: str = "响应成功"


class RelayPiece(ResponseModel):
    """A piece of a streamed answer; the last one is ``[DONE]`` with ``end``."""

    code: int
    data: str
    message: Literal["continue", "error", "code", "end"]


class SendAnswer(SparseResponse):
    """The reply, and the conversation that it belongs to."""

    text: str
    fileId: str = left_out()  # noqa: N815 - the document's name
