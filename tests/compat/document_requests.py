"""A valid request of every endpoint of the documents."""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from tests.compat.stage import Stage
from tests.compat.vendors import picture
from tests.rest.live import KEY, Answer

PLATFORM = """
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
    part_name: str = "file"
    method: str = "POST"
    most_bytes: int = 1 << 60
    """The limit of its body, where a test can exceed it."""
    is_task: bool = False
    """Whether the service is asked only after the answer."""

    def data(self) -> Any:
        if self.part:
            form = aiohttp.FormData()
            form.add_field(self.part_name, self.part, filename="x.txt")
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
    Request(
        "/uploadFile/uploadLearningFile?category=x",
        CONTRACT,
        part=b"A text.",
        part_name="fileToUpload",
    ),
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


async def send_request(
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


def check_error(answer: Answer, asked: Request, status: int, message: str = "") -> None:
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
