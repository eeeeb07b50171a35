"""The stock client ``xiaozhi-sdk`` against a whole server: set-up, every mode of
listening, interruption, its own tools, a photo.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.devices.stock_client import MAC
from tests.rest.live import Live, serving_live
from voicechat.session.types import ToolCall
from voicechat.store.devices import DeviceStore
from voicechat.testing.scripted import ScriptedModel, ScriptedRecognizer

pytestmark = [pytest.mark.real_time, pytest.mark.long]

SCRIPT = Path(__file__).parent / "stock_client.py"
CONFIG = '[devices]\naccept = "local"\n'
WORDS = "go forward ten meters"


@dataclass(frozen=True)
class Told:
    """What the client was told, in the end."""

    messages: list[dict[str, Any]]
    asked: list[Any]
    played: int

    def of(self, kind: str, **values: str) -> list[dict[str, Any]]:
        wanted = {"type": kind, **values}
        return [each for each in self.messages if wanted.items() <= each.items()]

    @property
    def states(self) -> list[Any]:
        return [each.get("state") for each in self.messages if each["type"] == "tts"]


@asynccontextmanager
async def server(
    folder: Path, replies: Sequence[Sequence[str | ToolCall]] = (("Hello there.",),)
) -> AsyncIterator[Live]:
    models = {"default": ScriptedModel(replies=replies)}
    recognizer = ScriptedRecognizer(texts=(WORDS,))
    async with serving_live(folder, models, recognizer=recognizer, config=CONFIG) as live:
        yield live


async def play(live: Live, mode: str, *steps: Sequence[object]) -> Told:
    child = await asyncio.create_subprocess_exec(
        sys.executable, SCRIPT, live.url, mode, json.dumps(steps), stdout=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(120):
        out, _ = await child.communicate()
    assert child.returncode == 0
    return Told(**json.loads(out.splitlines()[-1]))


@pytest.mark.parametrize("mode", ["auto", "manual", "realtime"])
async def test_it_talks_in_each_mode(mode: str, recordings: Path, tmp_path: Path) -> None:
    end = ["stop"] if mode == "manual" else ["silence", 1.5]
    async with server(tmp_path) as live:
        speech = ["speak", str(recordings / "goforward.wav")]
        told = await play(live, mode, speech, end, ["wait", "stop", 1])
    assert (told.states[:2], told.states[-1]) == (["start", "sentence_start"], "stop")
    assert told.of("stt", text=WORDS)
    assert told.of("tts", text="Hello there.")
    assert told.played


async def test_it_interrupts_and_goes_on(tmp_path: Path) -> None:
    replies = [["A long answer. " * 40], ["Short."]]
    async with server(tmp_path, replies) as live:
        told = await play(
            live,
            "auto",
            ["text", "tell me a story"],
            ["heard", 10],
            ["abort"],
            ["wait", "stop", 1],
            ["text", "and now?"],
            ["wait", "stop", 2],
        )
    assert [state for state in told.states if state != "sentence_start"] == ["start", "stop"] * 2
    assert told.of("tts", text="Short.")


async def test_its_tools_are_called_by_the_model(tmp_path: Path) -> None:
    call = ToolCall(0, "c1", "self_get_weather", '{"city": "Paris"}')
    async with server(tmp_path, [[call], ["It is sunny."]]) as live:
        told = await play(live, "auto", ["text", "how is the weather?"], ["wait", "stop", 1])
    assert told.asked == [{"city": "Paris"}]
    assert told.of("tts", text="It is sunny.")
    first, second = live.model.requests
    tools = first.options["tools"]
    assert isinstance(tools, list)
    assert {"self_get_weather", "self_camera_take_photo"} == {
        each["function"]["name"] for each in tools
    }
    answers = [each["content"] for each in second.messages if each["role"] == "tool"]
    assert answers == ['{"weather": "sunny"}']


async def test_its_photo_is_seen_by_the_model(tmp_path: Path) -> None:
    call = ToolCall(0, "c1", "self_camera_take_photo", '{"question": "what is this?"}')
    async with server(tmp_path, [[call], ["A cat on a mat."], ["I see a cat."]]) as live:
        told = await play(live, "auto", ["text", "look at this"], ["wait", "stop", 1])
    seen = {"success": True, "action": "RESPONSE", "response": "A cat on a mat."}
    assert told.asked == [seen]
    assert told.of("tts", text="I see a cat.")
    content: Any = live.model.requests[1].messages[0]["content"]
    assert content[0]["text"] == "what is this?"
    assert content[1]["image_url"]["url"].startswith("data:image/jpeg;base64,")
    answers = [
        json.loads(str(each["content"]))
        for each in live.model.requests[2].messages
        if each["role"] == "tool"
    ]
    assert answers == [seen]


async def test_a_device_that_is_revoked_is_disconnected(tmp_path: Path) -> None:
    async with server(tmp_path, [["A long answer. " * 40]]) as live:
        store = DeviceStore(tmp_path / "data", live.store)

        async def revoke() -> None:
            async with asyncio.timeout(120):
                while not live.running.admission.sessions:  # noqa: ASYNC110 - a counter
                    await asyncio.sleep(0.05)
            assert await asyncio.to_thread(store.revoke, MAC, 1)

        told, _ = await asyncio.gather(
            play(live, "auto", ["text", "hello"], ["wait", "close", 1]), revoke()
        )
    assert told.of("websocket", state="close")
