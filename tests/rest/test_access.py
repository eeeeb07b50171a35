"""Keys and tokens on a live server: what they open, how much they may use, and how they
end.
"""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.rest.live import KEY, PROJECT, Answer, Live, serving_live
from voicechat.audio.wav import wav_header
from voicechat.client import ClientConversation, ConnectionLostError, connect, recognise_stream
from voicechat.client.messages import ErrorMessage, PongMessage
from voicechat.errors import AdmissionError, Status
from voicechat.runtime.wall_clock import unix_s
from voicechat.server import key_watch
from voicechat.server.auth_throttle import AuthThrottle
from voicechat.store import private_database
from voicechat.store.access import ApiEndpoint, Grant, Quota, Scope
from voicechat.store.keys import KeyStore
from voicechat.store.quotas import Accounts

pytestmark = pytest.mark.real_time

PATIENCE_S = 120.0
CHAT = {"model": "default", "messages": [{"role": "user", "content": "hello"}]}
SPEECH = {
    "easyllm_id": "default",
    "text": ["hi"],
    "synthesis_param": {"format": "PCM_16000HZ_MONO_16BIT"},
}
MODELS = "/v1/models"
TOKENS = Grant(scope=Scope(endpoints=(ApiEndpoint.TOKENS, ApiEndpoint.SPEECH)))


@pytest.fixture
async def live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Live]:
    monkeypatch.setattr(key_watch, "WATCH_S", 0.02)
    async with serving_live(tmp_path) as server:
        yield server


def make_key(live: Live, grant: Grant) -> str:
    return live.store.create_key("test", grant)[1]


async def make_token(live: Live, key: str = KEY, *, project: str = "p", **asked: object) -> Answer:
    return await live.ask(f"/api/open-apis/projects/{project}/tokens", asked, key=key)


# --- scopes and expiry ----------------------------------------------------------------


async def test_a_key_opens_its_endpoints_and_no_others(live: Live) -> None:
    key = make_key(live, Grant(scope=Scope(endpoints=(ApiEndpoint.CHAT,))))
    assert (await live.ask("/v1/chat/completions", CHAT, key=key)).status == 200
    assert (await live.ask(MODELS, key=key, method="GET")).status == 200
    refused = await live.ask(f"{PROJECT}/easyllms/voice/synthesize-audio", SPEECH, key=key)
    assert (refused.status, refused.json["status"]) == (401, 40101)
    assert "'speech'" in refused.json["message"]
    assert refused.headers["WWW-Authenticate"] == 'Bearer error="insufficient_scope"'
    refused = await live.ask(MODELS, key="wrong", method="GET")
    assert refused.headers["WWW-Authenticate"] == 'Bearer error="invalid_token"'
    for refused in (
        await make_token(live, key),
        await make_token(live, make_key(live, TOKENS), endpoints=["chat"]),
    ):
        assert (refused.status, refused.json["status"]) == (401, 40101)
        assert refused.headers["WWW-Authenticate"] == 'Bearer error="insufficient_scope"'
    with pytest.raises(AdmissionError, match="conversation"):
        async with connect(live.url, key=key):
            raise AssertionError("must not be entered")
    with pytest.raises(ConnectionLostError, match="recognition"):
        async with recognise_stream(live.url, key=key):
            raise AssertionError("must not be entered")


async def test_a_key_opens_its_projects_and_no_others(live: Live) -> None:
    key = make_key(live, Grant(scope=Scope(projects=("p", "q"))))
    for project, status in (("p", 200), ("q", 200), ("r", 401), ("default", 401)):
        path = f"/api/open-apis/projects/{project}/easyllms/voice/synthesize-audio"
        assert (await live.ask(path, SPEECH, key=key)).status == status, project
    assert (await live.ask("/v1/chat/completions", CHAT, key=key)).status == 200, (
        "paths without one mean its first"
    )


async def test_a_path_without_a_project_means_the_keys_own(live: Live) -> None:
    key = make_key(live, Grant(scope=Scope(projects=("q",))))
    for folder in ("/api/open-apis/projects/q", "/api/open-apis/projects", "/api/open-apis"):
        spoken = await live.ask(f"{folder}/easyllms/voice/synthesize-audio", SPEECH, key=key)
        assert spoken.status == 200, folder
        made = await live.ask(f"{folder}/tokens", {}, key=key)
        assert made.status == 201, folder
        refused = await live.ask(
            "/api/open-apis/projects/p/easyllms/voice/synthesize-audio",
            SPEECH,
            key=made.json["token"],
        )
        assert refused.status == 401, "the token is for q"
        tasks = await live.ask(
            f"{folder}/easyllms/speechtotext/transcriptions", key=key, method="GET"
        )
        assert tasks.status == 200, folder


