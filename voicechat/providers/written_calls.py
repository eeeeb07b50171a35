"""Converts tool calls that a small model writes as text.

A chat template requires calls in a particular form, such as JSON between
``<tool_call>`` tags. Small models omit the tags or put the JSON into a code fence, and
their server then passes it on as text. This module converts such a text to calls.
"""

import json
import re
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import replace

from voicechat.providers.interfaces import ReplyFinished, ReplyPart, TextDelta, ThoughtDelta
from voicechat.session.types import ToolCall

MAX_CHARACTERS = 16_384
"""A longer text is not a call."""
_OPENERS = ("{", "[", "```", "<tool_call>")
_WRAPPING = re.compile(r"```(?:json)?|</?tool_call>", re.IGNORECASE)

JSONObject = Mapping[str, object]


def functions_of(options: JSONObject) -> dict[str, JSONObject]:
    """Return the functions of ``tools`` by name; empty if none may be called."""
    tools = options.get("tools")
    if not isinstance(tools, Sequence) or options.get("tool_choice") == "none":
        return {}
    functions = [tool.get("function") for tool in tools if isinstance(tool, Mapping)]
    return {
        str(function["name"]): function
        for function in functions
        if isinstance(function, Mapping) and "name" in function
    }


def with_grammar(options: JSONObject) -> JSONObject:
    """Return the options with a grammar that allows only calls, if the request must
    call a tool. Other options are returned unchanged.
    """
    choice, functions = options.get("tool_choice"), functions_of(options)
    if isinstance(choice, Mapping):
        named = choice.get("function")
        name = named.get("name") if isinstance(named, Mapping) else None
        functions = {key: value for key, value in functions.items() if key == name}
    elif choice != "required":
        return options
    if not functions or options.get("response_format") is not None:
        return options
    calls = [
        {
            "type": "object",
            "properties": {
                "name": {"const": name},
                "arguments": function.get("parameters") or {"type": "object"},
            },
            "required": ["name", "arguments"],
        }
        for name, function in functions.items()
    ]
    schema = {"type": "json_schema", "json_schema": {"name": "call", "schema": {"anyOf": calls}}}
    return {**options, "response_format": schema}


async def read_calls(
    parts: AsyncIterator[ReplyPart], names: frozenset[str]
) -> AsyncGenerator[ReplyPart, None]:
    """Pass a reply on. If its text consists only of calls of the functions ``names``,
    yield them as calls.

    Text that may still become a call is held back; empty thoughts show that there is
    progress. The caller closes ``parts``.
    """
    held: list[TextDelta] = []
    decided = False
    async for part in parts:
        if decided or not isinstance(part, TextDelta | ToolCall | ReplyFinished):
            yield part
            continue
        text = "".join(delta.text for delta in held)
        if isinstance(part, TextDelta) and _may_be_call(text + part.text):
            held.append(part)
            yield ThoughtDelta()
            continue
        if isinstance(part, ReplyFinished) and (calls := _calls(text, names)):
            for call in calls:
                yield call
            yield replace(part, finish_reason="tool_calls")
            return
        decided = True
        for delta in held:
            yield delta
        held.clear()
        yield part
    for delta in held:
        yield delta


def _may_be_call(text: str) -> bool:
    begin = text.lstrip()
    if len(text) > MAX_CHARACTERS:
        return False
    return any(begin.startswith(opener) or opener.startswith(begin) for opener in _OPENERS)


def _calls(text: str, names: frozenset[str]) -> list[ToolCall]:
    """Return the calls that make up the text; empty if it contains anything else."""
    rest, found = _WRAPPING.sub(" ", text).strip(), []
    while rest:
        try:
            value, end = json.JSONDecoder().raw_decode(rest)
        except ValueError:
            return []
        found += value if isinstance(value, list) else [value]
        rest = rest[end:].lstrip(" \t\r\n,;")
    calls = []
    for index, value in enumerate(found):
        if not isinstance(value, dict) or value.get("name") not in names:
            return []
        arguments = value.get("arguments", value.get("parameters", {}))
        if not isinstance(arguments, dict):
            return []
        written = json.dumps(arguments, ensure_ascii=False)
        calls.append(ToolCall(index, f"call_{uuid.uuid4().hex}", value["name"], written))
    return calls
