"""Pages of other origins: what browsers ask before, and what they may read."""

from collections.abc import AsyncIterator

import pytest
from aiohttp import ClientResponse, ClientSession, web

from voicechat.server.app import build_app
from voicechat.server.listener import listening
from voicechat.server.origins import Origins

pytestmark = pytest.mark.real_time

APP = "https://app.example"
ASKS = {
    "Origin": APP,
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization,x-stainless-os",
}


async def fine(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(b"fine")
    return response


async def wrong(_: web.Request) -> web.Response:
    raise web.HTTPBadRequest


@pytest.fixture(params=["list", "star"])
async def port(request: pytest.FixtureRequest) -> AsyncIterator[int]:
    origins = Origins([APP] if request.param == "list" else ["*"])
    routes = [web.post("/fine", fine), web.get("/wrong", wrong)]
    async with listening(build_app(routes, origins), "127.0.0.1", 0) as port:
        yield port


async def ask(port: int, method: str, path: str, **headers: str) -> ClientResponse:
    async with (
        ClientSession() as session,
        session.request(method, f"http://127.0.0.1:{port}{path}", headers=headers) as response,
    ):
        await response.read()
        return response


async def test_a_page_that_is_allowed_is_told_what_it_may_send(port: int) -> None:
    answer = await ask(port, "OPTIONS", "/fine", **ASKS)
    assert answer.status == 204
    assert answer.headers["Access-Control-Allow-Origin"] in (APP, "*")
    assert answer.headers["Access-Control-Allow-Methods"] == "OPTIONS, POST"
    assert answer.headers["Access-Control-Allow-Headers"] == "authorization,x-stainless-os"
    assert int(answer.headers["Access-Control-Max-Age"]) > 0
    assert "Access-Control-Allow-Credentials" not in answer.headers
    assert "Access-Control-Allow-Private-Network" not in answer.headers
    local = await ask(
        port, "OPTIONS", "/fine", **ASKS | {"Access-Control-Request-Private-Network": "true"}
    )
    assert local.headers["Access-Control-Allow-Private-Network"] == "true"


@pytest.mark.parametrize(
    ("method", "path", "status"), [("POST", "/fine", 200), ("GET", "/wrong", 400)]
)
async def test_it_may_read_answers_errors_and_streams(
    port: int, method: str, path: str, status: int
) -> None:
    answer = await ask(port, method, path, Origin=APP)
    assert answer.status == status
    assert answer.headers["Access-Control-Allow-Origin"] in (APP, "*")
    assert "Retry-After" in answer.headers["Access-Control-Expose-Headers"]
    assert answer.headers.get("Vary") == (
        None if answer.headers["Access-Control-Allow-Origin"] == "*" else "Origin"
    )


@pytest.mark.parametrize("port", ["list"], indirect=True)
async def test_a_page_that_is_not_allowed_is_told_nothing(port: int) -> None:
    for headers in (ASKS | {"Origin": "https://evil.example"}, ASKS | {"Origin": "null"}):
        answer = await ask(port, "OPTIONS", "/fine", **headers)
        assert answer.status == 204
        assert not [name for name in answer.headers if name.lower().startswith("access-control")]
    plain = await ask(port, "POST", "/fine")
    assert not [name for name in plain.headers if name.lower().startswith("access-control")]


async def test_options_without_a_page_names_the_methods_and_nothing_is_nowhere(port: int) -> None:
    assert (await ask(port, "OPTIONS", "/fine")).headers["Allow"] == "OPTIONS, POST"
    assert (await ask(port, "OPTIONS", "/nowhere")).status == 404


async def test_wild_header_names_are_not_repeated(port: int) -> None:
    for wild in ("a" * 5_000, "a;b", 'x"y'):
        answer = await ask(
            port, "OPTIONS", "/fine", **ASKS | {"Access-Control-Request-Headers": wild}
        )
        assert (
            answer.headers["Access-Control-Allow-Headers"]
            == "authorization, content-type, idempotency-key"
        )
