"""The chat completion parameters: the document's table of section "Chat completions", with its ranges."""

from typing import Annotated

from pydantic import Field, model_validator

from voicechat.session.vocabulary import Message
from voicechat.wire.checked import Check, Passage, Section, between, one_of
from voicechat.wire.json_text import shown

ROLES = ("system", "developer", "user", "assistant", "tool")
MAX_STOPS = 4
MAX_TOOLS = 64
MAX_TOOLS_BYTES = 64 * 1024
"""Of all tools together, as JSON: a model reads them before every answer."""
MAX_NAME_CHARACTERS = 64
TOOL_CHOICES = ("none", "auto", "required")
_PENALTY = between(-2, 2)
_NULL = {"type": "null"}
_NAMED_TOOL = {
    "type": "object",
    "required": ["type", "function"],
    "properties": {
        "type": {"const": "function"},
        "function": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}},
    },
}
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


def _check_name(name: str) -> str:
    if not 1 <= len(name) <= MAX_NAME_CHARACTERS:
        raise ValueError(f"{shown(name)} is not 1 to {MAX_NAME_CHARACTERS} characters long")
    return name


def _check_tools(tools: "list[Tool]") -> "list[Tool]":
    if len(tools) > MAX_TOOLS:
        raise ValueError(f"{len(tools)} tools are more than {MAX_TOOLS}")
    size_bytes = sum(len(tool.model_dump_json().encode()) for tool in tools)
    if size_bytes > MAX_TOOLS_BYTES:
        raise ValueError(f"{size_bytes} bytes of JSON are more than {MAX_TOOLS_BYTES}")
    names = [tool.function.name for tool in tools]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"{shown(twice)} is the name of two functions")
    return tools


def _check_tool_choice(choice: object) -> object:
    if choice is None or choice in TOOL_CHOICES:
        return choice
    function = choice.get("function") if isinstance(choice, dict) and choice.get("type") == "function" else None
    if isinstance(function, dict) and isinstance(function.get("name"), str):
        return choice
    allowed = ", ".join(TOOL_CHOICES)
    raise ValueError(f'{shown(choice)} is not one of {allowed} or {{"type": "function", "function": {{"name": ...}}}}')


def _at_least_one(count: int) -> int:
    if count < 1:
        raise ValueError(f"{shown(count)} is less than 1")
    return count


_CONTENT = Check(_check_content, {"anyOf": [{"type": "string"}, _PARTS, _NULL]})
_STOP = Check(_check_stop, {"anyOf": [{"type": "string"}, _TEXTS, _NULL]})
_NAME = Check(_check_name, {"minLength": 1, "maxLength": MAX_NAME_CHARACTERS})
_TOOLS = Check(_check_tools, {"maxItems": MAX_TOOLS})
_TOOL_CHOICE = Check(_check_tool_choice, {"anyOf": [{"enum": list(TOOL_CHOICES)}, _NAMED_TOOL, _NULL]})
_AT_LEAST_ONE = Check(_at_least_one, {"minimum": 1})


class ChatMessage(Passage):
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


class ToolFunction(Passage):
    """The function of a tool; what its ``parameters`` say passes through."""

    name: Annotated[str, _NAME]
    description: str | None = None
    """What it does, for the model."""
    parameters: dict[str, object] | None = None
    """JSON Schema of its arguments, an object."""


class Tool(Passage):
    """A tool the model may call: only functions exist."""

    type: Annotated[str, one_of("function")]
    function: ToolFunction


class ResponseFormat(Passage):
    """The form of the model's answer."""

    type: Annotated[str, one_of("text", "json_object", "json_schema")]


class Thinking(Passage):
    """Whether the model thinks before it answers, in GLM's form."""

    type: Annotated[str, one_of("enabled", "disabled")]


class TemplateArguments(Passage):
    """Arguments of the model's chat template."""

    enable_thinking: bool | None = None


class ChatOptions(Section):
    """The parameters that pass through to the chat model by name; None: not given, the model decides."""

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
    """Passed to the model; the answer has no log probabilities."""
    top_logprobs: Annotated[int, between(0, 20)] | None = None
    """Only with logprobs."""
    response_format: ResponseFormat | None = None
    tools: Annotated[list[Tool], _TOOLS] | None = None
    """Functions that the model may call: up to 64, together 64 KiB of JSON."""
    tool_choice: Annotated[object, _TOOL_CHOICE] = None
    """Whether the model may call a tool, must, or must call the one named; only with tools."""
    parallel_tool_calls: bool | None = None
    """Whether it may call several at once; only with tools."""
    enable_thinking: bool | None = None
    """Whether the model thinks before it answers."""
    chat_template_kwargs: TemplateArguments | None = None
    thinking: Thinking | None = None

    @model_validator(mode="after")
    def _top_logprobs_need_logprobs(self) -> "ChatOptions":
        if "top_logprobs" in self.model_fields_set and not self.logprobs:
            raise ValueError("top_logprobs is only allowed with logprobs: true")
        return self

    @model_validator(mode="after")
    def _choices_need_tools(self) -> "ChatOptions":
        for name in ("tool_choice", "parallel_tool_calls"):
            if name in self.model_fields_set and not self.tools:
                raise ValueError(f"{name} is only allowed with tools")
        return self

    def given(self) -> dict[str, object]:
        """Return the parameters that the client gave, by name."""
        return self.model_dump(include=set(ChatOptions.model_fields), exclude_unset=True)


class ChatCompletion(ChatOptions):
    """``chat_completion_req``: the parameters, the context and the model."""

    messages: list[ChatMessage] = Field(default_factory=list)
    """The conversation so far."""
    model: str = ""
    """A configured chat model."""

    def context(self) -> tuple[Message, ...]:
        """Return the configured messages in OpenAI's form, unknown keys included."""
        return tuple(message.model_dump(exclude_unset=True) for message in self.messages)
