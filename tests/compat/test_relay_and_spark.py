"""The documents of a relay and of an application on Spark: their sample bodies, and
what their answers hold.
"""

import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.compat.stage import Stage, media_stage
from tests.compat.vendors import PICTURE, picture
from tests.rest.live import KEY, Answer

pytestmark = [
    pytest.mark.real_time,
    pytest.mark.long,
    pytest.mark.asyncio(loop_scope="module"),
]
CONFIG = f"""
[compat]
guest_key = "{KEY}"
documents = ["relay", "spark", "accounts"]
"""
SAID = "Hello there. How are you?"
COMPLETION = {
    "model": "text-davinci-003",
    "prompt": "Say This is test",
    "max_tokens": 16,
    "temperature": 1,
}
CHAT: dict[str, Any] = {
    "chatcode": "MjAyMy0wNS0zMCAxMTowOTo1NQ==",
    "model": "gpt-3.5-turbo",
    "messages": [{"role": "user", "content": "我第一句话是什么"}],
    "max_tokens": 1000,
    "temperature": 1,
    "initMessage": {
        "role": "system",
        "content": "现在开始你要扮演一只会说话的猫，每一句话的结尾都要加上“喵~”",
    },
}


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    async with media_stage(tmp_path_factory.mktemp("relay"), CONFIG) as stage:
        yield stage


async def ask(stage: Stage, path: str, body: Any, method: str = "POST", **headers: str) -> Answer:
    """Ask without a key, as the documents' own clients do."""
    data = {"data": body} if isinstance(body, bytes) else {"json": body}
    async with stage.live.session.request(
        method, stage.live.url + path, headers=headers, **data
    ) as response:
        return Answer(
            response.status, response.content_type, dict(response.headers), await response.read()
        )


async def test_the_models(stage: Stage) -> None:
    answer = (await ask(stage, "/openai/models", None, "GET")).json
    assert (answer["code"], answer["message"]) == (0, "响应成功")
    assert "default" in answer["data"]["models"]
    assert set(answer["data"]["suggest"]) == {
        *("chat", "completions", "edits", "audio", "finetunes", "embeddings", "moderations")
    }


async def test_completions_and_edits(stage: Stage) -> None:
    whole = await ask(stage, "/openai/completions", {**COMPLETION, "n": 2})
    assert whole.json == {"code": 0, "data": [SAID, SAID], "message": "响应成功"}
    edits = {
        "model": "text-davinci-edit-001",
        "input": "What day of the wek is it?",
        "instruction": "Fix the spelling mistakes",
        "temperature": 1,
        "n": 1,
    }
    assert (await ask(stage, "/openai/edits", edits)).json["data"] == [SAID]
    asked = stage.live.model.requests[-1].messages
    assert asked[-1]["content"] == "Fix the spelling mistakes\n\nWhat day of the wek is it?"


def pieces_of(answer: Answer, kind: str) -> list[dict[str, Any]]:
    text = answer.content.decode()
    if kind == "stream":
        assert answer.content_type == "application/x-ndjson"
        return [json.loads(line) for line in text.splitlines()]
    assert answer.content_type == "text/event-stream"
    return [json.loads(event.removeprefix("data: ")) for event in text.split("\n\n") if event]


@pytest.mark.parametrize("kind", ["stream", "sse"])
async def test_streams(stage: Stage, kind: str) -> None:
    pieces = pieces_of(await ask(stage, f"/openai/completions/{kind}", COMPLETION), kind)
    assert "".join(piece["data"] for piece in pieces[:-1]) == SAID
    assert {piece["message"] for piece in pieces[:-1]} == {"continue"}
    assert pieces[-1] == {"code": 0, "data": "[DONE]", "message": "end"}

    pieces = pieces_of(await ask(stage, f"/openai/chat/{kind}", CHAT), kind)
    assert pieces[-2] == {"code": 0, "data": CHAT["chatcode"], "message": "code"}
    assert pieces[-1]["message"] == "end"


async def test_a_conversation_is_kept_by_its_code(stage: Stage) -> None:
    body = {key: value for key, value in CHAT.items() if key != "chatcode"}
    first = (await ask(stage, "/openai/chat", body)).json["data"]
    assert (first["role"], first["content"]) == ("assistant", SAID)
    again = {**body, "chatcode": first["chatcode"], "initMessage": {"role": "user", "content": "x"}}
    assert (await ask(stage, "/openai/chat", again)).json["data"]["chatcode"] == first["chatcode"]
    question = CHAT["messages"][0]
    assert list(stage.live.model.requests[-1].messages) == [
        CHAT["initMessage"],
        question,
        {"role": "assistant", "content": SAID},
        question,
    ]
    sent = (await ask(stage, "/send", {"text": "你好", "inputFileId": "xxx"})).json
    assert sent == {"text": SAID, "fileId": "xxx"}
    await ask(stage, "/send", {"text": "again", "inputFileId": "xxx"})
    assert len(stage.live.model.requests[-1].messages) == 3
    fresh = (await ask(stage, "/send", {"text": "你好"})).json["fileId"]
    assert len(fresh) >= 24


