"""The document of "all platforms": its samples, with only host, key and placeholders
changed, and its tables.
"""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.compat.stage import SAMPLES, Stage, media_stage, run_sample
from tests.compat.vendors import PICTURE, VIDEO, picture
from tests.rest.live import KEY

pytestmark = [
    pytest.mark.real_time,
    pytest.mark.long,
    pytest.mark.asyncio(loop_scope="module"),
]
DATA_URL = "data:image/png;base64," + base64.b64encode(picture()).decode()
MADE = "data:image/png;base64," + base64.b64encode(PICTURE).decode()
CONFIG = """
[platforms.acme]
llm = ["default"]
images = ["default"]
videos = ["default"]
[platforms.other]
llm = ["default"]
[images.default]
provider = "openai"
[videos.default]
provider = "openai"
"""


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    async with media_stage(tmp_path_factory.mktemp("platforms"), CONFIG) as stage:
        yield stage


async def run(stage: Stage, folder: Path, number: int, **more: str) -> Any:
    (folder / "one.jpg").write_bytes(picture(kind="JPEG"))
    changed = {
        "http://localhost": stage.live.url,
        "{platform}": "acme",
        "<你的许可证>": KEY,
        "<平台模型>": "any-model",
        "<对话内容>": "你好",
        "图片的URL或者base64": DATA_URL,
        "<图片URL或者base64>": DATA_URL,
        "<输入参考的URL或者base64>": DATA_URL,
        "/path/to/example1.jpg": str(folder / "one.jpg"),
        "/path/to/example2.jpg": str(folder / "one.jpg"),
        # The document's JSON lacks a comma here.
        '"model": "any-model"\n"input_reference"': '"model": "any-model",\n"input_reference"',
        **more,
    }
    printed = await run_sample(f"platforms/{number:02}.sh", folder, changed)
    return json.loads(printed) if printed.startswith("{") else printed


@pytest.mark.parametrize("number", [0, 1, 2, 4])
async def test_chat(stage: Stage, tmp_path: Path, number: int) -> None:
    answer = await run(stage, tmp_path, number)
    assert answer["object"] == "chat.completion"
    assert answer["choices"][0]["message"]["role"] == "assistant"
    assert answer["choices"][0]["finish_reason"] == "stop"


async def test_streamed_chat(stage: Stage, tmp_path: Path) -> None:
    lines = (await run(stage, tmp_path, 3)).strip().split("\n\n")
    assert all(line.startswith("data: ") for line in lines)
    assert lines[-1] == "data: [DONE]"
    chunks = [json.loads(line[6:]) for line in lines[:-1]]
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"


@pytest.mark.parametrize("number", [5, 6, 8, 9])
async def test_pictures(stage: Stage, tmp_path: Path, number: int) -> None:
    before = len(stage.vendors.files)
    answer = await run(stage, tmp_path, number)
    assert answer["data"] == [{"b64_json": MADE}]
    assert len(stage.vendors.files) - before == {8: 1, 9: 2}.get(number, 0)


async def until_ended(stage: Stage, path: str) -> dict[str, Any]:
    async with asyncio.timeout(120):
        while True:
            answer: dict[str, Any] = (await stage.live.ask(path, method="GET")).json
            if answer["status"] not in ("queued", "in_progress"):
                return answer
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("number", [7, 10])
async def test_pictures_as_tasks(stage: Stage, tmp_path: Path, number: int) -> None:
    task = await run(stage, tmp_path, number)
    assert (task["object"], task["status"], task["model"]) == ("image", "queued", "any-model")
    ended = await until_ended(stage, f"/acme/v1/images/{task['id']}")
    assert ended["data"] == [{"b64_json": MADE}]
    path = f"/acme/v1/images/{task['id']}?detail=true"
    detail = (await stage.live.ask(path, method="GET")).json["detail"]
    assert detail["request"]["prompt"] == "<图片描述>"
    assert detail["progress"] == 100
    for elsewhere in (f"/other/v1/images/{task['id']}", f"/acme/v1/videos/{task['id']}"):
        assert (await stage.live.ask(elsewhere, method="GET")).status == 404


@pytest.mark.parametrize("number", [11, 12])
async def test_videos_and_what_becomes_of_them(stage: Stage, tmp_path: Path, number: int) -> None:
    before = len(stage.vendors.files)
    task = await run(stage, tmp_path, number)
    assert (task["object"], task["status"]) == ("video", "queued")
    ended = await until_ended(stage, f"/acme/v1/videos/{task['id']}")
    assert ended["status"] == "completed"
    assert len(stage.vendors.files) - before == number - 10
    path = f"/acme/v1/videos/{task['id']}/content"
    content = await stage.live.ask(path, method="GET")
    assert (content.content_type, content.content) == ("video/mp4", VIDEO)
    changed = await run(stage, tmp_path, number + 2, **{"{task_id}": task["id"]})
    assert changed["object"] == "video"
    assert changed["id"] != task["id"]
    ended = await until_ended(stage, f"/acme/v1/videos/{changed['id']}")
    assert ended["status"] == "completed"


IMAGES, VIDEOS = "/acme/v1/images/generations", "/acme/v1/videos"
WRONG = [
    (IMAGES, {"model": "m"}, 400, "prompt: must be present"),
    (IMAGES, {"prompt": "p"}, 400, "model: must be present"),
    (IMAGES, {"prompt": "p", "model": "m", "response_format": "png"}, 400, "response_format: "),
    (IMAGES, {"prompt": "p", "model": "m", "async": "yes"}, 400, 'async: "yes" is not true or'),
    ("/acme/v1/images/edits", {"prompt": "p", "model": "m"}, 400, "image: must be present"),
    ("/acme/v1/images/edits", {"prompt": "p", "model": "m", "image": "!"}, 400, "image: should"),
    (
        "/acme/v1/images/edits",
        {"prompt": "p", "model": "m", "image": "http://127.0.0.2:1/x"},
        400,
        "image: port 1 is not allowed",
    ),
    (VIDEOS, {"model": "m"}, 400, "prompt: must be present"),
    (VIDEOS, {"prompt": "p"}, 400, "model: must be present"),
    (VIDEOS, {"prompt": "p", "model": "m", "input_reference": [7]}, 400, "input_reference: "),
    (VIDEOS, {"prompt": "p", "model": "m", "input_reference": ["x"] * 17}, 400, "16 pictures"),
    ("/acme/v1/videos/none/remix", {"prompt": "p", "model": "m"}, 404, "task_id: there is no"),
    ("/acme/v1/chat/completions", {"model": "m"}, 400, "messages: must be present"),
    ("/nobody/v1/images/generations", {"prompt": "p", "model": "m"}, 404, 'platform: "nobody" is'),
]


async def test_each_row_of_the_tables_is_checked(stage: Stage) -> None:
    for path, body, status, message in WRONG:
        answer = await stage.live.ask(path, body)
        assert answer.status == status, (body, answer.content[:300])
        assert message in answer.json["error"]["message"], answer.json


async def test_an_address_is_answered_where_one_is_wanted(stage: Stage) -> None:
    asked = {"prompt": "p", "model": "m", "response_format": "url"}
    (item,) = (await stage.live.ask(IMAGES, asked)).json["data"]
    async with stage.live.session.get(item["url"]) as response:
        assert await response.read() == PICTURE
    assert (SAMPLES / "platforms" / "05.sh").exists()
