import json
from collections.abc import AsyncIterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voicechat.providers.interfaces import (
    Extras,
    ReplyFinished,
    ReplyPart,
    TextDelta,
    ThoughtDelta,
)
from voicechat.providers.written_calls import functions_of, read_calls, with_grammar
from voicechat.session.types import ToolCall

WEATHER = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}},
}
NAMES = frozenset({"weather", "time"})
CALL = '{"name": "weather", "arguments": {"city": "巴黎"}}'


async def reply(text: str, cut: int = 3) -> AsyncIterator[ReplyPart]:
    for start in range(0, len(text), cut):
        yield TextDelta(text[start : start + cut])
    yield ReplyFinished("stop", completion_tokens=7)


async def read(parts: AsyncIterator[ReplyPart]) -> tuple[str, list[ToolCall], ReplyFinished]:
    read = [part async for part in read_calls(parts, NAMES)]
    text = "".join(part.text for part in read if isinstance(part, TextDelta))
    finished = read[-1]
    assert isinstance(finished, ReplyFinished)
    return text, [part for part in read if isinstance(part, ToolCall)], finished


@pytest.mark.parametrize(
    "written",
    [
        CALL,
        f"\n{CALL}\n",
        f"```json\n{CALL}\n```",
        f"<tool_call>\n{CALL}\n</tool_call>",
        '{"name": "weather", "parameters": {"city": "巴黎"}}',
    ],
)
async def test_a_call_that_is_written_as_text_becomes_one(written: str) -> None:
    text, calls, finished = await read(reply(written))
    assert text == ""
    (call,) = calls
    assert (call.index, call.name, json.loads(call.arguments)) == (0, "weather", {"city": "巴黎"})
    assert call.id
    assert finished == ReplyFinished("tool_calls", completion_tokens=7)


async def test_several_calls_in_a_row() -> None:
    second = '{"name": "time", "arguments": {}}'
    for written in (f"{CALL}\n{second}", f"[{CALL}, {second}]"):
        _, calls, _ = await read(reply(written))
        assert [(call.index, call.name) for call in calls] == [(0, "weather"), (1, "time")]
        assert len({call.id for call in calls}) == 2


@pytest.mark.parametrize(
    "said",
    [
        "It is sunny in Paris.",
        '{"name": "unknown", "arguments": {}}',
        '{"name": "weather", "arguments": "Paris"}',
        f"{CALL} Let me look.",
        '{"name": "weather"',
        "```python\nprint()\n```",
        "{}",
        "[1, 2]",
        "",
    ],
)
async def test_other_text_is_passed_on_as_it_is(said: str) -> None:
    text, calls, finished = await read(reply(said))
    assert (text, calls) == (said, [])
    assert finished.finish_reason == "stop"


async def test_plain_text_is_not_held_back() -> None:
    read = [part async for part in read_calls(reply("Hello there."), NAMES)]
    assert read[0] == TextDelta("Hel")
    held = [part async for part in read_calls(reply(CALL), NAMES)]
    assert held[0] == ThoughtDelta(), "which shows that the model is working"


async def test_calls_of_the_server_s_own_and_extras_are_passed_on() -> None:
    own = ToolCall(0, "call_1", "weather", "{}")

    async def parts() -> AsyncIterator[ReplyPart]:
        yield Extras(answer={"a": 1})
        yield own
        yield ReplyFinished("tool_calls")

    assert [part async for part in read_calls(parts(), NAMES)] == [
        Extras(answer={"a": 1}),
        own,
        ReplyFinished("tool_calls"),
    ]


@settings(max_examples=50)
@given(st.text(alphabet='{}[]"`<tool_call>:, \nname', max_size=60), st.integers(1, 9))
async def test_no_text_is_lost(text: str, cut: int) -> None:
    said, calls, _ = await read(reply(text, cut))
    assert said == text or calls


def test_which_functions_may_be_called() -> None:
    assert set(functions_of({"tools": [WEATHER]})) == {"weather"}
    assert functions_of({"tools": [WEATHER], "tool_choice": "none"}) == {}
    assert functions_of({}) == {}
    assert functions_of({"tools": ["?", {"function": None}]}) == {}


def test_a_demanded_call_is_a_matter_of_grammar() -> None:
    for choice in ("required", {"type": "function", "function": {"name": "weather"}}):
        asked = with_grammar({"tools": [WEATHER], "tool_choice": choice})
        form = json.loads(json.dumps(asked["response_format"]))
        (call,) = form["json_schema"]["schema"]["anyOf"]
        assert call["properties"]["name"] == {"const": "weather"}
    for options in (
        {"tools": [WEATHER]},
        {"tools": [WEATHER], "tool_choice": "auto"},
        {"tools": [WEATHER], "tool_choice": "required", "response_format": {"type": "text"}},
        {"tool_choice": "required"},
    ):
        assert with_grammar(options) == options
