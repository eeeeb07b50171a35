"""What the endpoints answer, as models: the answers are made from them, and the OpenAPI document shows them."""

from typing import Literal

from pydantic import BaseModel, ConfigDict


class Answer(BaseModel):
    """Part of an answer."""

    model_config = ConfigDict(
        frozen=True, use_attribute_docstrings=True, json_schema_serialization_defaults_required=True
    )


class Piece(Answer):
    """Part of a streamed answer: what has not changed or is not there may be left out."""

    model_config = ConfigDict(
        frozen=True, use_attribute_docstrings=True, json_schema_serialization_defaults_required=False
    )


class ContractError(Answer):
    """The contract's form of an error; the first three digits of ``status`` are the HTTP status."""

    status: int
    message: str
    timestamp: int
    """Unix time in milliseconds."""


class OpenAIErrorBody(Answer):
    """What went wrong, and with which parameter."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class OpenAIError(Answer):
    """OpenAI's form of an error."""

    error: OpenAIErrorBody


class Usage(Answer):
    """Tokens, as the chat model counted them."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class FunctionCall(Answer):
    """Which function is to be called, and with what: ``arguments`` is JSON as the model wrote it."""

    name: str
    arguments: str


class ToolCallAnswer(Answer):
    """A tool that the client is to call."""

    id: str
    type: Literal["function"] = "function"
    function: FunctionCall


class AssistantMessage(Answer):
    """The model's whole reply."""

    role: Literal["assistant"] = "assistant"
    content: str
    tool_calls: list[ToolCallAnswer] | None = None


class Choice(Answer):
    """The one reply."""

    index: Literal[0] = 0
    message: AssistantMessage
    finish_reason: str
    logprobs: None = None


class ChatCompletionAnswer(Answer):
    """A reply in one piece. ``usage`` is null when the chat model does not count."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage | None = None


class FunctionCallDelta(Piece):
    """The next piece of a function call; ``name`` comes with the first."""

    name: str | None = None
    arguments: str


class ToolCallDelta(Piece):
    """The next piece of a tool call; ``id`` and ``type`` come with the first."""

    index: int
    id: str | None = None
    type: Literal["function"] | None = None
    function: FunctionCallDelta


class Delta(Piece):
    """The next piece of the reply; ``role`` comes with the first."""

    role: Literal["assistant"] | None = None
    content: str | None = None
    tool_calls: list[ToolCallDelta] | None = None


class ChunkChoice(Piece):
    """The one reply's next piece; ``finish_reason`` comes with the last."""

    index: Literal[0] = 0
    delta: Delta
    finish_reason: str | None = None


class ChatCompletionChunk(Piece):
    """One event of a streamed reply. With ``stream_options.include_usage`` a last one has the usage and no choice."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: Usage | None = None


class SpeechUsage(Answer):
    """Characters spoken; a Han character counts 2, any other 1."""

    characters: int


class SpeechEvent(Answer):
    """One event of streamed speech. All frames, base64 decoded and joined, are one audio stream."""

    status: Literal["accepting", "finish"]
    usage: SpeechUsage | None
    audioFrame: str | None  # noqa: N815 - the contract's name
    id: str


class ModelCard(Answer):
    """One chat model."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str


class ModelList(Answer):
    """The chat models that may be asked for."""

    object: Literal["list"] = "list"
    data: list[ModelCard]


class TokenAnswer(Answer):
    """A token, which is shown this once."""

    token: str
    expires_in: int
    """Seconds."""
    expires_at: int
    """Unix time."""


class PhaseAnswer(Answer):
    """Where the server stands."""

    status: str
