"""Each document's own form of errors, for everything that can be wrong with a request
or with the service behind it.
"""

import base64
import io
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from tests.compat.model_vendor import SAID
from tests.compat.stage import Stage, configured_stage
from tests.compat.vendors import picture
from tests.rest.live import KEY, Answer

pytestmark = [
    pytest.mark.real_time,
    pytest.mark.long,
    pytest.mark.asyncio(loop_scope="module"),
]
PATIENT = """
[platforms.acme]
llm = ["default"]
"""
CODED = {"code", "message", "msg"}
CONTRACT = {"status", "message", "timestamp"}
OPENAI = {"error", "message"}
URL = "data:image/png;base64," + base64.b64encode(picture(400, 400)).decode()
MESSAGES = [{"role": "user", "content": "x"}]
FOLDER = "/api/open-apis/projects/p/easyllms"


SPEECH = (Path(__file__).parents[1] / "recordings" / "goforward.wav").read_bytes()


@dataclass(frozen=True)
class Request:
    """A valid request of a document."""

    path: str
    form: set[str]
    body: Mapping[str, Any] = field(default_factory=dict)
    """Its JSON object."""
    file: bytes = b""
    """Or its body."""
    part: bytes = b""
    """Or the file of its form."""
    method: str = "POST"
    most_bytes: int = 1 << 60
    """The limit of its body, where a test can exceed it."""
    is_task: bool = False
    """Whether the service is asked only after the answer."""

    def data(self) -> Any:
        if self.part:
            form = aiohttp.FormData()
            form.add_field("file", self.part, filename="x")
            return form
        return self.file or (json.dumps(self.body) if self.body else None)


REQUESTS = [
    Request("/openai/models", CODED, method="GET"),
    Request("/openai/completions", CODED, {"model": "m", "prompt": "x"}, most_bytes=256 << 10),
    Request(
        "/openai/completions/stream", CODED, {"model": "m", "prompt": "x"}, most_bytes=256 << 10
    ),
    Request("/openai/completions/sse", CODED, {"model": "m", "prompt": "x"}, most_bytes=256 << 10),
    Request("/openai/chat", CODED, {"model": "m", "messages": MESSAGES}, most_bytes=256 << 10),
    Request(
        "/openai/chat/stream", CODED, {"model": "m", "messages": MESSAGES}, most_bytes=256 << 10
    ),
    Request("/openai/chat/sse", CODED, {"model": "m", "messages": MESSAGES}, most_bytes=256 << 10),
    Request(
        "/openai/edits",
        CODED,
        {"model": "m", "input": "x", "instruction": "y"},
        most_bytes=256 << 10,
    ),
    Request("/openai/image", CODED, {"prompt": "x"}, most_bytes=256 << 10),
    Request("/send", CODED, {"text": "x"}, most_bytes=256 << 10),
    Request("/textModel/chat", CODED, {"dialog": MESSAGES}, most_bytes=256 << 10),
    Request("/textModel/stream", CODED, {"dialog": MESSAGES}, most_bytes=256 << 10),
    Request("/voiceModel/chat", CODED, file=SPEECH),
    Request("/PictureToTextModel/chat", CODED, file=picture(), most_bytes=30_000_000),
    Request("/v1/asr", CONTRACT, file=SPEECH),
    Request("/v1/tts?text=x", CONTRACT, method="GET"),
    Request("/image/imageToText", CONTRACT, part=picture(), most_bytes=64 << 20),
    Request("/image/enhanceImage", CONTRACT, part=picture(), most_bytes=64 << 20),
    Request("/image/generateVideo", CONTRACT, part=picture(), most_bytes=64 << 20),
    Request("/video/motInference", CONTRACT, part=b"x", most_bytes=64 << 20),
    Request("/video/mmeditingInference", CONTRACT, part=b"x", most_bytes=64 << 20),
    Request("/acme/v1/chat/completions", OPENAI, {"model": "m", "messages": MESSAGES}),
    Request("/acme/v1/images/generations", OPENAI, {"model": "m", "prompt": "x"}),
    Request("/acme/v1/images/edits", OPENAI, {"model": "m", "prompt": "x", "image": URL}),
    Request("/acme/v1/videos", OPENAI, {"model": "m", "prompt": "x"}, is_task=True),
    Request(
        f"{FOLDER}/texttoimage/task",
        CONTRACT,
        {"easyllm_id": "x", "model": "m", "input": {"prompt": "x"}},
        is_task=True,
    ),
    Request(
        f"{FOLDER}/videogenerator/task",
        CONTRACT,
        {"easyllm_id": "x", "model": "m", "content": [{"type": "text", "text": "x"}]},
        is_task=True,
    ),
    Request(
        f"{FOLDER}/image-ocr",
        CONTRACT,
        {"easyllm_id": "x", "model": "m", "type": "image_url", "image_url": {"url": URL}},
    ),
]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    async with configured_stage(tmp_path_factory.mktemp("errors"), PATIENT) as stage:
        yield stage