async def test_pictures(stage: Stage) -> None:
    body = {
        "prompt": "A cute baby sea otter",
        "n": 1,
        "size": "1024x1024",
        "response_format": "b64_json",
    }
    answer = (await ask(stage, "/openai/image", body)).json
    assert answer["data"] == [{"b64_json": base64.b64encode(PICTURE).decode()}]


WRONG = [
    ("/openai/completions", {"model": "m"}, "prompt: must be present"),
    ("/openai/completions", {**COMPLETION, "max_tokens": 4097}, "max_tokens: 4097 is not between"),
    ("/openai/completions", {**COMPLETION, "temperature": 2.1}, "temperature: 2.1 is not between"),
    ("/openai/completions", {**COMPLETION, "n": 0}, "n: 0 is not between 1 and 10"),
    ("/openai/chat", {**CHAT, "messages": []}, "messages: 0 messages are not between"),
    ("/openai/chat", {**CHAT, "messages": [{"role": "x", "content": ""}]}, "messages[0].role: "),
    ("/openai/chat", {**CHAT, "chatcode": "x" * 129}, "chatcode: longer than 128 characters"),
    ("/openai/edits", {"model": "m", "input": "x"}, "instruction: must be present"),
    ("/openai/image", {"prompt": "x", "size": "1x1"}, 'size: "1x1" is not one of 256x256'),
    ("/openai/image", {"prompt": "x", "response_format": "png"}, "response_format: "),
    ("/send", {}, "text: must be present"),
    ("/textModel/chat", {}, "dialog: must be present"),
    ("/auth/register", {"username": "a", "password": "short", "email": "a@b.c"}, "password: 5"),
]


async def test_each_row_of_the_tables_is_checked(stage: Stage) -> None:
    for path, body, message in WRONG:
        answer = await ask(stage, path, body)
        assert answer.status == 400, (path, answer.content)
        assert set(answer.json) == {"code", "message", "msg"}
        assert answer.json["message"].startswith(message), answer.json


async def test_accounts_and_what_they_open(stage: Stage) -> None:
    account = {"username": "li", "password": "correct horse", "email": "li@example.org"}
    made = await ask(stage, "/auth/register", account)
    taken = await ask(stage, "/auth/register", {**account, "password": "another one"})
    assert made.content == taken.content, "nobody learns that the name was taken"
    wrong = await ask(stage, "/auth/login", {"username": "li", "password": "another one"})
    unknown = await ask(stage, "/auth/login", {"username": "nobody", "password": "x"})
    assert wrong.status == unknown.status == 401
    assert wrong.content == unknown.content
    assert "uuid" not in wrong.json
    user = (await ask(stage, "/auth/login", account)).json
    assert user["code"] == 0
    who = {"uuid": user["uuid"], "username": "li"}

    dialog = [{"role": "system", "content": "x"}, {"role": "user", "content": "query text"}]
    answer = await ask(stage, "/textModel/chat", {**who, "dialog": dialog})
    assert answer.json == {"code": 0, "consume_token": 0, "content": SAID}
    streamed = await ask(stage, "/textModel/stream", {**who, "dialog": dialog})
    frames = [json.loads(line) for line in streamed.content.splitlines()]
    texts = [frame["payload"]["choices"]["text"][0]["content"] for frame in frames]
    assert "".join(texts) == SAID
    assert [frame["header"]["status"] for frame in frames][-1] == 2
    assert set(frames[-1]["payload"]["usage"]["text"]) == {
        *("question_tokens", "prompt_tokens", "completion_tokens", "total_tokens")
    }
    assert frames[0]["header"]["sid"] == frames[-1]["header"]["sid"]

    samples = await ask(stage, "/voiceModel/chat", bytes(32_000), **who)
    assert samples.json["code"] == 0
    read = await ask(stage, "/PictureToTextModel/chat", picture(kind="JPEG"), **who)
    assert read.json["content"].startswith("测试\n")

    for stranger in ({}, {**who, "username": "wu"}, {**who, "uuid": "0" * 32}):
        refused = await ask(stage, "/textModel/chat", {**stranger, "dialog": dialog})
        assert refused.status == 401
        assert "content" not in refused.json
