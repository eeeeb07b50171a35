"""A protocol that lives in one folder of the tests, served by the server as it runs:
over TCP and in real time.
"""

import asyncio
import base64
import json
import sys
import wave
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.lines.dialect import LinesEndpoint
from voicechat.config import load_config
from voicechat.runtime.services import Services
from voicechat.server import identification
from voicechat.server.serve import Running, credentials, serving
from voicechat.session.types import ToolCall
from voicechat.testing.scripted import ScriptedModel, ScriptedRecognizer, ScriptedSynthesizer

pytestmark = pytest.mark.real_time

Line = dict[str, Any]
BLOCK_BYTES = 3200
BLOCK_S = 0.1
KEY = "k" * 20
GREETING = (
    "Welcome to this house of many rooms. You may go wherever you like. Where do you want to go?"
)
CONFIG = f"""
[dialects.lines]
dialect = "tests.lines.dialect:open_endpoint"

[agents.door]
instructions = "You open the door."
greeting = "{GREETING}"

[agents.door.turn_detection]
silence_duration_ms = 300
"""


class Caller:
    """Talks JSON lines."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.heard: list[Line] = []

    def say(self, **line: object) -> None:
        self._writer.write(json.dumps(line).encode() + b"\n")

    async def until(self, wanted: Callable[[Line], object]) -> Line:
        while line := await self._reader.readline():
            self.heard.append(json.loads(line))
            if wanted(self.heard[-1]):
                return self.heard[-1]
        raise EOFError(f"the server hung up; last: {self.heard[-1:]}")

    async def talk(self, pcm: bytes) -> None:
        """Send a recording in real time, then silence."""
        while True:
            block, pcm = pcm[:BLOCK_BYTES].ljust(BLOCK_BYTES, b"\0"), pcm[BLOCK_BYTES:]
            self.say(audio=base64.b64encode(block).decode())
            await asyncio.sleep(BLOCK_S)


@asynccontextmanager
async def lines_server(
    folder: Path, model: ScriptedModel, toml: str = CONFIG
) -> AsyncIterator[Running]:
    file = folder / "voicechat.toml"
    file.write_text(toml)
    environ = {"VOICECHAT_DATA_DIR": str(folder), "VOICECHAT_API_KEY": KEY}
    config = load_config(file, environ, {"server": {"port": 0}})
    services = Services(
        {"default": ScriptedRecognizer(("go somewhere",))},
        {"default": model},
        {"default": ScriptedSynthesizer()},
    )
    async with serving(config, services, credentials(config), lambda _: None) as server:
        yield server


@asynccontextmanager
async def calling(port: int, address: str = "127.0.0.1") -> AsyncIterator[Caller]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0))
    try:
        async with asyncio.timeout(120):
            yield Caller(reader, writer)
    finally:
        writer.close()


async def test_a_hands_free_conversation_with_greeting_interruption_tools_and_heard_text(
    recordings: Path, tmp_path: Path
) -> None:
    lamp = ToolCall(0, "call-1", "lamp", "{}")
    model = ScriptedModel(((lamp,), ("There is light.",)))
    with wave.open(str(recordings / "something.wav")) as file:
        recording = file.readframes(file.getnframes())
    async with (
        lines_server(tmp_path, model) as server,
        calling(server.ports["lines"]) as caller,
        asyncio.TaskGroup() as tasks,
    ):
        caller.say(key=KEY, agent="door")
        assert await caller.until(lambda line: "sentence" in line) == {
            "reply": 1,
            "sentence": "Welcome to this house of many rooms.",
        }
        talking = tasks.create_task(caller.talk(recording))
        cut = await caller.until(lambda line: "cut_to" in line)
        call = await caller.until(lambda line: "call" in line)
        caller.say(tool=call["call"], answer="it is on")
        await caller.until(lambda line: line.get("sentence") == "There is light.")
        await caller.until(lambda line: line.get("over") == "spoken")
        talking.cancel()

    assert GREETING.startswith(cut["cut_to"])
    assert 0 < len(cut["cut_to"]) < len(GREETING)
    assert any(line.get("heard") == "go somewhere" for line in caller.heard)
    said = [dict(message) for message in model.requests[-1].messages]
    assert [message["role"] for message in said] == [
        "system",
        "user",
        "assistant",
        "user",
        "assistant",
        "tool",
    ]
    assert said[0]["content"] == "You open the door."
    assert said[2]["content"] == cut["cut_to"]
    assert said[3]["content"] == "go somewhere"
    assert said[-1]["content"] == "it is on"


async def test_a_caller_with_a_wrong_key_is_told_so_and_not_served(tmp_path: Path) -> None:
    model = ScriptedModel()
    async with lines_server(tmp_path, model) as server, calling(server.ports["lines"]) as caller:
        caller.say(key="wrong", agent="door")
        refused = await caller.until(lambda line: "refused" in line)
        assert "key" in refused["why"]
        with pytest.raises(EOFError):
            await caller.until(lambda line: True)
    assert not model.requests


class OnAPath(LinesEndpoint):
    """The same protocol on a WebSocket, whose first message says who is calling."""

    paths = ("/lines/{room}",)
    port = None


def open_on_a_path() -> OnAPath:
    return OnAPath()


@pytest.mark.parametrize(("key", "answer"), [(KEY, "sentence"), ("wrong", "refused")])
async def test_the_same_dialect_is_spoken_on_a_websocket(
    tmp_path: Path, key: str, answer: str
) -> None:
    toml = CONFIG.replace("tests.lines.dialect:open_endpoint", f"{__name__}:open_on_a_path")
    async with (
        lines_server(tmp_path, ScriptedModel(), toml) as server,
        aiohttp.ClientSession() as http,
        http.ws_connect(f"{server.url}/lines/3") as socket,
        asyncio.timeout(120),
    ):
        assert not server.ports
        await socket.send_json({"key": key, "agent": "door"})
        assert answer in await socket.receive_json()


def test_a_dialect_is_one_short_file() -> None:
    assert len(Path(__file__).with_name("dialect.py").read_text().splitlines()) < 100


@pytest.mark.skipif(sys.platform != "linux", reason="needs a second loopback address")
async def test_callers_who_say_nothing_take_no_places_of_other_addresses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identification, "GREETING_OF_ADDRESS", 2)
    async with lines_server(tmp_path, ScriptedModel()) as server, AsyncExitStack() as silent:
        port = server.ports["lines"]
        for _ in range(2):
            await silent.enter_async_context(calling(port))
        async with calling(port) as third:
            refused = await third.until(lambda line: "refused" in line)
            assert "too many" in refused["why"]
        async with calling(port, "127.0.0.2") as other:
            other.say(key=KEY, agent="door")
            await other.until(lambda line: "sentence" in line)