async def send(
    stage: Stage, asked: Request, *, key: str = KEY, method: str = "", data: Any = None
) -> Answer:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    async with stage.live.session.request(
        method or asked.method,
        stage.live.url + asked.path,
        headers=headers,
        data=asked.data() if data is None else data,
    ) as response:
        return Answer(
            response.status, response.content_type, dict(response.headers), await response.read()
        )


def check(answer: Answer, asked: Request, status: int, message: str = "") -> None:
    """Check that the answer is this error in the document's form."""
    assert answer.status == status, (asked.path, answer.status, answer.content[:300])
    assert answer.content_type == "application/json"
    assert set(answer.json) == asked.form, (asked.path, answer.json)
    assert message in answer.json["message"], (asked.path, answer.json)
    if asked.form == CODED:
        assert answer.json["code"] // 100 == status
        assert answer.json["msg"] == answer.json["message"]
    elif asked.form == CONTRACT:
        assert answer.json["status"] // 100 == status
    else:
        error = answer.json["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert error["message"] == answer.json["message"]


async def test_every_request_is_right_as_it_stands(stage: Stage) -> None:
    for asked in REQUESTS:
        answer = await send(stage, asked)
        assert answer.status == 200, (asked.path, answer.content[:300])


async def test_a_wrong_key_and_none(stage: Stage) -> None:
    wrong, none = REQUESTS[1::7], REQUESTS[2::7]  # each refusal is delayed more
    for asked in wrong:
        answer = await send(stage, asked, key="wrong-key-of-somebody")
        check(answer, asked, 401, "token: a valid key is required")
        assert answer.headers["WWW-Authenticate"] == 'Bearer error="invalid_token"'
    for asked in none:
        answer = await send(stage, asked, key="")
        check(answer, asked, 401, "token: a valid key is required")


async def test_a_wrong_method(stage: Stage) -> None:
    for asked in REQUESTS:
        answer = await send(stage, asked, method="PATCH")
        check(answer, asked, 405, "this path takes ")
        assert asked.method in answer.headers["Allow"]


async def test_a_body_that_is_no_json(stage: Stage) -> None:
    for asked in REQUESTS:
        if asked.body:
            for content in (b"{", b"[]", b'"x"', b"\xff", b"--x\r\n"):
                check(await send(stage, asked, data=content), asked, 400)


async def test_a_body_that_is_no_form(stage: Stage) -> None:
    for asked in REQUESTS:
        if asked.part:
            answer = await send(stage, asked, data=b'{"file": "x"}')
            check(answer, asked, 400, "the body should be multipart/form-data")


async def test_a_body_that_is_too_large(stage: Stage) -> None:
    for asked in REQUESTS:
        if asked.most_bytes < 1 << 20:
            content: Any = b" " * (asked.most_bytes + 1)
            check(await send(stage, asked, data=content), asked, 413, "the body is limited to")
    for asked in (request for request in REQUESTS if request.most_bytes == 30_000_000):
        content = io.BytesIO(b"\xff" * (asked.most_bytes + 1))
        check(await send(stage, asked, data=content), asked, 413)


LOCAL = ("/openai/models", "/image/enhanceImage", "/video/", "/PictureToTextModel", "image-ocr")
"""What asks no service on the network."""
POLICY = "breaker_failures = 1000"
"""Each request finds the fault itself."""
IMPATIENT = """
[media]
image_deadline_s = 0.5
[limits]
first_token_ms = 500
first_audio_ms = 500
transcript_ms = 500
"""


@pytest.mark.parametrize(
    ("fault", "status", "message"),
    [
        ("dead", 502, "failed"),
        ("broken", 502, "failed"),
        ("busy", 429, "is asked too often: rate_limit_exceeded"),
        ("late", 502, ""),
    ],
)
async def test_a_service_that_fails(tmp_path: Path, fault: str, status: int, message: str) -> None:
    config, keys = PATIENT, POLICY
    if fault != "busy":
        config, keys = config + IMPATIENT, f"{keys}\nfirst_use_s = 0.5"
    async with configured_stage(tmp_path, config, keys) as stage:
        stage.vendors.fault = fault
        for asked in REQUESTS:
            if asked.is_task or any(path in asked.path for path in LOCAL):
                continue
            answer = await send(stage, asked)
            check(answer, asked, status, message)
            assert answer.headers.get("Retry-After") == ("120" if fault == "busy" else None)


async def test_a_reply_that_breaks_off(stage: Stage) -> None:
    """What has been sent stays, and the last piece says what is wrong."""
    stage.vendors.breaks = True
    try:
        for path in ("/openai/completions/stream", "/openai/chat/sse", "/textModel/stream"):
            (asked,) = (request for request in REQUESTS if request.path == path)
            answer = await send(stage, asked)
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
            check(await send(stage, asked), asked, 502, "the chat model failed")
    finally:
        stage.vendors.breaks = False
