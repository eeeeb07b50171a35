"""A real MCP server that a stock client names, and addresses that are refused."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from openai import AsyncOpenAI

from tests.config.test_mcp_server import serving
from tests.node_packages import node_folder, run_node
from tests.openai_realtime.client import judged
from tests.openai_realtime.server import KEY, realtime_server
from tests.unused_port import unused_port
from voicechat.server.guarded_http import MAX_ANSWER_BYTES
from voicechat.server.listener import listening
from voicechat.session.types import ToolCall
from voicechat.testing.scripted import ScriptedModel

pytestmark = [pytest.mark.real_time, pytest.mark.long]


class Talk:
    """A connection of the ``openai`` package; each event is read by its models."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection

    async def until(self, kind: str, item_type: str = "") -> dict[str, Any]:
        async with asyncio.timeout(120):
            while True:
                event = judged(await self.connection.recv_bytes())
                assert event["type"] != "error", event
                matches = not item_type or event.get("item", {}).get("type") == item_type
                if event["type"] == kind and matches:
                    return event

    async def configure(self, url: str, **more: Any) -> dict[str, Any]:
        """Name a server; return the item of its tools."""
        tool = {"type": "mcp", "server_label": "weather", "server_url": url}
        session: Any = {
            "type": "realtime",
            "output_modalities": ["text"],
            "tools": [{**tool, "require_approval": "never", **more}],
        }
        await self.connection.session.update(session=session)
        return (await self.until("conversation.item.done", "mcp_list_tools"))["item"]  # type: ignore[no-any-return]

    async def ask(self) -> dict[str, Any]:
        """Let the model call; return the item of the call once it is answered."""
        await self.connection.response.create()
        return (await self.until("conversation.item.done", "mcp_call"))["item"]  # type: ignore[no-any-return]


@asynccontextmanager
async def talking(folder: Path, model: ScriptedModel, ports: list[int]) -> AsyncIterator[Talk]:
    toml = f'[transcription]\nallowed_networks = ["127.0.0.1/32"]\nallowed_ports = {ports}\n'
    async with (
        realtime_server(folder, model, toml=toml if ports else "") as server,
        AsyncOpenAI(api_key=KEY, base_url=f"{server.url}/v1") as client,
        client.realtime.connect(model="gpt-realtime") as connection,
    ):
        yield Talk(connection)


def calls(*names: str) -> ScriptedModel:
    arguments = {"weather": '{"city": "Ulm"}'}
    made = [(ToolCall(0, f"call_{n}", n, arguments.get(n, "{}")),) for n in names]
    return ScriptedModel((*made, ("It rains.",)))


async def test_the_openai_package_names_a_server(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.WARNING, "uvicorn")
    caplog.set_level(logging.WARNING, "websockets")
    caplog.set_level(logging.WARNING, "openai")
    port = unused_port()
    model = calls("weather", "storm", "flood", "weather")
    async with serving(port), talking(tmp_path, model, [port]) as talk:
        url = f"http://127.0.0.1:{port}/mcp?key=hidden"
        listed = await talk.configure(url, authorization="hidden")
        assert "error" not in listed
        names = [tool["name"] for tool in listed["tools"]]
        assert names == ["weather", "forecast", "tide", "flood", "storm"]
        read_only = {t["name"] for t in listed["tools"] if t["annotations"]["readOnlyHint"]}
        assert read_only == {"flood"}
        assert (await talk.ask())["output"] == "it rains in Ulm"
        assert "no storm is known" in (await talk.ask())["error"]["message"]
        assert (await talk.ask())["error"]["type"] == "tool_execution_error", "too much"
        assert (await talk.ask())["output"] == "it rains in Ulm", "connected to anew"
        await talk.connection.response.create()
        assert (await talk.until("response.output_text.done"))["text"] == "It rains."
    logged = [record for record in caplog.records if "hidden" in record.getMessage()]
    assert [record.name for record in logged] == []
    told = [str(m["content"]) for m in model.requests[-1].messages if m["role"] == "tool"]
    assert told[0] == told[3] == "it rains in Ulm"


async def test_where_a_server_must_not_lead(tmp_path: Path) -> None:
    port = unused_port()
    async with serving(port), talking(tmp_path, calls(), []) as talk:
        for url in (f"http://127.0.0.1:{port}/mcp", "http://127.0.0.1/mcp", "file:///etc/passwd"):
            listed = await talk.configure(url)
            assert listed["tools"] == []
            assert listed["error"]


async def test_servers_that_misbehave(tmp_path: Path) -> None:
    """They redirect elsewhere, send without end, pack, or say nonsense."""
    inner = unused_port()
    reached: list[str] = []

    async def misbehave(request: web.Request) -> web.StreamResponse:
        await request.read()
        kind = request.match_info["kind"]
        reached.append(kind)
        if kind == "redirect":
            raise web.HTTPTemporaryRedirect(f"http://127.0.0.1:{inner}/mcp")
        if kind == "packed":
            answer = web.Response(body=b"{}", content_type="application/json")
            answer.enable_compression(web.ContentCoding.gzip)
            return answer
        if kind == "endless":
            stream = web.StreamResponse(headers={"Content-Type": "application/json"})
            await stream.prepare(request)
            for _ in range(2 * MAX_ANSWER_BYTES // 65_536):
                await stream.write(b" " * 65_536)
            return stream
        return web.Response(text="nonsense", content_type="application/json")

    app = web.Application()
    app.router.add_route("*", "/{kind}", misbehave)
    async with (
        serving(inner),
        listening(app, "127.0.0.1", 0) as port,
        talking(tmp_path, calls(), [port]) as talk,
    ):
        for kind in ("redirect", "packed", "endless", "nonsense"):
            listed = await talk.configure(f"http://127.0.0.1:{port}/{kind}")
            assert listed["tools"] == []
            assert listed["error"], kind
            assert kind in reached
        await talk.connection.session.update(session={"type": "realtime", "tools": []})
        await talk.until("session.updated")


async def test_the_agents_npm_package_names_a_server(
    tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    """It goes on by itself once a call was answered, and approves calls."""
    folder = node_folder(pytestconfig, Path(__file__).parent / "node")
    port = unused_port()
    toml = f'[transcription]\nallowed_networks = ["127.0.0.1/32"]\nallowed_ports = [{port}]\n'
    call = ToolCall(0, "call_w", "weather", '{"city": "Ulm"}')
    model = ScriptedModel(((call,), ("It rains.",), (call,), ("It rains.",)))
    async with serving(port), realtime_server(tmp_path, model, toml=toml) as server:
        tools = f"http://127.0.0.1:{port}/mcp"
        await run_node(folder, "agents_mcp.mjs", server.url, KEY, tools)
