import ipaddress
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import make_mocked_request
from yarl import URL

from voicechat.server.auth import Authoriser, request_keys
from voicechat.server.error_responses import answer_errors
from voicechat.server.listener import listening
from voicechat.server.origins import Origins
from voicechat.store.access import ApiEndpoint
from voicechat.store.keys import KeyStore

pytestmark = pytest.mark.real_time

KEY = "key-of-the-environment"


@pytest.fixture
async def port(tmp_path: Path) -> AsyncIterator[int]:
    authorise = Authoriser(
        KeyStore(tmp_path / "keys"), {"environment": KEY}, Origins(["https://app.example"])
    )

    async def who(request: web.Request) -> web.Response:
        principal = await authorise(request, ApiEndpoint.CHAT)
        return web.Response(text=f"{principal.key_id} {principal.project}")

    app = web.Application(middlewares=[answer_errors])
    app.router.add_get("/who", who)
    app.router.add_get("/projects/{project}/who", who)
    async with listening(app, "127.0.0.1", 0) as port:
        yield port


async def ask(
    port: int, path: str, headers: list[tuple[str, str]] | None = None
) -> tuple[int, str]:
    url = URL(f"http://127.0.0.1:{port}{path}", encoded=True)
    async with ClientSession() as session, session.get(url, headers=headers or []) as response:
        return response.status, await response.text()


@pytest.mark.parametrize(
    "query",
    [
        f"token=Bearer%20{KEY}",
        f"token=Bearer+{KEY}",
        f"token=Bearer%2B{KEY}",
        f"token=Bearer{KEY}",
        f"token=bearer%20{KEY}",
        f"token={KEY}",
        f"apikey={KEY}",
        f"token=&apikey={KEY}",
    ],
)
async def test_every_way_to_write_a_key_in_the_query_is_understood(port: int, query: str) -> None:
    assert await ask(port, f"/who?{query}") == (200, "environment default")


async def test_every_text_that_may_be_a_key_is_tried(port: int) -> None:
    right = [("Authorization", f"Bearer {KEY}")]
    assert (await ask(port, "/who", right))[0] == 200
    assert (await ask(port, "/who?token=x", right))[0] == 200
    for others in (
        "Bearer x",
        "Bearer " + "sso" * 1000,
        "Basic dXNlcjpwYXNz",
        "Negotiate abc",
        "x",
    ):
        assert (await ask(port, f"/who?token={KEY}", [("Authorization", others)]))[0] == 200, others
        assert (await ask(port, f"/who?token=x&token=&token={KEY}", [("Authorization", others)]))[
            0
        ] == 200, others
        twice = [("Authorization", others), *right]
        assert (await ask(port, "/who", twice))[0] == 200, others
    assert (await ask(port, "/who?token=x&apikey=y", [("Authorization", "Bearer z")]))[0] == 401
    many = "&".join(f"token={number}" for number in range(20))
    assert (await ask(port, f"/who?{many}&token={KEY}"))[0] == 401, "a bound on what is tried"


@pytest.mark.parametrize(
    "header", [f"Bearer{KEY}", f"bearer {KEY}", f"Bearer  {KEY}", f"Bearer+{KEY}", KEY]
)
async def test_every_way_to_write_a_key_in_the_header_is_understood(port: int, header: str) -> None:
    assert await ask(port, "/who", [("Authorization", header)]) == (200, "environment default")


async def test_a_browser_hides_its_key_in_a_subprotocol(port: int) -> None:
    offered = f"realtime, openai-insecure-api-key.{KEY}"
    named = [("Sec-WebSocket-Protocol", offered)]
    assert await ask(port, "/who", named) == (200, "environment default")
    wrong = [("Sec-WebSocket-Protocol", "realtime, openai-insecure-api-key.x")]
    assert (await ask(port, "/who", wrong))[0] == 401
    assert (await ask(port, "/who", [("Sec-WebSocket-Protocol", KEY)]))[0] == 401


async def test_a_key_that_begins_with_the_scheme_is_still_a_key(tmp_path: Path) -> None:
    request = make_mocked_request("GET", "/", {"Authorization": "Bearerly"})
    assert request_keys(request) == ["ly", "Bearerly"]


