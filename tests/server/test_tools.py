"""Tools on a whole server: from the configuration file to an OpenAI-compatible
endpoint, and to the Python client.
"""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer

from voicechat.client import (
    ClientConversation,
    ReplyTextMessage,
    ToolCallMessage,
    TurnCompletedMessage,
    UpdatedMessage,
    chat_settings,
    connect,
)
from voicechat.config import build_services, load_config
from voicechat.errors import ConfigError
from voicechat.server.serve import credentials, serving
from voicechat.testing.scripted import ScriptedRecognizer, ScriptedSynthesizer

pytestmark = pytest.mark.real_time

LAMP = {
    "type": "function",
    "function": {"name": "lamp", "parameters": {"type": "object", "properties": {}}},
}


def clock(city: str) -> dict[str, str]:
    """Tell the time in a city."""
    return {"city": city, "time": "noon"}


@dataclass
class Endpoint:
    """A chat endpoint that answers by a script, and accepts only what OpenAI
    accepts.
    """

    script: list[list[dict[str, Any]]]
    bodies: list[dict[str, Any]] = field(default_factory=list)

    async def complete(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        check_messages(body["messages"])
        self.bodies.append(body)
        deltas = self.script[len(self.bodies) - 1]
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for delta in deltas:
            await self._write(response, {"delta": delta, "index": 0})
        calls = any("tool_calls" in delta for delta in deltas)
        await self._write(
            response, {"delta": {}, "index": 0, "finish_reason": "tool_calls" if calls else "stop"}
        )
        await response.write(b"data: [DONE]\n\n")
        return response

    @staticmethod
    async def _write(response: web.StreamResponse, choice: dict[str, Any]) -> None:
        await response.write(b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n")


def check_messages(messages: list[dict[str, Any]]) -> None:
    """Every call is followed by its answer, and every answer belongs to a call."""
    awaited: list[str] = []
    for message in messages:
        if message["role"] == "tool":
            awaited.remove(message["tool_call_id"])
            assert isinstance(message["content"], str)
            continue
        assert awaited == []
        for call in message.get("tool_calls", []):
            assert call["type"] == "function"
            json.loads(call["function"]["arguments"])
            awaited.append(call["id"])
    assert awaited == []


def called(index: int, call_id: str, name: str, arguments: str) -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {
        "tool_calls": [{"index": index, "id": call_id, "type": "function", "function": function}]
    }


@asynccontextmanager
async def serving_tools(
    tmp_path: Path, endpoint: Endpoint
) -> AsyncIterator[tuple[ClientConversation, str]]:
    app = web.Application()
    app.router.add_post("/v1/chat/completions", endpoint.complete)
    file = tmp_path / "voicechat.toml"
    async with TestServer(app) as chat:
        file.write_text(
            "[server]\nport = 0\n"
            '[llm.default]\nprovider = "openai"\nmodel = "m"\nbase_url = '
            f'"{chat.make_url("/v1")}"\n'
            '[tools.clock]\nfunction = "tests.server.test_tools:clock"\n'
        )
        config = load_config(file, {"VOICECHAT_DATA_DIR": str(tmp_path / "data")})
        services = replace(
            build_services(replace(config, asr={}, tts={})),
            recognizers={"default": ScriptedRecognizer()},
            synthesizers={"default": ScriptedSynthesizer()},
        )
        async with serving(config, services, credentials(config), print) as server:
            assert server.key
            async with connect(server.url, key=server.key) as conversation:
                yield conversation, server.url


async def heard(
    conversation: ClientConversation, answers: dict[str, str]
) -> tuple[str, list[ToolCallMessage]]:
    """Take one turn; carry out the client's tools."""
    text, calls = "", []
    async for message in conversation:
        match message:
            case ReplyTextMessage(content=content):
                text += content
            case ToolCallMessage():
                calls.append(message)
                await conversation.answer_tool(message.id, answers[message.name])
            case TurnCompletedMessage():
                break
            case _:
                pass
    return text, calls


async def test_tools_of_both_sides_work_together(tmp_path: Path) -> None:
    endpoint = Endpoint(
        [
            [called(0, "s1", "clock", '{"city": "Paris"}'), called(1, "c1", "lamp", "{}")],
            [{"content": "It is noon, "}, {"content": "and the lamp is on."}],
            [{"content": "You are welcome."}],
        ]
    )
    async with serving_tools(tmp_path, endpoint) as (conversation, url):
        await conversation.update(chat_settings(tools=(LAMP,)))
        assert isinstance(await conversation.receive(), UpdatedMessage)
        await conversation.send_text("What time is it in Paris? And switch the lamp on.")
        text, calls = await heard(conversation, {"lamp": "on"})
        await conversation.send_text("Thanks.")
        await heard(conversation, {})
        async with ClientSession() as http, http.get(f"{url}/metrics") as response:
            metrics = await response.text()
    assert text == "It is noon, and the lamp is on."
    assert [(call.id, call.name, call.arguments) for call in calls] == [("c1", "lamp", "{}")]
    assert [tool["function"]["name"] for tool in endpoint.bodies[0]["tools"]] == ["lamp", "clock"]
    remembered = endpoint.bodies[2]["messages"]
    assert [message["role"] for message in remembered] == [
        "user", "assistant", "tool", "assistant", "tool", "assistant", "user"
    ]  # fmt: skip
    assert remembered[2]["content"] == '{"city":"Paris","time":"noon"}'
    assert remembered[4] == {"role": "tool", "tool_call_id": "c1", "content": "on"}
    assert 'voicechat_tool_calls_total{outcome="answered",tool="clock"} 1.0' in metrics
    assert 'voicechat_tool_calls_total{outcome="answered",tool="(client)"} 1.0' in metrics


async def test_an_interrupted_call_leaves_a_history_that_the_endpoint_accepts(
    tmp_path: Path,
) -> None:
    endpoint = Endpoint([[called(0, "c1", "lamp", "{}")], [{"content": "All right."}]])
    async with serving_tools(tmp_path, endpoint) as (conversation, _):
        await conversation.update(chat_settings(tools=(LAMP,)))
        await conversation.send_text("Switch the lamp on.")
        async for message in conversation:
            if isinstance(message, ToolCallMessage):
                break
        await conversation.cancel()
        await heard(conversation, {})
        await conversation.send_text("Never mind.")
        text, _ = await heard(conversation, {})
    assert text == "All right."
    roles = [message["role"] for message in endpoint.bodies[1]["messages"]]
    assert roles == ["user", "assistant", "tool", "assistant", "user"]


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        (
            'function = "nowhere_at_all:clock"',
            "tools.clock: function: 'nowhere_at_all:clock' cannot be imported",
        ),
        (
            "deadline_s = 3.0",
            r"tools.clock: .* exactly one of function, mcp_url, mcp_command, images",
        ),
        (
            'images = "brush"',
            r"tools.clock.images: there is no service .images.brush.; there are: none",
        ),
        ('images = "x"\nparameters = {}', "tools.clock: .* a table without parameters"),
        (
            'function = "x:y"\ndeadlin_s = 3.0',
            "tools.clock.deadlin_s: no such key; did you mean deadline_s",
        ),
        (
            'function = "x:y"\nfiller = 3',
            "tools.clock.filler: 3 is not allowed; it should be a text, or a table",
        ),
        (
            'function = "x:y"\nfiller = {fr = "x"}',
            r"tools.clock.filler.fr: no such key .allowed: en, zh",
        ),
        ('function = "x:y"\ndeadline_s = 0', "tools.clock.deadline_s: 0 is not allowed"),
    ],
)
def test_a_wrong_configuration_names_its_key(tmp_path: Path, lines: str, complaint: str) -> None:
    file = tmp_path / "voicechat.toml"
    file.write_text(f"[tools.clock]\n{lines}\n")
    with pytest.raises(ConfigError, match=complaint):
        build_services(load_config(file, {"VOICECHAT_DATA_DIR": str(tmp_path)}))