async def test_another_method_is_told_which_there_are(live: Live) -> None:
    answer = await live.ask("/api/open-apis/projects/p/tokens", method="GET")
    assert (answer.status, answer.headers["Allow"]) == (405, "POST")
    assert answer.json["status"] == 40501
    answer = await live.ask("/v1/chat/completions", method="GET")
    assert (answer.status, answer.headers["Allow"]) == (405, "POST")
    assert answer.json["error"]["message"] == "this path takes POST"
    answer = await live.ask("/openai/chat", method="DELETE")
    assert (answer.status, answer.headers["Allow"]) == (405, "POST")
    assert answer.json == {
        "code": 40501,
        "message": "this path takes POST",
        "msg": "this path takes POST",
    }


async def test_an_expired_key_is_refused(live: Live) -> None:
    assert (
        await live.ask(
            MODELS, key=make_key(live, Grant(expires_s=int(unix_s()) + 60)), method="GET"
        )
    ).status == 200
    assert (
        await live.ask(MODELS, key=make_key(live, Grant(expires_s=int(unix_s()))), method="GET")
    ).status == 401


async def next_error(conversation: ClientConversation) -> ErrorMessage:
    async with asyncio.timeout(PATIENCE_S):
        while not isinstance(message := await conversation.receive(), ErrorMessage):
            pass
        return message


async def test_the_open_sockets_of_a_revoked_key_end_and_those_of_others_go_on(live: Live) -> None:
    record, key = live.store.create_key("revoked")
    async with connect(live.url, key=KEY) as staying:
        async with (
            connect(live.url, key=key) as ending,
            recognise_stream(live.url, key=key) as stream,
        ):
            live.store.revoke_key(record.id)
            assert (await next_error(ending)).status == Status.NOT_AUTHORISED
            async with asyncio.timeout(PATIENCE_S):
                with pytest.raises(ConnectionLostError):
                    await anext(stream)
        with pytest.raises(AdmissionError, match="valid key"):
            async with connect(live.url, key=key):
                raise AssertionError("must not be entered")
        await staying.ping()
        assert (await staying.receive()).status == Status.OK  # type: ignore[union-attr]