async def test_the_path_names_the_project(port: int) -> None:
    assert await ask(port, f"/projects/p7/who?token={KEY}") == (200, "environment p7")


async def test_a_stored_key_is_admitted_under_its_id(port: int, tmp_path: Path) -> None:
    record, key = KeyStore(tmp_path / "keys").create_key("a")
    assert await ask(port, f"/who?token={key}") == (200, f"{record.id} default")


async def test_a_key_is_refused_from_its_revocation_on(port: int, tmp_path: Path) -> None:
    store = KeyStore(tmp_path / "keys")
    record, key = store.create_key("a")
    assert (await ask(port, f"/who?token={key}"))[0] == 200
    store.revoke_key(record.id)
    assert (await ask(port, f"/who?token={key}"))[0] == 401


async def test_when_the_keys_cannot_be_read_nobody_is_let_in_by_them(
    port: int, tmp_path: Path
) -> None:
    _, key = KeyStore(tmp_path / "keys").create_key("a")
    assert (await ask(port, f"/who?token={key}"))[0] == 200
    (tmp_path / "keys").write_bytes(b"broken" * 100)
    status, body = await ask(port, f"/who?token={key}")
    assert (status, str(tmp_path) in body) == (500, False)
    assert (await ask(port, f"/who?token={KEY}"))[0] == 200


@pytest.mark.parametrize(
    "query",
    [
        "",
        "token=",
        "token=Bearer",
        "token=Bearer%20",
        "token=%ff",
        "token=" + "x" * 2000,
        f"key={KEY}",
    ],
)
async def test_everything_else_is_refused(port: int, query: str) -> None:
    status, body = await ask(port, f"/who?{query}")
    assert status == 401
    assert '"status":40101' in body


async def test_a_refused_key_is_not_logged(port: int, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        await ask(port, "/who?token=Bearer%20SECRETSECRET", [("X-Note", "SECRETSECRET")])
        await ask(port, "/who?token=" + KEY + "SECRETSECRET")
    assert "no valid key" in caplog.text
    assert "SECRET" not in caplog.text


async def test_pages_of_this_host_and_of_the_list_may_connect(port: int) -> None:
    here = f"127.0.0.1:{port}"
    for origin in (
        f"http://{here}",
        f"https://{here}",
        "https://app.example",
        "https://APP.example:443",
    ):
        assert (await ask(port, f"/who?token={KEY}", [("Origin", origin)]))[0] == 200, origin


async def test_other_pages_may_not_even_with_a_key(port: int) -> None:
    here = f"127.0.0.1:{port}"
    refused = [
        "https://evil.example", "null", "", "http://127.0.0.1", f"http://{here}.", f"http://{here}.evil.example",
        f"http://user@{here}", f"http://{here}/path", f"ftp://{here}", here, "http://app.example",
        "https://app.example:8443", "https://app.example.", "https://evil-app.example",
        "http://[", f"http://127.0.0.1:{port + 1}",
    ]  # fmt: skip
    for origin in refused:
        status, body = await ask(port, f"/who?token={KEY}", [("Origin", origin)])
        assert status == 401, origin
        assert "server.allowed_origins" in body
    twice = [("Origin", f"http://{here}"), ("Origin", "https://evil.example")]
    assert (await ask(port, f"/who?token={KEY}", twice))[0] == 401


@pytest.mark.parametrize(
    ("proxies", "senders"), [((), 1), ((ipaddress.ip_network("127.0.0.0/8"),), 2)]
)
async def test_wrong_keys_are_counted_by_whom_a_trusted_proxy_names(
    proxies: tuple[ipaddress.IPv4Network, ...], senders: int, tmp_path: Path
) -> None:
    authorise = Authoriser(KeyStore(tmp_path / "keys"), {}, Origins((), proxies))

    async def who(request: web.Request) -> web.Response:
        await authorise(request, ApiEndpoint.CHAT)
        return web.Response()

    app = web.Application(middlewares=[answer_errors])
    app.router.add_get("/who", who)
    async with listening(app, "127.0.0.1", 0) as port:
        for address in ("203.0.113.1", "203.0.113.2", "203.0.113.1"):
            assert (await ask(port, "/who?token=x", [("X-Forwarded-For", address)]))[0] == 401
    assert len(authorise._attempts) == senders
