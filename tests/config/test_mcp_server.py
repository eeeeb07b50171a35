import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import uvicorn

from tests.config import mcp_weather
from tests.unused_port import unused_port
from voicechat.config import mcp_server
from voicechat.config.services import configured_server
from voicechat.config.tool_sections import ToolConfig
from voicechat.errors import ConfigError
from voicechat.runtime.toolbox import LATE, Toolbox
from voicechat.session.types import ToolAnswer, ToolCall, ToolOutcome

pytestmark = [pytest.mark.real_time, pytest.mark.long]


@asynccontextmanager
async def opened(**settings: object) -> AsyncIterator[Toolbox]:
    tool = ToolConfig.model_validate(settings)
    toolbox = Toolbox({}, [configured_server("weather", tool)])
    await toolbox.start()
    try:
        yield toolbox.narrowed(None, {})
    finally:
        await toolbox.aclose()


def child(**more: object) -> dict[str, object]:
    return {"mcp_command": [sys.executable, "-m", "tests.config.mcp_weather"], **more}


async def ask(toolbox: Toolbox, name: str, arguments: str = '{"city": "Ulm"}') -> ToolAnswer:
    return await toolbox.start_call(ToolCall(0, "call", name, arguments)).wait_answer()


async def test_the_tools_of_a_child_process_are_offered_and_called() -> None:
    async with opened(**child(deadline_s=20.0)) as toolbox:
        assert set(toolbox.tools) == {"weather", "forecast", "tide", "flood", "storm"}
        definition = toolbox.tools["weather"].definition["function"]
        assert definition["description"] == "Tell the weather."  # type: ignore[index]
        assert definition["parameters"]["required"] == ["city"]  # type: ignore[index]
        answer = await ask(toolbox, "weather")
        assert (answer.content, answer.outcome) == ("it rains in Ulm", ToolOutcome.ANSWERED)
        failed = await ask(toolbox, "storm", "{}")
        assert failed.outcome is ToolOutcome.FAILED
        assert "no storm is known" in failed.content
        wrong = await ask(toolbox, "weather", '{"town": 3}')
        assert wrong.outcome is ToolOutcome.FAILED
        assert "city" in wrong.content, "the model is told what is wrong"
        assert (await ask(toolbox, "weather", "[")).outcome is ToolOutcome.FAILED


async def test_only_the_named_tools_are_offered_and_a_late_one_times_out() -> None:
    async with opened(**child(mcp_tools=["forecast"], deadline_s=0.5)) as toolbox:
        assert set(toolbox.tools) == {"forecast"}
        answer = await ask(toolbox, "forecast")
        assert (answer.content, answer.outcome) == (LATE, ToolOutcome.TIMEOUT)


async def test_progress_prolongs_a_call() -> None:
    async with opened(**child(mcp_tools=["tide"], deadline_s=1.0)) as toolbox:
        answer = await ask(toolbox, "tide", "{}")
        assert (answer.content, answer.outcome) == ("it is high", ToolOutcome.ANSWERED)


async def test_a_server_over_http_that_comes_and_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mcp_server, "FIRST_RETRY_S", 0.05)
    monkeypatch.setattr(mcp_server, "LAST_RETRY_S", 0.05)
    monkeypatch.setattr(mcp_server, "CONNECT_S", 1.0)
    port = unused_port()
    tool = ToolConfig.model_validate({"mcp_url": f"http://127.0.0.1:{port}/mcp"})
    server = configured_server("weather", tool)
    toolbox = Toolbox({}, [server])
    await toolbox.start()
    assert not toolbox.narrowed(None, {}).tools, "nobody listens yet"
    try:
        for _ in range(2):
            async with serving(port), asyncio.timeout(120):
                while not server.tools:  # noqa: ASYNC110 - it connects by itself
                    await asyncio.sleep(0.05)
                whole = toolbox.narrowed(["weather"], {})
                assert len(whole.tools) == 5, "a server's name stands for all its tools"
                assert not toolbox.narrowed(["other"], {}).tools
                assert (await ask(whole, "weather")).content == "it rains in Ulm"
            assert (await ask(whole, "weather")).outcome is ToolOutcome.FAILED
            async with asyncio.timeout(120):
                while server.tools:  # noqa: ASYNC110 - it notices by itself
                    await asyncio.sleep(0.05)
    finally:
        await toolbox.aclose()


@asynccontextmanager
async def serving(port: int) -> AsyncIterator[None]:
    app = mcp_weather.server.streamable_http_app()
    running = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error"))
    task = asyncio.create_task(running.serve())
    try:
        yield
    finally:
        running.should_exit = running.force_exit = True
        await task


def test_a_tool_is_a_function_or_a_server() -> None:
    for wrong in ({}, {"function": "a:b", "mcp_url": "http://x"}):
        with pytest.raises(
            ValueError, match="exactly one of function, mcp_url, mcp_command, images"
        ):
            ToolConfig.model_validate(wrong)


def test_the_extra_is_named_when_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mcp", None)
    tool = ToolConfig.model_validate({"mcp_url": "http://x"})
    with pytest.raises(ConfigError, match=r"tools\.weather: .*voicechat\[mcp\]"):
        configured_server("weather", tool)
