"""Each document's own form of errors, for everything that can be wrong with a
request.
"""

import io
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.compat.document_requests import PLATFORM, REQUESTS, check_error, send_request
from tests.compat.model_vendor import SAID
from tests.compat.stage import Stage, configured_stage

pytestmark = [
    pytest.mark.real_time,
    pytest.mark.long,
    pytest.mark.asyncio(loop_scope="module"),
]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    async with configured_stage(tmp_path_factory.mktemp("errors"), PLATFORM) as stage:
        yield stage


async def test_every_request_is_right_as_it_stands(stage: Stage) -> None:
    for asked in REQUESTS:
        answer = await send_request(stage, asked)
        assert answer.status == 200, (asked.path, answer.content[:300])


async def test_a_wrong_key_and_none(stage: Stage) -> None:
    wrong, none = REQUESTS[1::7], REQUESTS[2::7]  # each refusal is delayed more
    for asked in wrong:
        answer = await send_request(stage, asked, key="wrong-key-of-somebody")
        check_error(answer, asked, 401, "token: a valid key is required")
        assert answer.headers["WWW-Authenticate"] == 'Bearer error="invalid_token"'
    for asked in none:
        answer = await send_request(stage, asked, key="")
        check_error(answer, asked, 401, "token: a valid key is required")
        has_guests = not asked.path.startswith(("/acme", "/api"))
        note = answer.headers.get("Voicechat-Note", "")
        assert ("compat.guest_key" in note) == has_guests, asked.path


async def test_a_wrong_method(stage: Stage) -> None:
    for asked in REQUESTS:
        answer = await send_request(stage, asked, method="PATCH")
        check_error(answer, asked, 405, "this path takes ")
        assert asked.method in answer.headers["Allow"]


async def test_a_body_that_is_no_json(stage: Stage) -> None:
    for asked in REQUESTS:
        if asked.body:
            for content in (b"{", b"[]", b'"x"', b"\xff", b"--x\r\n"):
                check_error(await send_request(stage, asked, data=content), asked, 400)


async def test_a_body_that_is_no_form(stage: Stage) -> None:
    for asked in REQUESTS:
        if asked.part:
            answer = await send_request(stage, asked, data=b'{"file": "x"}')
            check_error(answer, asked, 400, "the body should be multipart/form-data")


async def test_a_body_that_is_too_large(stage: Stage) -> None:
    for asked in REQUESTS:
        if asked.most_bytes < 1 << 20:
            content: Any = b" " * (asked.most_bytes + 1)
            check_error(
                await send_request(stage, asked, data=content), asked, 413, "the body is limited to"
            )
    for asked in (request for request in REQUESTS if request.most_bytes == 30_000_000):
        content = io.BytesIO(b"\xff" * (asked.most_bytes + 1))
        check_error(await send_request(stage, asked, data=content), asked, 413)


async def test_a_reply_that_breaks_off(stage: Stage) -> None:
    """What has been sent stays, and the last piece says what is wrong."""
    stage.vendors.breaks = True
    try:
        for path in ("/openai/completions/stream", "/openai/chat/sse", "/textModel/stream"):
            (asked,) = (request for request in REQUESTS if request.path == path)
            answer = await send_request(stage, asked)
            assert answer.status == 200
            lines = answer.content.decode().replace("data: ", "").split("\n")
            first, *_, last = (json.loads(line) for line in lines if line)
            if path == "/textModel/stream":
                assert first["payload"]["choices"]["text"][0]["content"] == SAID[0]
                assert (last["header"]["code"], last["header"]["status"]) == (50202, 2)
                assert last["header"]["message"].startswith("the chat model failed")
            else:
                assert first == {"code": 0, "data": SAID[0], "message": "continue"}
                assert (last["code"], last["message"]) == (50202, "error")
                assert last["data"].startswith("the chat model failed")
        for path in ("/openai/chat", "/textModel/chat"):
            (asked,) = (request for request in REQUESTS if request.path == path)
            check_error(await send_request(stage, asked), asked, 502, "the chat model failed")
    finally:
        stage.vendors.breaks = False
