"""Each document's own form of errors, for everything that can be wrong with the
services behind it.
"""

from pathlib import Path

import pytest

from tests.compat.document_requests import PLATFORM, REQUESTS, check_error, send_request
from tests.compat.stage import configured_stage
from voicechat.server.rest import recognising

pytestmark = [pytest.mark.real_time, pytest.mark.long]

LOCAL = (
    "/uploadFile",
    "/openai/models",
    "/image/enhanceImage",
    "/video/",
    "/PictureToTextModel",
    "image-ocr",
)
"""What asks no service on the network."""
VIDEO = "/image/generateVideo"
LONG: dict[str, tuple[str, ...]] = {
    "late": ("/v1/asr", "/voiceModel/chat", VIDEO),
    "dead": (VIDEO,),
    "broken": (VIDEO,),
    "busy": (),
}
"""What is left out: recordings and videos may take minutes, and a task some seconds."""
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
        ("busy", 429, "is asked too often"),
        ("late", 502, ""),
    ],
)
async def test_a_service_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str, status: int, message: str
) -> None:
    monkeypatch.setattr(recognising, "RETRY_S", ())  # 31 seconds
    config, keys = PLATFORM, POLICY
    if fault != "busy":
        config, keys = config + IMPATIENT, f"{keys}\nfirst_use_s = 0.5"
    async with configured_stage(tmp_path, config, keys) as stage:
        stage.vendors.fault = fault
        for asked in REQUESTS:
            if asked.is_task or any(path in asked.path for path in LOCAL):
                continue
            if asked.path in LONG[fault]:
                continue
            answer = await send_request(stage, asked)
            check_error(answer, asked, status, message)
            # A task does not keep it.
            if asked.path != VIDEO:
                assert ("Retry-After" in answer.headers) == (fault == "busy"), asked.path
