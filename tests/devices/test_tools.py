"""What a device can do, as tools of the chat model."""

import json
from collections.abc import Mapping
from typing import Any

import pytest

from tests.devices.stage import HELLO, DeviceHarness, open_dialect
from voicechat.dialects.base import Reaction, Tell, with_agent
from voicechat.dialects.xiaozhi.codec import MessageWriter
from voicechat.dialects.xiaozhi.device_tools import (
    CALLED_MS,
    LISTED_MS,
    MAX_ANSWER_CHARACTERS,
    MOST_PAGES,
    MOST_TOOLS,
    DeviceTools,
    Vision,
)
from voicechat.session.agent import Agent
from voicechat.session.commands import AnswerTool
from voicechat.session.filler import Filler
from voicechat.session.types import Settings, ToolCall
from voicechat.testing.scripted import ScriptedModel

LIGHT = {"name": "self.light.on", "description": "Light", "inputSchema": {"type": "object"}}
VISION = Vision(url="http://10.0.0.2/xiaozhi/vision/explain", token="t")


def requests(reactions: list[Reaction]) -> list[dict[str, Any]]:
    return [
        json.loads(each.frame)["payload"]
        for each in reactions
        if isinstance(each, Tell) and '"mcp"' in str(each.frame)
    ]


def answer(tools: DeviceTools, number: int, **payload: object) -> list[Reaction]:
    return list(tools.receive({"jsonrpc": "2.0", "id": number, **payload}, 0))


def known(*listed: Mapping[str, object]) -> DeviceTools:
    tools = DeviceTools(MessageWriter("s1"), VISION)
    list(tools.begin(0))
    answer(tools, 1, result={"protocolVersion": "2024-11-05"})
    answer(tools, 2, result={"tools": list(listed)})
    assert tools.complete
    return tools


def names(tools: DeviceTools) -> list[str]:
    return [str(each["function"]["name"]) for each in tools.functions]  # type: ignore[index]


def test_a_device_is_asked_who_it_is_then_what_it_can_do_page_by_page() -> None:
    tools = DeviceTools(MessageWriter("s1"), VISION)
    (first,) = requests(list(tools.begin(0)))
    assert first["method"] == "initialize"
    assert first["params"]["capabilities"]["vision"] == {"url": VISION.url, "token": "t"}
    initialised, asked = requests(answer(tools, 1, result={}))
    assert initialised["method"] == "notifications/initialized"
    assert (asked["method"], asked["params"]) == ("tools/list", {"cursor": ""})
    (more,) = requests(answer(tools, 2, result={"tools": [LIGHT], "nextCursor": "self.b"}))
    assert more["params"] == {"cursor": "self.b"}
    assert not tools.complete
    answer(tools, 3, result={"tools": [{"name": "self.b"}]})
    assert tools.complete
    assert names(tools) == ["self_light_on", "self_b"]


def test_names_that_become_the_same_stay_apart() -> None:
    tools = known({"name": "a.b"}, {"name": "a_b"}, {"name": "灯"}, {"name": "x" * 80})
    assert len(set(names(tools))) == 4
    calls = [requests(list(tools.call("c", name, "{}", 0)))[0] for name in names(tools)]
    assert [each["params"]["name"] for each in calls] == ["a.b", "a_b", "灯", "x" * 80]


def test_what_cannot_be_a_tool_is_passed_over() -> None:
    wrong: list[Any] = [7, {}, {"name": ""}, {"name": "big", "description": "d" * 9_000}]
    assert names(known(*wrong, {"name": "a", "inputSchema": 1, "description": 2})) == ["a"]
    assert len(names(known(*({"name": f"t{n}"} for n in range(100))))) == MOST_TOOLS


def test_a_device_that_lists_for_ever_is_stopped() -> None:
    tools = DeviceTools(MessageWriter("s1"), VISION)
    list(tools.begin(0))
    answer(tools, 1, result={})
    for page in range(MOST_PAGES):
        answer(tools, page + 2, result={"tools": [{"name": f"t{page}"}], "nextCursor": "more"})
    assert tools.complete


@pytest.mark.parametrize("payload", [{"error": {"message": "no"}}, {"result": 3}])
def test_a_device_without_tools_has_none(payload: dict[str, object]) -> None:
    tools = DeviceTools(MessageWriter("s1"), VISION)
    list(tools.begin(0))
    answer(tools, 1, **payload)
    assert tools.complete
    assert tools.functions == []


def test_a_device_that_never_lists_is_not_waited_for() -> None:
    tools = DeviceTools(MessageWriter("s1"), VISION)
    list(tools.begin(100))
    assert tools.deadline_ms() == 100 + LISTED_MS
    assert list(tools.wake(100 + LISTED_MS)) == []
    assert tools.complete
    assert tools.deadline_ms() is None


