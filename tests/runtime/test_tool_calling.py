import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, cast

import pytest

from voicechat.errors import FailureKind, ProviderError
from voicechat.providers.interfaces import (
    ChatRequest,
    ReplyFinished,
    ReplyPart,
    TextDelta,
    ToolsStarted,
)
from voicechat.runtime.tool_calling import ROUNDS, ToolCallingModel
from voicechat.runtime.tool_function import open_tool
from voicechat.runtime.toolbox import Toolbox
from voicechat.session.filler import Filler
from voicechat.session.types import ToolCall, ToolExchange, ToolOutcome
from voicechat.testing.scripted import Failure, ScriptedModel

HERE = "tests.runtime.test_tool_calling"
CLIENTS_TOOL = {"type": "function", "function": {"name": "lamp", "parameters": {"type": "object"}}}
running: list[str] = []


async def weather(city: str, wait_s: float = 0) -> str:
    """Tell the weather."""
    running.append(city)
    try:
        await asyncio.sleep(wait_s)
    finally:
        running.remove(city)
    return f"20 degrees in {city}"


async def lamp() -> str:
    """Be named as a tool of the client is."""
    raise AssertionError("the client's tool takes its place")


def call(
    index: int, name: str = "weather", arguments: str = '{"city": "Paris"}', call_id: str = ""
) -> ToolCall:
    return ToolCall(index, call_id or f"c{index}", name, arguments)


def model(
    *replies: tuple[str | ToolCall, ...], filler: Filler | None = None, **more: Any
) -> ToolCallingModel:
    tools = {
        name: open_tool(name, f"{HERE}:{name}", filler=filler, deadline_s=30)
        for name in ("weather", "lamp")
    }
    return ToolCallingModel(ScriptedModel(replies=replies, **more), Toolbox(tools))


def asked(outer: ToolCallingModel) -> list[ChatRequest]:
    return cast("ScriptedModel", outer._inner).requests


def request(**options: object) -> ChatRequest:
    return ChatRequest(
        messages=({"role": "user", "content": "Is it warm in Paris?"},), options=options
    )


async def parts_of(outer: ToolCallingModel, **options: object) -> list[ReplyPart]:
    return [part async for part in outer.reply(request(**options))]


async def test_the_servers_tool_is_carried_out_and_the_model_goes_on() -> None:
    outer = model(("Let me look.", call(0)), ("It is warm.",))
    text, line_end, started, exchange, after, finished = await parts_of(outer, temperature=0.5)
    assert (text, line_end, after) == (
        TextDelta("Let me look."),
        TextDelta("\n"),
        TextDelta("It is warm."),
    )
    assert started == ToolsStarted(30)
    assert isinstance(exchange, ToolExchange)
    assert exchange.calls == (call(0),)
    assert [(done.content, done.outcome) for done in exchange.answers] == [
        ("20 degrees in Paris", ToolOutcome.ANSWERED)
    ]
    assert isinstance(finished, ReplyFinished)
    assert finished.finish_reason == "stop"
    first, second = asked(outer)
    assert [tool["function"]["name"] for tool in cast("Any", first.options["tools"])] == [
        "weather",
        "lamp",
    ]
    assert second.options == first.options
    assert second.messages[1:] == (
        {
            "role": "assistant",
            "content": "Let me look.",
            "tool_calls": [
                {
                    "id": "c0",
                    "type": "function",
                    "function": {"name": "weather", "arguments": '{"city": "Paris"}'},
                }
            ],
        },
        {"role": "tool", "tool_call_id": "c0", "content": "20 degrees in Paris"},
    )


async def test_tools_of_one_answer_work_at_the_same_time() -> None:
    outer = model(
        (
            call(0, arguments='{"city": "Paris", "wait_s": 3}'),
            call(1, arguments='{"city": "Rome", "wait_s": 2}'),
        ),
        ("Warm.",),
    )
    begun_s = asyncio.get_running_loop().time()
    parts = await parts_of(outer)
    assert asyncio.get_running_loop().time() - begun_s == 3
    exchange = next(part for part in parts if isinstance(part, ToolExchange))
    assert [done.took_ms for done in exchange.answers] == [3_000, 2_000]


async def test_a_client_tool_is_left_to_the_client_even_if_the_server_has_one_of_its_name() -> None:
    outer = model((call(0, "lamp", "{}"),), ("never asked",))
    parts = await parts_of(outer, tools=[CLIENTS_TOOL])
    assert parts == [call(0, "lamp", "{}"), ReplyFinished("tool_calls")]
    assert cast("Any", asked(outer)[0].options["tools"])[0] == CLIENTS_TOOL
    assert len(cast("Any", asked(outer)[0].options["tools"])) == 2


async def test_in_a_mixed_answer_the_servers_tools_come_first_and_the_client_is_asked() -> None:
    outer = model((call(0), call(1, "lamp", "{}")), ("never asked",))
    lamp_call, started, exchange, finished = await parts_of(outer, tools=[CLIENTS_TOOL])
    assert lamp_call == ToolCall(1, "c1", "lamp", "{}")
    assert isinstance(started, ToolsStarted)
    assert isinstance(exchange, ToolExchange)
    assert [done.tool for done in exchange.answers] == ["weather"]
    assert finished == ReplyFinished("tool_calls")


