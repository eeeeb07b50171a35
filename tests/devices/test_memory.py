"""What an agent remembers of a device's earlier conversations."""

import json
from collections.abc import Sequence
from pathlib import Path

import aiohttp
import pytest

from tests.rest.live import KEY, Live, serving_live
from voicechat.cli import main
from voicechat.providers.interfaces import ChatModel
from voicechat.server.devices.memory import (
    MOST_SUMMARY_CHARACTERS,
    MOST_TURN_CHARACTERS,
    MOST_TURNS,
    DeviceMemory,
)
from voicechat.session.agent import Agent
from voicechat.session.types import Message
from voicechat.store.devices import DeviceStore
from voicechat.store.keys import KeyStore
from voicechat.testing.scripted import Failure, ScriptedModel

pytestmark = pytest.mark.real_time

MAC, OTHER = "aa:bb:cc:00:11:22", "aa:bb:cc:00:11:33"
CONFIG = '[devices]\naccept = "local"\nemotions = false\n[agents.default]\nmemory = "device"\n'
AGENT = Agent(remembers=True, instructions="Be kind.")
TALK: Sequence[Message] = (
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "my name\n is Ann"},
    {"role": "assistant", "content": "", "tool_calls": []},
    {"role": "tool", "content": "a secret"},
    {"role": "user", "content": [{"type": "text", "text": "look"}, {"type": "image_url"}]},
    {"role": "assistant", "content": "Nice to meet you, Ann."},
)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DeviceStore:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VOICECHAT_DATA_DIR", str(tmp_path))
    return DeviceStore(tmp_path, KeyStore(tmp_path / "keys.sqlite3"))


def memory_of(store: DeviceStore, model: ChatModel) -> DeviceMemory:
    return DeviceMemory(store, {"default": model})


async def test_a_conversation_is_summarised_and_recalled(store: DeviceStore) -> None:
    key_id = store.accept(MAC, "client", "", 1).key_id
    model = ScriptedModel(replies=[["The user is ", "called Ann."]])
    memory = memory_of(store, model)
    assert await memory.recall(key_id, AGENT) is AGENT
    await memory.remember(key_id, AGENT, TALK)
    recalled = await memory.recall(key_id, AGENT)
    assert recalled.instructions.startswith("Be kind.")
    assert "The user is called Ann." in recalled.instructions
    assert "User: my name is Ann\nUser: look\nYou: Nice to meet you, Ann." in recalled.instructions
    asked = str(model.requests[0].messages[1]["content"])
    assert "my name is Ann" in asked
    assert "a secret" not in asked
    await memory.remember(key_id, AGENT, TALK)
    asked = str(model.requests[1].messages[1]["content"])
    assert "Notes so far:\nThe user is called Ann." in asked


async def test_no_other_device_or_key_recalls_it(store: DeviceStore) -> None:
    key_id = store.accept(MAC, "client", "", 1).key_id
    other_id = store.accept(OTHER, "client", "", 1).key_id
    memory = memory_of(store, ScriptedModel())
    await memory.remember(key_id, AGENT, TALK)
    assert await memory.recall(other_id, AGENT) is AGENT
    assert await memory.recall("environment", AGENT) is AGENT
    another = Agent(name="kitchen", remembers=True)
    assert await memory.recall(key_id, another) is another
    store.revoke(MAC, 2)
    assert await memory.recall(key_id, AGENT) is AGENT


async def test_who_comes_with_the_id_of_another_device_knows_nothing(store: DeviceStore) -> None:
    key_id = store.accept(MAC, "client", "", 1).key_id
    memory = memory_of(store, ScriptedModel())
    await memory.remember(key_id, AGENT, TALK)
    again = store.pair(store.wait_for_code(MAC, "client", "", "", 2), "", "", 2)
    assert await memory.recall(again.key_id, AGENT) is not AGENT
    thief = store.pair(store.wait_for_code(MAC, "client-2", "", "", 3), "", "", 3)
    assert await memory.recall(thief.key_id, AGENT) is AGENT
    assert store.memories_of(MAC) == {}


async def test_nothing_is_remembered_where_that_is_not_wanted(store: DeviceStore) -> None:
    key_id = store.accept(MAC, "client", "", 1).key_id
    model = ScriptedModel()
    memory = memory_of(store, model)
    await memory.remember(key_id, Agent(), TALK)
    await memory.remember(key_id, AGENT, TALK[:1])
    await memory.remember("environment", AGENT, TALK)
    assert store.memories_of(MAC) == {}
    assert model.requests == []


