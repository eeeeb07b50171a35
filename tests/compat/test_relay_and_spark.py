"""The conversations that the server keeps for the relay's clients, and the accounts of
the Spark application.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.compat.stage import Stage, media_stage
from tests.rest.live import KEY, Answer
from voicechat.server import auth_throttle
from voicechat.server.rest.compat.spark import accounts

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


async def test_a_conversation_belongs_to_its_key(stage: Stage) -> None:
    """The same code means another conversation for another key."""
    key = stage.live.store.create_key("other")[1]
    path, body = "/send", {"text": "a secret", "inputFileId": "shared"}
    await ask(stage, path, body)
    answer = await ask(stage, path, body, Authorization=f"Bearer {key}")
    assert answer.json == {"text": SAID, "fileId": "shared"}
    assert len(stage.live.model.requests[-1].messages) == 1


async def test_messages_at_the_same_time_are_all_kept(stage: Stage) -> None:
    texts = [f"message {number}" for number in range(5)]
    body = {"inputFileId": "busy"}
    await asyncio.gather(*(ask(stage, "/send", {**body, "text": text}) for text in texts))
    await ask(stage, "/send", {**body, "text": "last"})
    asked = stage.live.model.requests[-1].messages
    said = [str(message["content"]) for message in asked if message["role"] == "user"]
    assert sorted(said[:-1]) == texts
    assert said[-1] == "last"
    assert len(asked) == 11


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

    dialog = [{"role": "user", "content": "x"}]
    answer = await ask(stage, "/textModel/chat", {**who, "dialog": dialog})
    assert answer.json == {"code": 0, "consume_token": 0, "content": SAID}
    samples = await ask(stage, "/voiceModel/chat", bytes(32_000), **who)
    assert samples.json["code"] == 0
    for stranger in ({}, {**who, "username": "wu"}, {**who, "uuid": "0" * 32}):
        refused = await ask(stage, "/textModel/chat", {**stranger, "dialog": dialog})
        assert refused.status == 401
        assert "content" not in refused.json


async def test_registrations_and_wrong_passwords_are_limited(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth_throttle, "FREE_FAILURES", 2)
    monkeypatch.setattr(auth_throttle, "MAX_WAITING", 0)
    monkeypatch.setattr(accounts, "REGISTRATIONS", 2)
    async with media_stage(tmp_path_factory.mktemp("limits"), CONFIG) as fresh:
        account = {"username": "li", "password": "correct horse", "email": "x@example.org"}
        answers = [
            await ask(fresh, "/auth/register", {**account, "username": name})
            for name in ("li", "li", "wu")
        ]
        assert [answer.status for answer in answers] == [200, 200, 429]
        assert int(answers[-1].headers["Retry-After"]) > 0
        answers = [
            await ask(fresh, "/auth/login", {"username": name, "password": "a guess"})
            for name in ("li", "nobody", "li")
        ]
        assert [answer.status for answer in answers] == [401, 401, 429]
        for answer in answers:
            assert set(answer.json) == {"code", "message", "msg"}, "no uuid"
        entered = await ask(fresh, "/auth/login", account)
        assert entered.json["code"] == 0, "who knows the password is let in at once"
        monkeypatch.setattr(accounts, "MOST_REQUESTS", 0)
        crowded = await ask(fresh, "/auth/login", account)
        assert (crowded.status, crowded.headers["Retry-After"]) == (503, "1")
