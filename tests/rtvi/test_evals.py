"""Pipecat's evals play their scripted scenarios against this server.

The package, ``pipecat-ai[evals]``, weighs 523 MB and is not among the tests' own: where
the command ``pipecat`` is not found, this is skipped. ``PIPECAT`` may name it.
"""

import asyncio
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

import pytest
from yarl import URL

from tests.openai_realtime.server import KEY, realtime_server
from voicechat.providers.builtin import last_user_text
from voicechat.providers.interfaces import ChatRequest, ReplyFinished, ReplyPart, TextDelta
from voicechat.runtime.tool_function import open_tool
from voicechat.runtime.toolbox import Toolbox
from voicechat.session.types import ToolCall
from voicechat.testing.scripted import ScriptedModel

pytestmark = [pytest.mark.real_time, pytest.mark.long]

SCENARIOS = Path(__file__).parent / "evals.yaml"
STORY = "Once upon a time there was a king, and he had a daughter. "
ANSWERS: Mapping[str, Sequence[str | ToolCall]] = {
    "hello": ("Hello there.",),
    "and who are you": ("I am the bot.",),
    "what is my name": ("You are Jamie.",),
    "how is the weather in Ulm": (ToolCall(0, "call_w", "weather", '{"city": "Ulm"}'),),
    "tell me a long story": (STORY,) * 40,
    "stop it": ("I am silent.",),
    "12": ("You pressed 12.",),
}


async def weather(city: str) -> str:
    """Tell the weather."""
    return f"It rains in {city}."


class Actor(ScriptedModel):
    """Answers what was said last, or what a tool has answered."""

    async def reply(self, request: ChatRequest) -> AsyncIterator[ReplyPart]:
        self.requests.append(request)
        last = request.messages[-1]
        said: Sequence[str | ToolCall] = (str(last["content"]),)
        if last["role"] == "user":
            said = ANSWERS[last_user_text(request.messages).removeprefix("DTMF: ").rstrip("#")]
        for part in said:
            yield TextDelta(part) if isinstance(part, str) else part
            await asyncio.sleep(0.05)
        yield ReplyFinished("stop" if isinstance(said[0], str) else "tool_calls")


async def test_pipecats_evals(tmp_path: Path) -> None:
    command = os.environ.get("PIPECAT") or shutil.which("pipecat")
    if command is None:
        pytest.skip("needs pipecat-ai[evals], 523 MB")
    tools = Toolbox({"weather": open_tool("weather", "tests.rtvi.test_evals:weather")})
    async with realtime_server(tmp_path, Actor(), toolbox=tools) as server:
        url = f"ws://127.0.0.1:{URL(server.url).port}/v1/rtvi?token={KEY}"
        running = await asyncio.create_subprocess_exec(
            command,
            *(
                "eval",
                "run",
                str(SCENARIOS),
                "--bot-url",
                url,
                "--verbose",
                "--logs-dir",
                str(tmp_path),
            ),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        try:
            async with asyncio.timeout(300):
                output, _ = await running.communicate()
        finally:
            if running.returncode is None:
                running.kill()
    assert running.returncode == 0, output.decode()[-8000:]