@pytest.mark.parametrize(
    ("payload", "content"),
    [
        ({"result": {"content": [{"type": "text", "text": "true"}], "isError": False}}, "true"),
        ({"result": {"content": [{"type": "text", "text": "hot"}], "isError": True}}, "Error: hot"),
        ({"result": {"content": [{"type": "image", "data": "x"}]}}, "[image]"),
        ({"result": {"content": []}}, "Done."),
        ({"error": {"code": 1, "message": "Unknown tool"}}, "Error: Unknown tool"),
        ({}, "Error: the device gave no result."),
    ],
)
def test_every_answer_is_a_result(payload: dict[str, object], content: str) -> None:
    tools = known(LIGHT)
    (call,) = requests(list(tools.call("c1", "self_light_on", '{"r": 255}', 0)))
    assert (call["method"], call["params"]) == (
        "tools/call",
        {"name": "self.light.on", "arguments": {"r": 255}},
    )
    assert answer(tools, call["id"], **payload) == [AnswerTool("c1", content)]
    assert answer(tools, call["id"], **payload) == []


def test_a_long_answer_is_cut() -> None:
    tools = known(LIGHT)
    (call,) = requests(list(tools.call("c1", "self_light_on", "", 0)))
    (given,) = answer(tools, call["id"], result={"content": [{"text": "x" * 100_000}]})
    assert isinstance(given, AnswerTool)
    assert len(given.content) == MAX_ANSWER_CHARACTERS


def test_a_device_that_does_not_answer_is_answered_for_and_its_answer_comes_too_late() -> None:
    tools = known(LIGHT)
    (call,) = requests(list(tools.call("c1", "self_light_on", "{}", 1_000)))
    assert tools.deadline_ms() == 1_000 + CALLED_MS
    (given,) = tools.wake(1_000 + CALLED_MS)
    assert given == AnswerTool("c1", "Error: the device did not answer within 25 s.")
    assert answer(tools, call["id"], result={}) == []


@pytest.mark.parametrize(
    ("name", "arguments"), [("unknown", "{}"), ("self_light_on", "["), ("self_light_on", "[1]")]
)
def test_a_call_that_cannot_be_made_is_answered(name: str, arguments: str) -> None:
    (given,) = known(LIGHT).call("c1", name, arguments, 0)
    assert isinstance(given, AnswerTool)
    assert given.content.startswith("Error: ")


async def test_the_model_calls_the_device_and_goes_on() -> None:
    call = ToolCall(0, "c1", "self_light_on", "{}")
    model = ScriptedModel(replies=[["One moment. ", call], ["The light is on."]])
    async with DeviceHarness(model=model, poll_s=0.01) as device:
        device.hello(features={"mcp": True})
        await device.until(lambda: device.said("mcp"))
        device.say(type="mcp", payload={"id": 1, "result": {}})
        device.say(type="mcp", payload={"id": 2, "result": {"tools": [LIGHT]}})
        device.listen("detect", text="light, please")
        await device.until(lambda: len(device.said("mcp")) == 4)
        result = {"content": [{"type": "text", "text": "true"}]}
        device.say(type="mcp", payload={"id": 3, "result": result})
        await device.until(lambda: device.said("tts", state="stop"))
    assert [each["text"] for each in device.said("tts", state="sentence_start")] == [
        "One moment.",
        "The light is on.",
    ]
    assert model.requests[1].messages[-1]["content"] == "true"


@pytest.mark.parametrize(
    ("filler", "asked", "said"),
    [
        (None, "light, please", ["One moment, please."]),
        (None, "开灯", ["请稍等。"]),
        (Filler(zh="我来看看。"), "light, please", ["我来看看。"]),
        (Filler(), "light, please", []),
    ],
)
async def test_a_device_that_takes_long_is_covered_by_a_filler(
    filler: Filler | None, asked: str, said: list[str]
) -> None:
    call = ToolCall(0, "c1", "self_light_on", "{}")
    model = ScriptedModel(replies=[[call], ["It is on."]])
    dialect = open_dialect(settings=with_agent(Settings(), Agent(filler=filler)))
    async with DeviceHarness(model=model, dialect=dialect, poll_s=0.01) as device:
        device.hello(features={"mcp": True})
        await device.until(lambda: device.said("mcp"))
        device.say(type="mcp", payload={"id": 1, "result": {}})
        device.say(type="mcp", payload={"id": 2, "result": {"tools": [LIGHT]}})
        device.listen("detect", text=asked)
        await device.until(lambda: len(device.said("mcp")) == 4)
        if said:
            await device.until(lambda: device.packets)
        device.say(type="mcp", payload={"id": 3, "result": {"content": []}})
        await device.until(lambda: device.said("tts", state="stop"))
    told = [each["text"] for each in device.said("tts", state="sentence_start")]
    assert told == [*said, "It is on."]
    calls, answer, *rest = model.requests[1].messages[-2:]
    assert (calls["role"], calls["content"]) == ("assistant", "".join(said))
    assert (answer["role"], rest) == ("tool", []), "the filler does not stand behind the answer"


def test_nobody_waits_for_a_call_of_a_reply_that_was_stopped() -> None:
    dialect = open_dialect()
    list(dialect.receive(json.dumps({**HELLO, "features": {"mcp": True}}), 0))
    list(dialect.receive(json.dumps({"type": "abort"}), 10))
    assert dialect.deadline_ms() == LISTED_MS
