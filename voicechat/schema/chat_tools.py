"""The tools of a chat completion, in OpenAI's form, and their limits in a
conversation.
"""

from typing import Annotated

from voicechat.schema.checked import Check, PassThroughModel, one_of
from voicechat.schema.json_text import shown

MAX_TOOLS = 64
MAX_PASSED_TOOLS = 1024
"""Most tools of a request that only passes them on; OpenAI allows 128."""
MAX_TOOLS_BYTES = 64 * 1024
"""All tools together, as JSON: a model reads them before every answer."""
MAX_NAME_CHARACTERS = 64
TOOL_CHOICES = ("none", "auto", "required")
_NAMED_TOOL = {
    "type": "object",
    "required": ["type", "function"],
    "properties": {
        "type": {"const": "function"},
        "function": {
            "type": "object",
            "required": ["name"],
            "properties": {"name": {"type": "string"}},
        },
    },
}
_NULL = {"type": "null"}


def _check_name(name: str) -> str:
    if not 1 <= len(name) <= MAX_NAME_CHARACTERS:
        raise ValueError(f"{shown(name)} is not 1 to {MAX_NAME_CHARACTERS} characters long")
    return name


def _check_tools(tools: "list[ChatCompletionTool]") -> "list[ChatCompletionTool]":
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
    function = (
        choice.get("function")
        if isinstance(choice, dict) and choice.get("type") == "function"
        else None
    )
    if isinstance(function, dict) and isinstance(function.get("name"), str):
        return choice
    allowed = ", ".join(TOOL_CHOICES)
    raise ValueError(
        f"{shown(choice)} is not one of {allowed} or "
        f'{{"type": "function", "function": {{"name": ...}}}}'
    )


_NAME = Check(_check_name, {"minLength": 1, "maxLength": MAX_NAME_CHARACTERS})
BOUNDED_TOOLS = Check(_check_tools, {})
"""Checks a list of ``ChatCompletionTool``: its size, and that names are distinct."""
TOOL_CHOICE = Check(
    _check_tool_choice, {"anyOf": [{"enum": list(TOOL_CHOICES)}, _NAMED_TOOL, _NULL]}
)
"""Checks whether the model may call a tool, must, or must call a named one."""


class ToolFunction(PassThroughModel):
    """The function of a tool; ``parameters`` is passed through."""

    name: Annotated[str, _NAME]
    description: str | None = None
    """What it does, for the model."""
    parameters: dict[str, object] | None = None
    """JSON Schema of its arguments, an object."""


class ChatCompletionTool(PassThroughModel):
    """A tool that the model may call: only functions exist."""

    type: Annotated[str, one_of("function")]
    function: ToolFunction
