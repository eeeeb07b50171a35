"""The models of responses, from which both the responses and the OpenAPI document are
made.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class ResponseModel(BaseModel):
    """Part of an answer."""

    model_config = ConfigDict(
        frozen=True, use_attribute_docstrings=True, json_schema_serialization_defaults_required=True
    )


class SparseResponse(BaseModel):
    """Part of an answer in which fields without a value are left out."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)


class ExtensibleResponse(BaseModel):
    """Part of a chat model's answer, described: its server may have said more, and that
    is passed on.
    """

    model_config = ConfigDict(frozen=True, extra="allow", use_attribute_docstrings=True)


def _left_out() -> Any:
    """Return the default of a field that is omitted, and never null, when it has no
    value.
    """
    return Field(default_factory=lambda: None)


class ContractError(ResponseModel):
    """The contract's form of an error; the first three digits of ``status`` are the
    HTTP status.
    """

    status: int
    message: str
    timestamp: int
    """Unix time in milliseconds."""


class OpenAIErrorBody(ResponseModel):
    """What went wrong, and with which parameter."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class OpenAIError(ResponseModel):
    """OpenAI's form of an error, and the message once more where the document's first
    client looks for it.
    """

    error: OpenAIErrorBody
    message: str
    """The same as in ``error``."""


class CodedError(ResponseModel):
    """The form of an error in the documents `relay` and `spark`."""

    code: int
    """A status of ``protocol/errors.json``."""
    message: str
    msg: str
    """The same as ``message``."""


class CompletionUsage(ExtensibleResponse):
    """Tokens, as the chat model counted them."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class FunctionCall(ResponseModel):
    """The function to call, and its arguments: JSON as the model wrote it."""

    name: str
    arguments: str


class ToolCallAnswer(ResponseModel):
    """A tool that the client is to call."""

    id: str
    type: Literal["function"] = "function"
    function: FunctionCall


class AssistantMessage(ExtensibleResponse):
    """The model's whole reply."""

    role: Literal["assistant"]
    content: str
    reasoning_content: str = _left_out()
    """The model's thoughts before the reply, if its server sends them."""
    tool_calls: list[ToolCallAnswer] = _left_out()
    """Only when there are some."""


class Reference(ResponseModel):
    """What a reply cites."""

    index: int
    """Its place, from 1, in the order in which sources are first cited."""
    title: str
    content: str
    """The passage of a file, or the answer of a Q&A record."""
    type: Literal["file", "qa", "web"]
    url: str
    """Where a file or a Q&A record can be read, with the key."""


class Choice(ExtensibleResponse):
    """The one reply; beside it what the model's server said of it, such as
    ``logprobs``.
    """

    index: Literal[0]
    message: AssistantMessage
    finish_reason: str
    refs: list[Reference] = _left_out()
    """Everything that the reply cites, where it cites something."""


class ChatCompletionAnswer(ExtensibleResponse):
    """A reply in one piece; ``usage`` only when the chat model counts."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[Choice]
    usage: CompletionUsage = _left_out()


class FunctionCallDelta(ExtensibleResponse):
    """The next piece of a function call; ``name`` comes with the first only."""

    name: str = _left_out()
    arguments: str


class ToolCallDelta(ExtensibleResponse):
    """The next piece of a tool call; ``id`` and ``type`` come with the first only."""

    index: int
    id: str = _left_out()
    type: Literal["function"] = _left_out()
    function: FunctionCallDelta


class Delta(ExtensibleResponse):
    """The next piece of the reply; ``role`` comes with the first."""

    role: Literal["assistant"] | None = _left_out()
    content: str | None = _left_out()
    reasoning_content: str = _left_out()
    tool_calls: list[ToolCallDelta] = _left_out()


class ChunkChoice(ExtensibleResponse):
    """The one reply's next piece; ``finish_reason`` comes with the last."""

    index: Literal[0]
    delta: Delta
    finish_reason: str | None = _left_out()
    refs: list[Reference] = _left_out()
    """What the text so far cites at its end; with the last chunk everything that the
    reply cites.
    """


class ChatCompletionChunk(ExtensibleResponse):
    """One event of a streamed reply.

    With ``stream_options.include_usage`` a last one has the usage and no choice, when
    the model counts.
    """

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: CompletionUsage = _left_out()


class SpeechUsage(ResponseModel):
    """Characters spoken; a Han character counts 2, any other 1."""

    characters: int


class SpeechEvent(ResponseModel):
    """One event of streamed speech. All frames, base64 decoded and joined, are one
    audio stream.
    """

    status: Literal["accepting", "finish"]
    usage: SpeechUsage | None
    audioFrame: str | None  # noqa: N815 - the contract's name
    id: str


class SpeechDelta(ResponseModel):
    """The next piece of speech, in OpenAI's form: base64."""

    type: Literal["speech.audio.delta"]
    audio: str


class SpeechTokens(ResponseModel):
    """Nobody counts them: all are 0."""

    input_tokens: int
    output_tokens: int
    total_tokens: int


class SpeechDone(ResponseModel):
    """The end of the speech."""

    type: Literal["speech.audio.done"]
    usage: SpeechTokens


class ModelCard(ResponseModel):
    """One chat model."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str


class ModelList(ResponseModel):
    """The chat models that may be asked for."""

    object: Literal["list"] = "list"
    data: list[ModelCard]


class TokenAnswer(ResponseModel):
    """A token, which is shown this once."""

    token: str
    expires_in: int
    """Seconds."""
    expires_at: int
    """Unix time."""


class PhaseAnswer(ResponseModel):
    """The server's phase."""

    status: str
