"""Bodies are read within bounds, and what is large is parsed off the event loop."""

import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import ClientSession, web

from voicechat.schema.checked import RequestModel
from voicechat.schema.json_text import MAX_VALUES
from voicechat.server.app import build_app
from voicechat.server.listener import listening
from voicechat.server.rest.bodies import LARGE_BYTES, read_body
from voicechat.server.rest.failures import answering_by_contract

pytestmark = pytest.mark.real_time
LIMIT_BYTES = 8 * LARGE_BYTES


class Noted(RequestModel):
    """Notes in which thread it is checked."""

    text: str

    def model_post_init(self, _: object) -> None:
        threads.append(threading.current_thread())


threads: list[threading.Thread] = []


@asynccontextmanager
async def server() -> AsyncIterator[str]:
    async def handle(request: web.Request) -> web.Response:
        return web.Response(text=(await read_body(request, Noted, LIMIT_BYTES)).text)

    threads.clear()
    app = build_app([web.post("/", answering_by_contract(handle))])
    async with listening(app, "127.0.0.1", 0) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.mark.parametrize("characters", [10, 2 * LARGE_BYTES])
async def test_what_is_large_is_parsed_in_a_thread(characters: int) -> None:
    text = "ä" * (characters // 2)
    async with (
        server() as url,
        ClientSession() as http,
        http.post(url, json={"text": text}) as answer,
    ):
        assert await answer.text() == text
    assert (threads == [threading.current_thread()]) is (characters == 10)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"[" + b"1," * MAX_VALUES + b"1]", 400),
        (b'{"text":' + b" " * LARGE_BYTES + b"1}", 400),
        (b'{"text":"' + b"a" * LARGE_BYTES + b'\xff"}', 400),
        (b" " * (LIMIT_BYTES + 1), 413),
    ],
)
async def test_a_large_body_that_is_wrong_is_told_so(body: bytes, status: int) -> None:
    async with server() as url, ClientSession() as http, http.post(url, data=body) as answer:
        assert answer.status == status
        assert (await answer.json())["status"] // 100 == status
