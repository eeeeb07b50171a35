"""A whole server: conversations are recorded, found, fetched, counted and erased."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from websockets.asyncio.client import connect as connect_websocket

from tests.records.test_recording import samples_of
from tests.rest.live import KEY, Live, serving_live
from voicechat.records.replay import replay
from voicechat.store.access import ApiEndpoint, Grant, Scope
from voicechat.testing.scripted import ScriptedModel

pytestmark = [
    pytest.mark.real_time,
    pytest.mark.long,
    pytest.mark.asyncio(loop_scope="module"),
]
CONFIG = """
[admission]
unquestioned_sessions = 1000000
[agents.heard]
record = "audio"
[agents.read]
record = "text"
[agents.silent]
instructions = "Nobody listens."
[prices]
currency = "EUR"
million_characters = 1000000
"""
SECRET_WORDS = "Zebrafinken ziehen nachts"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def live(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Live]:
    folder = tmp_path_factory.mktemp("served")
    model = ScriptedModel(replies=((f"{SECRET_WORDS}. ",),))
    async with serving_live(folder, models={"default": model}, config=CONFIG) as served:
        yield served


def key_of(live: Live, project: str, *endpoints: ApiEndpoint) -> str:
    _, key = live.store.create_key(
        project, Grant(scope=Scope(projects=(project,), endpoints=endpoints))
    )
    return key


async def hold(live: Live, agent: str, key: str, project: str) -> None:
    """Hold a conversation of one turn."""
    names = "asr_easyllm_id=default&tts_easyllm_id=default"
    address = f"{live.url}/api/open-apis/projects/{project}/chat/speech-chat"
    async with (
        asyncio.timeout(120),
        connect_websocket(
            f"{address.replace('http', 'ws', 1)}?token={key}&model={agent}&{names}"
        ) as socket,
    ):
        await socket.send(bytes(32_000))
        await socket.send(json.dumps({"event_type": "input_audio_buffer.complete"}))
        while json.loads(await socket.recv()).get("event_type") != "conversation.chat.completed":
            pass


async def found(live: Live, key: str, query: str = "", count: int = 1) -> list[dict[str, Any]]:
    """Return the finished records that a search finds, once there are ``count``."""
    async with asyncio.timeout(120):
        while True:
            answer = await live.ask(f"/v1/records?{query}", key=key, method="GET")
            assert answer.status == 200, answer.content
            done = [each for each in answer.json["data"] if each["state"] == "done"]
            if len(done) >= count:
                return done
            await asyncio.sleep(0.2)


async def test_a_recorded_conversation_is_found_fetched_and_repeats_itself(
    live: Live, tmp_path: Path
) -> None:
    reader = key_of(live, "one", ApiEndpoint.RECORDS)
    talker = key_of(live, "one")
    await hold(live, "heard", talker, "one")
    (item,) = await found(live, reader)
    assert (item["agent"], item["turns"], item["mode"]) == ("heard", 1, "audio")
    assert [each["id"] for each in await found(live, reader, "q=zebrafinken nachts")] == [
        item["id"]
    ]
    answer = await live.ask("/v1/records?q=zebrafinken%20tags", key=reader, method="GET")
    assert answer.json["data"] == []

    path = f"/v1/records/{item['id']}"
    details = (await live.ask(path, key=reader, method="GET")).json
    (turn,) = details["summary"]["turns"]
    assert turn["answer"]["text"].strip() == f"{SECRET_WORDS}."
    assert details["usage"]["characters"] >= len(SECRET_WORDS)
    assert details["usage"]["cost"] == details["usage"]["characters"]
    assert details["currency"] == "EUR"
    events = await live.ask(f"{path}/events", key=reader, method="GET")
    assert events.content_type == "application/x-ndjson"
    told = replay(events.content.splitlines(keepends=True))
    assert told.difference is None, str(told.difference)
    audio = await live.ask(f"{path}/audio", key=reader, method="GET")
    assert audio.status == 200, audio.content
    (tmp_path / "audio.opus").write_bytes(audio.content)
    left, right = samples_of(tmp_path / "audio.opus")
    assert abs(right.astype(int)).max() > 10 * abs(left.astype(int)).max(), "he was silent"


async def test_nobody_else_reads_or_guesses_a_record(live: Live) -> None:
    talker, reader = key_of(live, "two"), key_of(live, "two", ApiEndpoint.RECORDS)
    await hold(live, "read", talker, "two")
    (item,) = await found(live, reader)
    other = key_of(live, "three", ApiEndpoint.RECORDS)
    for path in ("", "/events", "/audio"):
        answer = await live.ask(f"/v1/records/{item['id']}{path}", key=other, method="GET")
        assert answer.status == 404
    erased = await live.ask(f"/v1/records/{item['id']}", key=other, method="DELETE")
    assert erased.status == 404
    for query in ("", "q=zebrafinken", "agent=read"):
        answer = await live.ask(f"/v1/records?{query}", key=other, method="GET")
        assert answer.json["data"] == []
    # A key that opens everything does not open what others have said.
    answer = await live.ask("/v1/records", key=talker, method="GET")
    assert answer.status == 401
    named = f"/api/open-apis/projects/two/records/{item['id']}"
    assert (await live.ask(named, key=KEY, method="GET")).status == 200
    assert (await live.ask(named, key=other, method="GET")).status == 401
    for guess in ("rec_", "rec_" + "a" * 22, "..%2f..", "x" * 400):
        answer = await live.ask(f"/v1/records/{guess}", key=reader, method="GET")
        assert answer.status == 404


async def test_an_unrecorded_conversation_leaves_its_usage_only(live: Live) -> None:
    talker, reader = key_of(live, "four"), key_of(live, "four", ApiEndpoint.RECORDS)
    await hold(live, "silent", talker, "four")
    async with asyncio.timeout(120):
        while True:
            answer = await live.ask("/v1/usage?by=agent", key=reader, method="GET")
            if answer.json["data"]:
                break
            await asyncio.sleep(0.2)
    (group,) = answer.json["data"]
    assert (group["group"], group["sessions"]) == ("silent", 1)
    assert group["heard_ms"] == 1000
    assert group["spoken_ms"] > 0
    assert answer.json["total"]["cost"] == group["characters"]
    metrics = (await live.ask("/metrics", key="", method="GET")).content.decode()
    assert 'voicechat_session_usage_total{of="characters"}' in metrics
    by_key = await live.ask("/v1/usage?by=key", key=reader, method="GET")
    assert by_key.json["data"][0]["group"] == talker[3:11]
    elsewhere = key_of(live, "nobody", ApiEndpoint.RECORDS)
    assert (await live.ask("/v1/usage", key=elsewhere, method="GET")).json["data"] == []
    assert (await live.ask("/v1/records", key=reader, method="GET")).json["data"] == []


async def test_an_erased_record_leaves_nothing_on_disk(live: Live, tmp_path: Path) -> None:
    root = live.store._database.path.parent
    talker, reader = key_of(live, "five"), key_of(live, "five", ApiEndpoint.RECORDS)
    for _ in range(3):
        await hold(live, "heard", talker, "five")
    items = await found(live, reader, count=3)
    ids = [item["id"].encode() for item in items]
    assert any(ids[0] in content for content in everything_below(root))
    erased = await live.ask(f"/v1/records/{items[0]['id']}", key=reader, method="DELETE")
    assert erased.json["deleted"] == 1
    nothing = [content for content in everything_below(root) if ids[0] in content]
    # The usage of the session stays, without anything that was said.
    assert len(nothing) <= 1
    assert all(SECRET_WORDS.encode() not in content for content in nothing)
    for item in items[1:]:
        await live.ask(f"/v1/records/{item['id']}", key=reader, method="DELETE")
    assert (await live.ask("/v1/records", key=reader, method="GET")).json["data"] == []


def everything_below(root: Path) -> list[bytes]:
    return [path.read_bytes() + str(path).encode() for path in root.rglob("*") if path.is_file()]


async def test_no_key_is_in_anything_that_is_stored(live: Live) -> None:
    root = live.store._database.path.parent
    talker, reader = key_of(live, "six"), key_of(live, "six", ApiEndpoint.RECORDS)
    await hold(live, "heard", talker, "six")
    await found(live, reader)
    stored = everything_below(root)
    assert stored
    for key in (talker, reader, KEY):
        assert not any(key.encode() in content for content in stored)


@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("from=yesterday", "from"),
        ("state=gone", "state"),
        ("failed=perhaps", "failed"),
        ("after=17-x", "after"),
        ("q=" + "x" * 501, "q"),
    ],
)
async def test_what_a_search_does_not_allow_is_refused(
    live: Live, query: str, parameter: str
) -> None:
    answer = await live.ask(f"/v1/records?{query}", key=KEY, method="GET")
    assert answer.status == 400
    assert answer.json["error"]["message"].startswith(f"{parameter}:")
