import logging
from collections.abc import AsyncIterator

import pytest
from aiohttp import ClientPayloadError, ClientSession, web
from aiohttp.test_utils import BaseTestServer, TestServer

from voicechat.errors import AdmissionError, RemoteProtocolError, Status
from voicechat.server.app import MAX_BODY_BYTES, build_app

pytestmark = pytest.mark.real_time


async def full(_: web.Request) -> web.Response:
    raise AdmissionError(Status.AT_CAPACITY, "500 sessions are open")


async def wrong(_: web.Request) -> web.Response:
    raise RemoteProtocolError(Status.INVALID_PARAMETER, "voice: 7 is no text")


async def broken(_: web.Request) -> web.Response:
    raise RuntimeError("a secret of the house")


async def broken_midway(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(b"half")
    raise RuntimeError("a secret of the house")


async def moved(_: web.Request) -> web.Response:
    raise web.HTTPFound("/elsewhere")


async def reading(request: web.Request) -> web.Response:
    return web.Response(body=await request.read())


@pytest.fixture
async def server() -> AsyncIterator[BaseTestServer]:
    handlers = (full, wrong, broken, broken_midway, moved)
    routes = [web.get(f"/{handler.__name__}", handler) for handler in handlers]
    async with TestServer(
        build_app([*routes, web.post("/reading", reading)]), host="127.0.0.1"
    ) as running:
        yield running


@pytest.mark.parametrize(
    ("method", "path", "http_status", "status", "message"),
    [
        ("GET", "/full", 503, Status.AT_CAPACITY, "500 sessions are open"),
        ("GET", "/wrong", 400, Status.INVALID_PARAMETER, "voice: 7 is no text"),
        ("GET", "/broken", 500, Status.INTERNAL, "internal error"),
        ("GET", "/nowhere?token=SECRET", 404, Status.NOT_FOUND, "there is nothing here"),
        ("POST", "/full", 405, Status.WRONG_METHOD, "this path takes GET, HEAD"),
    ],
)
async def test_every_error_has_the_contracts_form(
    server: BaseTestServer, method: str, path: str, http_status: int, status: Status, message: str
) -> None:
    async with (
        ClientSession() as session,
        session.request(method, server.make_url(path)) as response,
    ):
        body = await response.json()
    assert response.status == http_status
    assert response.headers.get("Allow") == ("GET,HEAD" if http_status == 405 else None)
    assert list(body) == ["status", "message", "timestamp"]
    assert (body["status"], body["message"]) == (status, message)
    assert body["timestamp"] > 1_600_000_000_000


async def test_a_body_over_the_bound_is_refused(server: BaseTestServer) -> None:
    async with (
        ClientSession() as session,
        session.post(server.make_url("/reading"), data=bytes(MAX_BODY_BYTES + 1)) as response,
    ):
        assert response.status == 413
        assert (await response.json())["status"] == Status.TOO_LARGE


async def test_redirects_are_no_errors(server: BaseTestServer) -> None:
    async with (
        ClientSession() as session,
        session.get(server.make_url("/moved"), allow_redirects=False) as response,
    ):
        assert response.status == 302


async def test_a_bug_is_logged_and_its_text_does_not_leave(
    server: BaseTestServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with ClientSession() as session, session.get(server.make_url("/broken")) as response:
        assert "secret" not in await response.text()
    assert any(record.levelno == logging.ERROR and record.exc_info for record in caplog.records)


async def test_nothing_is_added_to_an_answer_that_has_begun(server: BaseTestServer) -> None:
    async with (
        ClientSession() as session,
        session.get(server.make_url("/broken_midway")) as response,
    ):
        with pytest.raises(ClientPayloadError):
            await response.read()
