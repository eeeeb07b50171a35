"""The chat completion parameters: the document's table of section "Chat completions",
with its ranges.
"""

from typing import Annotated

from pydantic import ConfigDict, Field, model_validator

from voicechat.schema.chat_tools import MAX_PASSED_TOOLS, ChatCompletionTool
from voicechat.schema.checked import Check, Items, PassThroughModel, RequestModel, between, one_of
from voicechat.schema.json_text import shown
from voicechat.session.types import Message

ROLES = ("system", "developer", "user", "assistant", "tool")
MAX_STOPS = 4
MAX_MESSAGES = 2048
_PENALTY = between(-2, 2)
_NULL = {"type": "null"}
_TEXTS = {"type": "array", "items": {"type": "string"}, "maxItems": MAX_STOPS}
_PARTS = {
    "type": "array",
    "items": {"type": "object", "required": ["type"], "properties": {"type": {"type": "string"}}},
}


def _check_content(content: object) -> object:
    if content is None or isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise ValueError(f"{shown(content)} is not a text, an array of parts or null")
    for part in content:
        if not (isinstance(part, dict) and isinstance(part.get("type"), str)):
            raise ValueError("every part must be an object with a type")
    return content


def _check_stop(stop: object) -> object:
    texts = [stop] if isinstance(stop, str) else stop
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"{shown(stop)} is not a text or an array of texts")
    if len(texts) > MAX_STOPS:
        raise ValueError(f"{len(texts)} texts are more than {MAX_STOPS}")
    return stop


def _at_least_one(count: int) -> int:
    if count < 1:
        raise ValueError(f"{shown(count)} is less than 1")
    return count


_CONTENT = Check(_check_content, {"anyOf": [{"type": "string"}, _PARTS, _NULL]})
_STOP = Check(_check_stop, {"anyOf": [{"type": "string"}, _TEXTS, _NULL]})
_AT_LEAST_ONE = Check(_at_least_one, {"minimum": 1})


class ChatMessage(PassThroughModel):
    """One message of the context; names, tool calls and the like pass through."""

    role: Annotated[str, one_of(*ROLES)]
    """Who speaks."""
    content: Annotated[object, _CONTENT] = None
    """A text, an array of parts such as text and image_url, or null."""

    @model_validator(mode="after")
    def _says_something(self) -> "ChatMessage":
        if "content" not in self.model_fields_set and self.role != "assistant":
            raise ValueError("content must be present")
        return self


class ResponseFormat(PassThroughModel):
    """The form of the model's answer."""

    type: Annotated[str, one_of("text", "json_object", "json_schema")]


class Thinking(PassThroughModel):
    """Whether the model thinks before it answers, in GLM's form."""

    type: Annotated[str, one_of("enabled", "disabled")]


class TemplateArguments(PassThroughModel):
    """Arguments of the model's chat template."""

    enable_thinking: bool | None = None


class ChatOptions(RequestModel):
    """Parameters that are passed through to the chat model by name; None: not given,
    the model's default.

    Unknown parameters are passed through unchecked, because the model's server may know
    them.
    """

    model_config = ConfigDict(extra="allow")

    temperature: Annotated[float, between(0, 2)] | None = None
    """Higher is more random."""
    top_p: Annotated[float, between(0, 1)] | None = None
    """Share of the likeliest tokens that are drawn from."""
    max_tokens: Annotated[int, _AT_LEAST_ONE] | None = None
    """Longest reply, in tokens."""
    stop: Annotated[object, _STOP] = None
    """Up to four texts that end the reply."""
    presence_penalty: Annotated[float, _PENALTY] | None = None
    """Against any repetition."""
    frequency_penalty: Annotated[float, _PENALTY] | None = None
    """Against frequent repetition."""
    logprobs: bool | None = None
    """Whether the answer has the log probabilities of its tokens, if the model's server
    tells them.
    """
    top_logprobs: Annotated[int, between(0, 20)] | None = None
    """Only with logprobs."""
    response_format: ResponseFormat | None = None
    tools: Annotated[list[ChatCompletionTool], Items(0, MAX_PASSED_TOOLS, "tools")] | None = None
    """Functions that the model may call."""
    enable_thinking: bool | None = None
    """Whether the model thinks before it answers."""
    chat_template_kwargs: TemplateArguments | None = None
    thinking: Thinking | None = None

    @model_validator(mode="after")
    def _top_logprobs_need_logprobs(self) -> "ChatOptions":
        if self.top_logprobs and not self.logprobs:
            raise ValueError("top_logprobs is only allowed with logprobs: true")
        return self

    def given(self) -> dict[str, object]:
        """Return the parameters that the client sent, by name."""
        known = self.model_dump(include=set(ChatOptions.model_fields), exclude_unset=True)
        return known | (self.model_extra or {})


class ChatCompletion(ChatOptions):
    """``chat_completion_req``: the parameters, the context and the model."""

    messages: Annotated[list[ChatMessage], Items(0, MAX_MESSAGES, "messages")] = Field(
        default_factory=list
    )
    """The conversation so far."""
    model: str = ""
    """A configured chat model."""

    def context(self) -> tuple[Message, ...]:
        """Return the messages in OpenAI's form, unknown keys included."""
        return tuple(message.model_dump(exclude_unset=True) for message in self.messages)