@pytest.mark.parametrize("fault", ["locked", "broken", "not readable"])
async def test_open_sockets_go_on_while_the_keys_cannot_be_read(
    fault: str, live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(private_database, "_LOCK_TIMEOUT_S", 0.01)
    record, key = live.store.create_key("stored")
    path = live.store._database.path
    async with connect(live.url, key=key) as conversation:
        live.store.create_key("another")  # the file has to be read again
        changed = path.read_bytes()
        looked = asyncio.Event()
        with ExitStack() as until_then:
            match fault:
                case "locked":
                    other = until_then.enter_context(
                        closing(sqlite3.connect(path, isolation_level=None))
                    )
                    other.execute("BEGIN EXCLUSIVE")
                case "broken":
                    path.write_bytes(b"no database" + changed[11:])
                case _:
                    path.unlink()
                    path.mkdir()
            refresh = KeyStore.refresh

            def look(store: KeyStore) -> None:
                looked.set()
                refresh(store)

            monkeypatch.setattr(KeyStore, "refresh", look)
            if fault == "not readable":  # then the file's version cannot be read either
                await asyncio.sleep(0.1)
            else:
                async with asyncio.timeout(PATIENCE_S):
                    await looked.wait()
            await conversation.ping()
            assert (await conversation.receive()).status == Status.OK  # type: ignore[union-attr]
        if path.is_dir():
            path.rmdir()
        path.write_bytes(changed)
        monkeypatch.setattr(private_database, "_LOCK_TIMEOUT_S", 5.0)
        live.store.revoke_key(record.id)
        assert (await next_error(conversation)).status == Status.NOT_AUTHORISED


async def test_the_watch_goes_on_after_a_look_that_failed(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = [sqlite3.OperationalError("database or disk is full")] * 3
    used_up = Accounts.used_up

    def fail_first(accounts: Accounts) -> frozenset[str]:
        if failures:
            raise failures.pop()
        return used_up(accounts)

    monkeypatch.setattr(Accounts, "used_up", fail_first)
    record, key = live.store.create_key("stored")
    async with connect(live.url, key=key) as conversation:
        async with asyncio.timeout(PATIENCE_S):
            while failures:  # noqa: ASYNC110 - the watch tells nobody
                await asyncio.sleep(0.01)
        await conversation.ping()
        assert (await conversation.receive()).status == Status.OK  # type: ignore[union-attr]
        live.store.revoke_key(record.id)
        assert (await next_error(conversation)).status == Status.NOT_AUTHORISED


# --- quotas ---------------------------------------------------------------------------


async def test_requests_a_minute_are_answered_with_when_to_come_back(live: Live) -> None:
    key = make_key(live, Grant(quota=Quota(requests_per_minute=2)))
    for _ in range(2):
        assert (await live.ask(MODELS, key=key, method="GET")).status == 200
    openai_form = await live.ask(MODELS, key=key, method="GET")
    assert (openai_form.status, openai_form.headers["Retry-After"]) == (429, "30")
    assert openai_form.json["error"]["type"] == "rate_limit_error"
    own_form = await live.ask(f"{PROJECT}/easyllms/voice/synthesize-audio", SPEECH, key=key)
    assert (own_form.status, own_form.headers["Retry-After"], own_form.json["status"]) == (
        429,
        "30",
        42901,
    )
    with pytest.raises(AdmissionError, match="try again in 30 s") as refused:
        async with connect(live.url, key=key):
            raise AssertionError("must not be entered")
    assert refused.value.status is Status.QUOTA


async def test_sockets_and_requests_of_a_key_are_counted_together(live: Live) -> None:
    key = make_key(live, Grant(quota=Quota(max_sessions=1)))
    async with connect(live.url, key=key):
        assert (await live.ask(MODELS, key=key, method="GET")).status == 429
        assert (await live.ask(MODELS, method="GET")).status == 200, "another key"
        with pytest.raises(AdmissionError, match="1 sessions at once"):
            async with connect(live.url, key=key):
                raise AssertionError("must not be entered")
    await live.until(lambda: not live.running.admission.sessions)
    assert (await live.ask(MODELS, key=key, method="GET")).status == 200


async def test_audio_spoken_and_recognised_is_counted_and_ends_the_session_that_has_used_it_up(
    live: Live,
) -> None:
    key = make_key(live, Grant(quota=Quota(audio_seconds_per_day=1)))
    path = f"{PROJECT}/easyllms/voice/synthesize-audio"
    half_second = SPEECH | {"text": ["x" * 50]}
    assert (await live.ask(path, half_second, key=key)).status == 200
    async with connect(live.url, key=key) as conversation:
        await conversation.send_audio(bytes(16000))
        await next_error(conversation)
    refused = await live.ask(path, half_second, key=key)
    assert refused.status == 429
    assert 1 <= int(refused.headers["Retry-After"]) <= 86_400
    assert (await live.ask("/v1/chat/completions", CHAT, key=key)).status == 200, (
        "it needs no audio"
    )


async def test_wrong_keys_are_slowed_and_a_right_one_is_not(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    slowed: list[str] = []
    delay_refusal = AuthThrottle.delay_refusal

    async def note_and_delay(throttle: AuthThrottle, address: str) -> None:
        slowed.append(address)
        await delay_refusal(throttle, address)

    monkeypatch.setattr(AuthThrottle, "delay_refusal", note_and_delay)
    loop = asyncio.get_running_loop()
    before_s = loop.time()
    for _ in range(7):
        before_s = loop.time()
        assert (await live.ask(MODELS, key="wrong", method="GET")).status == 401
    assert loop.time() - before_s >= 0.2
    assert len(slowed) == 7
    assert (await live.ask(MODELS, method="GET")).status == 200
    assert len(slowed) == 7


# --- tokens ---------------------------------------------------------------------------


async def test_a_token_opens_one_request_and_never_another(live: Live) -> None:
    made = await make_token(live)
    assert made.status == 201
    assert made.headers["Cache-Control"] == "no-store"
    assert made.json["expires_in"] == 60
    assert abs(made.json["expires_at"] - unix_s() - 60) < 5
    path = f"{PROJECT}/easyllms/voice/synthesize-audio"
    assert (await live.ask(path, SPEECH, key=made.json["token"])).status == 200
    assert (await live.ask(path, SPEECH, key=made.json["token"])).status == 401


async def test_both_sockets_take_a_token(live: Live) -> None:
    token = (await make_token(live, project="default")).json["token"]
    async with connect(live.url, key=token) as conversation:
        await conversation.ping()
        assert isinstance(await conversation.receive(), PongMessage)
    token = (await make_token(live, project="default")).json["token"]
    async with recognise_stream(live.url, key=token) as stream:
        await stream.finish_audio()
        assert [result async for result in stream] == [], (
            "nothing was said, and the stream ends in order"
        )


async def test_a_token_is_bound_to_project_endpoints_and_origin(live: Live) -> None:
    path = f"{PROJECT}/easyllms/voice/synthesize-audio"
    token = (await make_token(live, project="q")).json["token"]
    assert (await live.ask(path, SPEECH, key=token)).status == 401
    token = (await make_token(live, endpoints=["conversation"])).json["token"]
    assert (await live.ask(path, SPEECH, key=token)).status == 401
    token = (await make_token(live, origin=live.url)).json["token"]
    assert (await live.ask(path, SPEECH, key=token)).status == 401
    token = (await make_token(live, origin=live.url)).json["token"]
    assert (await live.ask(path, SPEECH, key=token, Origin=live.url)).status == 200
    token = (await make_token(live, origin="https://evil.example")).json["token"]
    assert (await live.ask(path, SPEECH, key=token, Origin="https://evil.example")).status == 401, (
        "not on the list"
    )


async def test_a_token_opens_no_more_than_its_key_and_makes_no_tokens(live: Live) -> None:
    key = make_key(live, Grant(scope=Scope(endpoints=(ApiEndpoint.TOKENS, ApiEndpoint.SPEECH))))
    assert (await make_token(live, key, endpoints=["chat"])).status == 401
    token = (await make_token(live, key)).json["token"]
    assert (await live.ask("/v1/chat/completions", CHAT, key=token)).status == 401
    token = (await make_token(live)).json["token"]
    assert (await make_token(live, token)).status == 401
    alone = make_key(live, Grant(scope=Scope(endpoints=(ApiEndpoint.TOKENS,))))
    assert (await make_token(live, alone)).status == 400


async def test_a_token_dies_with_its_key_and_uses_its_keys_quota(live: Live) -> None:
    record, key = live.store.create_key("a", Grant(quota=Quota(requests_per_minute=2)))
    first, second = [(await make_token(live, key)).json["token"] for _ in range(2)]
    path = f"{PROJECT}/easyllms/voice/synthesize-audio"
    assert (await live.ask(path, SPEECH, key=first)).status == 429
    live.store.revoke_key(record.id)
    assert (await live.ask(path, SPEECH, key=second)).status == 401


@pytest.mark.parametrize(
    ("asked", "names"),
    [
        ({"endpoints": ["all"]}, "endpoints"),
        ({"endpoints": ["tokens"]}, "endpoints"),
        ({"endpoints": "chat"}, "endpoints"),
        ({"origin": "app.example"}, "origin"),
        ({"origin": "https://app.example/page"}, "origin"),
        ({"expires_in": 0}, "expires_in"),
        ({"expires_in": 601}, "expires_in"),
        ({"expires_in": "60"}, "expires_in"),
    ],
)
async def test_every_field_outside_its_range_is_named(
    live: Live, asked: dict[str, object], names: str
) -> None:
    answer = await live.ask(f"{PROJECT}/tokens", asked)
    assert (answer.status, answer.json["status"]) == (400, 40003)
    assert answer.json["message"].startswith(f"{names}: ")


async def test_a_token_owns_what_it_made(live: Live) -> None:
    key = make_key(live, Grant())
    folder = "/api/open-apis/projects/p/easyllms/speechtotext/transcriptions"

    async def asking(method: str, path: str, user: str | None, **sent: Any) -> tuple[int, Any]:
        token = key if user is None else (await make_token(live, key, user=user)).json["token"]
        headers = {"Authorization": f"Bearer {token}"}
        async with live.session.request(method, live.url + path, headers=headers, **sent) as answer:
            return answer.status, await answer.json()

    form = aiohttp.FormData()
    form.add_field("data", '{"easyllm_id": "default"}')
    form.add_field("audio_file", wav_header(16_000, 32_000) + bytes(32_000), filename="a.wav")
    status, made = await asking("POST", folder, "ann", data=form)
    assert status == 200
    task = f"{folder}/{made['taskId']}"
    assert (await asking("GET", task, "ann"))[0] == 200, "the same user, by another token"
    assert [each["taskId"] for each in (await asking("GET", folder, "ann"))[1]["tasks"]] == [
        made["taskId"]
    ]
    for other in ("bob", "an", ""):
        assert (await asking("GET", task, other))[0] == 404
        assert (await asking("DELETE", task, other))[0] == 404
        assert (await asking("GET", folder, other))[1]["tasks"] == []
    assert (await asking("GET", task, None))[0] == 200, "the key sees what its tokens have made"
    assert (await asking("DELETE", task, "ann"))[0] == 200


async def test_a_stream_is_resumed_by_its_own_user_only(live: Live) -> None:
    key = make_key(live, Grant())

    async def begun(user: str) -> tuple[aiohttp.ClientWebSocketResponse, int]:
        token = (await make_token(live, key, user=user)).json["token"]
        path = f"/api/open-apis/projects/p/easyllms/stream-speech?apikey={token}&session=mine&format=pcm"
        socket = await live.session.ws_connect(live.url + path)
        await socket.receive_json()
        return socket, live.running.admission.sessions

    first, one = await begun("ann")
    other, two = await begun("bob")
    again, still_two = await begun("ann")
    assert (one, two, still_two) == (1, 2, 2)
    assert not other.closed
    for socket in (first, other, again):
        await socket.close()
