"""The portal's document: its requests, and what its answers hold."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from tests.compat.stage import Stage, media_stage
from tests.compat.vendors import PICTURE, VIDEO, picture
from tests.rest.live import KEY, Answer

pytestmark = [
    pytest.mark.real_time,
    pytest.mark.long,
    pytest.mark.asyncio(loop_scope="module"),
]
CONFIG = f"""
[compat]
guest_key = "{KEY}"
"""
RECORDING = Path(__file__).parents[1] / "recordings" / "goforward.wav"


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    async with media_stage(tmp_path_factory.mktemp("portal"), CONFIG) as stage:
        yield stage


async def send(stage: Stage, path: str, name: str, content: bytes, **more: Any) -> Answer:
    """Send a form with a file, without a key, as the document's own clients do."""
    form = aiohttp.FormData()
    form.add_field(name, content, filename="x.jpg")
    async with stage.live.session.post(stage.live.url + path, data=form, **more) as response:
        return Answer(
            response.status,
            response.content_type,
            dict(response.headers),
            await response.read(),
        )


async def test_recognition_without_a_key(stage: Stage) -> None:
    headers = {"Content-Type": "application/octet-stream"}
    url = f"{stage.live.url}/v1/asr"
    async with stage.live.session.post(
        url, data=RECORDING.read_bytes(), headers=headers
    ) as response:
        assert await response.json() == {"result": "hello", "status": 20000000}
    # Samples without a header are 16-bit mono at 16 kHz.
    async with stage.live.session.post(url, data=bytes(32_000), headers=headers) as response:
        assert response.status == 200
    async with stage.live.session.post(url, data=b"", headers=headers) as response:
        assert response.status == 400
        assert "is empty" in (await response.json())["message"]


async def test_speech(stage: Stage) -> None:
    url = f"{stage.live.url}/v1/tts"
    async with stage.live.session.get(url, params={"text": "你好"}) as response:
        assert response.content_type == "audio/mpeg"
        assert (await response.read())[:1] == b"\xff"
    async with stage.live.session.get(url) as response:
        assert response.status == 400
        assert response.content_type == "application/json"
        assert (await response.json())["message"] == "text: must be present"


async def test_chat_has_no_knowledge_to_draw_on(stage: Stage) -> None:
    asked = {
        "model": "D:/Workspaces/Data/opt-350m",
        "temperature": 0.8,
        "max_tokens": 500,
        "category": "bj_gov",
        "messages": [{"role": "user", "content": "查看大数据中心上云的单位数量。"}],
    }
    answer = await stage.live.ask("/v1/chat/completions", asked)
    assert answer.status == 404
    assert answer.json["error"]["message"].startswith("category: this server has no knowledge")
    del asked["category"]
    answer = await stage.live.ask("/v1/chat/completions", asked)
    assert answer.json["object"] == "chat.completion"
    path = "/uploadFile/uploadLearningFile?category=x"
    learning = await send(stage, path, "fileToUpload", b"%PDF-1.7")
    assert learning.status == 404
    assert "no knowledge base" in learning.json["message"]


async def test_a_picture_by_the_documents_body(stage: Stage) -> None:
    answer = await stage.live.ask("/v1/images/generations", {"prompt": "a pig"})
    async with stage.live.session.get(answer.json["data"][0]["url"]) as response:
        assert await response.read() == PICTURE


async def test_pictures_are_described_and_enhanced(stage: Stage) -> None:
    content = picture(kind="JPEG")
    assert (await send(stage, "/image/imageToText", "file", content)).json == {
        "classification": "described",
        "caption": "described",
        "samUrl": "",
        "status": "success",
    }
    answer = await send(stage, "/image/enhanceImage", "file", content)
    assert answer.json["status"] == "success"
    async with stage.live.session.get(answer.json["enhanceImageUrl"]) as response:
        assert response.content_type == "image/png"
    wrong = await send(stage, "/image/enhanceImage", "file", b"<svg/>")
    assert (wrong.status, wrong.json["message"][:17]) == (415, "file: is no pictu")
    wrong = await send(stage, "/image/enhanceImage", "other", b"x")
    assert (wrong.status, wrong.json["message"]) == (400, "file: must be present")


async def test_a_video_is_made_of_a_picture(stage: Stage) -> None:
    answer = await send(stage, "/image/generateVideo", "file", picture(kind="JPEG"))
    assert answer.json["status"] == "success"
    async with stage.live.session.get(answer.json["svdVideoUrl"]) as response:
        assert await response.read() == VIDEO


@pytest.mark.parametrize("path", ["/video/motInference", "/video/mmeditingInference"])
async def test_without_a_service_the_answer_says_what_to_configure(stage: Stage, path: str) -> None:
    answer = await send(stage, path, "file", VIDEO)
    assert answer.status == 404
    assert answer.json["message"].startswith("file: no service here works on videos")
    assert "[video_processors.NAME]" in answer.json["message"]


async def test_a_wrong_key_is_not_the_guests(stage: Stage) -> None:
    headers = {"Authorization": "Bearer wrong-key-of-somebody"}
    answer = await send(stage, "/image/enhanceImage", "file", picture(), headers=headers)
    assert answer.status == 401