async def test_a_tool_that_there_is_not_is_told_to_the_model_and_counted_under_no_name() -> None:
    outer = model((call(0, "get_weather", "{}"),), ("Sorry.",))
    exchange = next(part for part in await parts_of(outer) if isinstance(part, ToolExchange))
    (answer,) = exchange.answers
    assert (answer.outcome, answer.tool) == (ToolOutcome.FAILED, "(unknown)")
    assert asked(outer)[1].messages[-1]["content"] == answer.content


async def test_a_call_whose_name_comes_late_is_held_until_it_is_known_whose_it_is() -> None:
    late = (
        ToolCall(0, "c0", None, ""),
        ToolCall(0, None, "lamp", "{"),
        ToolCall(0, None, None, "}"),
    )
    outer = model(late, ("never asked",))
    parts = await parts_of(outer, tools=[CLIENTS_TOOL])
    assert parts[:-1] == list(late)


async def test_the_model_may_call_a_bounded_number_of_times() -> None:
    outer = model((call(0),))
    parts = await parts_of(outer)
    assert len(asked(outer)) == ROUNDS + 1
    assert [request.options.get("tool_choice") for request in asked(outer)] == [None] * ROUNDS + [
        "none"
    ]
    assert sum(isinstance(part, ToolExchange) for part in parts) == ROUNDS
    assert not any(isinstance(part, ToolCall) for part in parts)
    assert isinstance(parts[-1], ReplyFinished)


@pytest.mark.parametrize(
    ("choice", "later"),
    [
        ("required", None),
        ({"type": "function", "function": {"name": "weather"}}, None),
        ("none", "none"),
    ],
)
async def test_a_choice_that_forces_a_call_holds_once(choice: object, later: object) -> None:
    outer = model((call(0),), ("Warm.",))
    await parts_of(outer, tool_choice=choice)
    assert [request.options.get("tool_choice") for request in asked(outer)] == [choice, later]


async def test_a_filler_is_said_when_a_tool_takes_long_and_only_once() -> None:
    slow = call(0, arguments='{"city": "Paris", "wait_s": 2}')
    outer = model((slow,), (slow,), ("Warm.",), filler=Filler(en="Let me look."))
    parts = outer.reply(request())
    begun_s = asyncio.get_running_loop().time()
    said = []
    async for part in parts:
        if isinstance(part, TextDelta):
            said.append((part.text, asyncio.get_running_loop().time() - begun_s))
    assert said == [("Let me look.\n", 1.0), ("Warm.", 4.0)]


async def test_no_filler_is_said_when_the_tool_is_quick_or_the_model_spoke_itself() -> None:
    filler = Filler(en="Let me look.")
    quick = await parts_of(model((call(0),), ("Warm.",), filler=filler))
    slow = call(0, arguments='{"city": "Paris", "wait_s": 2}')
    spoke = await parts_of(model(("One moment.", slow), ("Warm.",), filler=filler))
    said = [part.text for part in (*quick, *spoke) if isinstance(part, TextDelta)]
    assert said == ["Warm.", "One moment.", "\n", "Warm."]


async def test_tools_do_not_begin_before_the_next_part_is_asked_for() -> None:
    parts = model((call(0, arguments='{"city": "Paris", "wait_s": 2}'),), ("Warm.",)).reply(
        request()
    )
    assert isinstance(await anext(parts), ToolsStarted)
    await asyncio.sleep(5)
    assert running == []
    await parts.aclose()


@pytest.mark.parametrize("how", ["cancel", "close while a filler is said"])
async def test_stopping_the_reply_stops_the_tool_within_one_turn_of_the_loop(how: str) -> None:
    outer = model(
        (call(0, arguments='{"city": "Paris", "wait_s": 20}'),), filler=Filler(en="Let me look.")
    )
    parts = outer.reply(request())
    if how == "cancel":
        reading = asyncio.get_running_loop().create_task(_read(parts))
        await asyncio.sleep(5)
        assert running == ["Paris"]
        reading.cancel()
        await asyncio.wait([reading])
    else:
        while not isinstance(await anext(parts), TextDelta):
            pass
        assert running == ["Paris"]
        await parts.aclose()
    await asyncio.sleep(0)
    assert running == []
    assert cast("ScriptedModel", outer._inner).open == 0


async def _read(parts: AsyncIterator[ReplyPart]) -> None:
    async for _ in parts:
        pass


async def test_a_call_that_broke_off_is_not_carried_out() -> None:
    class CutOff:
        async def reply(self, request: ChatRequest) -> AsyncGenerator[ReplyPart, None]:
            yield call(0, arguments='{"city": "Pa')
            yield ReplyFinished("length", 3, 4)

    outer = ToolCallingModel(CutOff(), model()._toolbox)
    assert [part async for part in outer.reply(request())] == [ReplyFinished("length", 3, 4)]


async def test_the_tokens_of_all_answers_are_added() -> None:
    class Counting:
        def __init__(self) -> None:
            self.answers: list[ReplyPart] = [call(0), TextDelta("Warm.")]

        async def reply(self, request: ChatRequest) -> AsyncGenerator[ReplyPart, None]:
            yield self.answers.pop(0)
            yield ReplyFinished("stop", 10, 2)

    outer = ToolCallingModel(Counting(), model()._toolbox)
    parts = [part async for part in outer.reply(request())]
    assert parts[-1] == ReplyFinished("stop", 20, 4)


async def test_a_failing_model_fails_the_reply() -> None:
    outer = model(("Let me look.",), failure=Failure(after=1, kind=FailureKind.CONNECTIVITY))
    with pytest.raises(ProviderError):
        await parts_of(outer)