async def test_a_model_that_fails_leaves_the_summary_before_and_the_last_turns(
    store: DeviceStore, caplog: pytest.LogCaptureFixture
) -> None:
    key_id = store.accept(MAC, "client", "", 1).key_id
    model = ScriptedModel(replies=[["Ann."]])
    await memory_of(store, model).remember(key_id, AGENT, TALK)
    failing = ScriptedModel(failure=Failure(calls=9))
    await memory_of(store, failing).remember(
        key_id, AGENT, [{"role": "user", "content": "a new word"}]
    )
    kept = store.memories_of(MAC)["default"]
    assert (kept.summary, kept.turns) == ("Ann.", ("User: a new word",))
    assert "a new word" not in caplog.text


async def test_what_is_kept_is_bounded(store: DeviceStore) -> None:
    key_id = store.accept(MAC, "client", "", 1).key_id
    model = ScriptedModel(replies=[["x" * 100] * 1_000])
    talk = [{"role": "user", "content": "y" * 2_000}] * 200
    await memory_of(store, model).remember(key_id, AGENT, talk)
    kept = store.memories_of(MAC)["default"]
    assert len(kept.summary) == MOST_SUMMARY_CHARACTERS
    assert [len(turn) for turn in kept.turns] == [MOST_TURN_CHARACTERS] * MOST_TURNS
    assert len(str(model.requests[0].messages[1])) < 13_000


async def test_it_is_shown_exported_and_erased_by_command(
    store: DeviceStore, capsys: pytest.CaptureFixture[str]
) -> None:
    key_id = store.accept(MAC, "client", "", 1).key_id
    await memory_of(store, ScriptedModel(replies=[["Ann."]])).remember(key_id, AGENT, TALK)
    assert main(["devices", "memory", MAC.upper()]) == 0
    shown = capsys.readouterr().out
    assert "Ann." in shown
    assert "  User: my name is Ann" in shown
    assert main(["devices", "memory", MAC, "--json"]) == 0
    exported = json.loads(capsys.readouterr().out)
    assert exported["agents"]["default"]["summary"] == "Ann."
    assert main(["devices", "forget", MAC]) == 0
    assert main(["devices", "forget", MAC]) == 1
    assert main(["devices", "memory", MAC]) == 0
    assert "nothing is remembered" in capsys.readouterr().out


async def talk(live: Live, text: str, key: str, device: str = MAC) -> None:
    """Hold a conversation of one turn."""
    headers = {"Authorization": f"Bearer {key}", "Device-Id": device}
    async with live.session.ws_connect(f"{live.url}/xiaozhi/v1/", headers=headers) as socket:
        await socket.send_json({"type": "hello", "transport": "websocket"})
        await socket.send_json({"type": "listen", "state": "detect", "text": text})
        async for message in socket:
            if message.type is aiohttp.WSMsgType.TEXT and '"stop"' in message.data:
                return


async def key_of(live: Live, device: str) -> str:
    headers = {"Device-Id": device, "Client-Id": "client"}
    async with live.session.post(f"{live.url}/xiaozhi/ota/", headers=headers) as response:
        return str((await response.json())["websocket"]["token"])


@pytest.mark.long
async def test_a_device_is_remembered_from_one_conversation_to_the_next(tmp_path: Path) -> None:
    replies = [["Hello Ann."], ["The user is called Ann."], ["You are Ann."]]
    models = {"default": ScriptedModel(replies=replies)}
    async with serving_live(tmp_path, models, config=CONFIG) as live:
        key = await key_of(live, MAC)
        await talk(live, "I am Ann", key)
        await live.until(lambda: len(live.model.requests) == 2)
        store = DeviceStore(tmp_path / "data", live.store)
        await live.until(lambda: store.memories_of(MAC)["default"].summary)
        await talk(live, "who am I", key)
        system = live.model.requests[2].messages[0]
        assert system["role"] == "system"
        assert "The user is called Ann." in str(system["content"])

        await talk(live, "who am I", await key_of(live, OTHER), OTHER)
        await talk(live, "who am I", KEY)  # says that it is the first one
    asked = [request.messages for request in live.model.requests if len(request.messages) == 1]
    assert [messages[0]["content"] for messages in asked][-2:] == ["who am I", "who am I"]
