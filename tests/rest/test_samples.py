"""The original document's own request samples, with only the host and the key changed.

``samples/`` holds them as they stand there, but for the indentation that the document's
printing lost and the quotation marks around the image address ``xxx``.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.rest.live import KEY, Live, PartsModel, serving_live
from voicechat.providers.interfaces import ReplyFinished, TextDelta
from voicechat.session.types import ToolCall

pytestmark = pytest.mark.real_time

SAMPLES = Path(__file__).parent / "samples"
HOST = "https://www.sophnet.com"
CALL = PartsModel(
    [ToolCall(0, "call_1", "get_weather", '{"latitude":31}'), ReplyFinished("tool_calls")]
)
SPEAKS = PartsModel([TextDelta("我可以提供智能问答和帮助。"), ReplyFinished()])


@pytest.fixture
async def live(tmp_path: Path) -> AsyncIterator[Live]:
    names = ("Qwen2.5-72B-Instruct", "Qwen2.5-VL-72B-Instruct", "Qwen2.5-32B-Instruct")
    services = ("YOUR_EASYLLM_SERVICE_ID", "YOUR_SERVICE_ID", "${easyllm_id}")
    async with serving_live(
        tmp_path, dict.fromkeys(names, SPEAKS) | {"DeepSeek-v3": CALL}, services=services
    ) as live:
        yield live


async def run(live: Live, folder: Path, name: str) -> str:
    """Run a sample in ``folder``; give what it prints."""
    text = (SAMPLES / name).read_text("utf-8").replace(HOST, live.url)
    for placeholder in ("$API_KEY", "YOUR_API_KEY", '"API_KEY"'):
        text = text.replace(placeholder, f'"{KEY}"' if placeholder.startswith('"') else KEY)
    program = ["bash", "-c", text] if name.endswith(".sh") else [sys.executable, "-c", text]
    process = await asyncio.create_subprocess_exec(
        *program, cwd=folder, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(120):
        printed, complaints = await process.communicate()
    assert process.returncode == 0, complaints.decode()
    return printed.decode()


@pytest.mark.parametrize("name", ["chat.sh", "image.sh"])
async def test_chat_by_curl(live: Live, tmp_path: Path, name: str) -> None:
    answer = json.loads(await run(live, tmp_path, name))
    assert answer["object"] == "chat.completion"
    assert answer["choices"][0]["message"]["content"] == "我可以提供智能问答和帮助。"
    assert answer["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize("name", ["chat_sdk.py.txt", "image_sdk.py.txt"])
async def test_chat_by_openais_sdk(live: Live, tmp_path: Path, name: str) -> None:
    assert (await run(live, tmp_path, name)).strip() == "我可以提供智能问答和帮助。"


@pytest.mark.parametrize("name", ["tool_first.sh", "tool_second.sh"])
async def test_a_tool_is_called_by_curl(live: Live, tmp_path: Path, name: str) -> None:
    answer = json.loads(await run(live, tmp_path, name))
    [call] = answer["choices"][0]["message"]["tool_calls"]
    assert (call["type"], call["function"]["name"]) == ("function", "get_weather")
    assert json.loads(call["function"]["arguments"]) == {"latitude": 31}
    assert CALL.requests[-1].options["tools"]


async def test_a_spoken_reply_by_curl(live: Live, tmp_path: Path) -> None:
    lines = (await run(live, tmp_path, "voice_output.sh")).split()
    events = [json.loads(line[5:]) for line in lines]
    assert events[0]["choices"] == [{"delta": {"content": "", "role": "assistant"}, "index": 0}]
    assert events[1]["choices"] == [
        {"delta": {"content": "我可以提供智能问答和帮助。"}, "index": 0}
    ]
    assert events[-1]["status"] == "finish"
    assert any(event.get("audioFrame") for event in events)


async def test_speech_by_curl(live: Live, tmp_path: Path) -> None:
    lines = (await run(live, tmp_path, "speech_stream.sh")).split()
    events = [json.loads(line[5:]) for line in lines]
    assert [event["status"] for event in events] == ["accepting"] * (len(events) - 1) + ["finish"]
    assert live.synthesizer.texts == ["这是要合成的文本", "第二段文本"]


@pytest.mark.parametrize("name", ["speech_stream.py.txt", "speech_whole.py.txt"])
async def test_speech_by_requests(live: Live, tmp_path: Path, name: str) -> None:
    pytest.importorskip("requests")
    await run(live, tmp_path, name)
    assert (tmp_path / "output.mp3").read_bytes()[:1] == b"\xff", "an MP3 frame"
