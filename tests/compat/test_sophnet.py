"""SophNet's text to image, video generator and OCR: the document's samples and its
tables.
"""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.compat.stage import Stage, media_stage, run_sample
from tests.compat.vendors import PICTURE, VIDEO, picture
from tests.rest.live import PROJECT

pytestmark = [
    pytest.mark.real_time,
    pytest.mark.long,
    pytest.mark.asyncio(loop_scope="module"),
]
HOST = "https://www.sophnet.com"
IMAGES = f"{PROJECT}/easyllms/texttoimage/task"
VIDEOS = f"{PROJECT}/easyllms/videogenerator/task"
OCR = f"{PROJECT}/easyllms/image-ocr"
JPEG = "data:image/jpeg;base64," + base64.b64encode(picture(400, 400, "JPEG")).decode()


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    async with media_stage(tmp_path_factory.mktemp("sophnet")) as stage:
        yield stage


def named(stage: Stage) -> dict[str, str]:
    return {HOST: stage.live.url, "${ProjectId}": "p", "{ProjectId}": "p", "{projectId}": "p"}


def one_file(folder: Path, pattern: str) -> Path:
    (found,) = folder.glob(pattern)
    return found


async def test_text_to_image_by_the_documents_shell_loop(stage: Stage, tmp_path: Path) -> None:
    printed = await run_sample("sophnet/text_to_image.sh", tmp_path, named(stage))
    assert "当前状态: SUCCEEDED" in printed
    saved = one_file(tmp_path, "*.png")
    assert saved.read_bytes() == PICTURE
    asked = stage.vendors.last("/v1/images/generations")
    assert asked == {
        "prompt": "奔跑的小猫",
        "n": 1,
        "model": "qwen-image",
        "size": "1024x1024",
        "seed": 42,
        "steps": 4,
    }


async def test_a_video_by_the_documents_shell_loop(stage: Stage, tmp_path: Path) -> None:
    printed = await run_sample("sophnet/video.sh", tmp_path, named(stage))
    assert "当前状态: succeeded" in printed
    saved = one_file(tmp_path, "*.mp4")
    assert saved.read_bytes() == VIDEO
    asked = stage.vendors.last("/v1/videos")
    assert asked["prompt"] == "小羊在草原上散步"
    assert (asked["model"], asked["seconds"]) == ("Wan2.1-T2V-14B", "5")


async def test_ocr_by_the_documents_curl(stage: Stage, tmp_path: Path) -> None:
    sample = {**named(stage), "data:image/jpeg;base64,/9j/...": JPEG}
    answer = json.loads(await run_sample("sophnet/ocr.sh", tmp_path, sample))
    assert answer == {
        "status": 0,
        "message": "请求成功",
        "result": [
            {"label": "text", "texts": "测试", "position": "0,0,720,1920"},
            {
                "label": "table",
                "texts": "| a | b |\n| --- | --- |\n| 1 | 2 |",
                "position": "0,1920,720,2000",
            },
        ],
        "markdown": {"text": "测试\n\n| a | b |\n| --- | --- |\n| 1 | 2 |"},
    }
    plain = await stage.live.ask(OCR, ocr(prettify_markdown=False))
    assert plain.json["markdown"] == {"text": "测试\na b\n1 2"}


def image(**more: Any) -> dict[str, Any]:
    return {"easyllm_id": "qwen", "model": "qwen-image", "input": {"prompt": "a cat"}, **more}


def video(*content: dict[str, Any], model: str = "Wan2.2-I2V-A14B", **more: Any) -> dict[str, Any]:
    text = {"type": "text", "text": "a sheep"}
    return {"easyllm_id": "wan", "model": model, "content": [text, *content], "parameters": more}


def ocr(**more: Any) -> dict[str, Any]:
    asked = {"easyllm_id": "x", "model": "DeepSeek-OCR", "type": "image_url"}
    return {**asked, "image_url": {"url": JPEG}, **more}


async def finished(stage: Stage, path: str) -> dict[str, Any]:
    async with asyncio.timeout(120):
        while True:
            answer: dict[str, Any] = (await stage.live.ask(path, method="GET")).json
            state = answer.get("output", answer)
            if state.get("status", state.get("taskStatus")) not in (
                *("PENDING", "RUNNING", "queued", "running"),
            ):
                return answer
            await asyncio.sleep(0.05)


async def test_dashscopes_tasks_make_both(stage: Stage) -> None:
    made = await stage.live.ask(IMAGES, image(parameters={"prompt_extend": False}))
    task_id = made.json["output"]["taskId"]
    assert made.json == {"output": {"taskId": task_id, "taskStatus": "PENDING"}}
    answer = await finished(stage, f"{IMAGES}/{task_id}")
    assert answer["output"]["taskStatus"] == "SUCCEEDED"
    asked = stage.vendors.last("/api/services/aigc/text2image/image-synthesis")
    assert asked == {
        "model": "qwen-image",
        "input": {"prompt": "a cat"},
        "parameters": {"n": 1, "size": "1328*1328", "prompt_extend": False},
    }
    listed = (await stage.live.ask(IMAGES, method="GET")).json
    assert listed[0] == {"task_id": task_id, "model": "qwen-image", "status": "SUCCEEDED"}
    first = {"type": "image_url", "image_url": {"url": JPEG}}
    body = video(first, size="832*480", duration=5, seed="7", ratio="16:9", watermark=True)
    submitted = await stage.live.ask(VIDEOS, body)
    assert submitted.content_type.startswith("text/plain")
    task_id = submitted.content.decode()
    answer = await finished(stage, f"{VIDEOS}/{task_id}")
    assert answer["status"] == "succeeded"
    assert answer["usage"] == {"duration": 5, "video_count": 1, "ratio": "16:9"}
    asked = stage.vendors.last("/api/services/aigc/video-generation/video-synthesis")
    assert asked["input"].pop("img_url").startswith("data:image/jpeg;base64,")
    assert asked["input"] == {"prompt": "a sheep"}
    assert asked["parameters"] == {"size": "832*480", "duration": 5, "seed": 7}
    listed = (await stage.live.ask(VIDEOS, method="GET")).json
    assert listed[0] == {"task_id": task_id, "model": "Wan2.2-I2V-A14B", "status": "succeeded"}
    gone = await stage.live.ask(f"{VIDEOS}/{task_id}", method="DELETE")
    assert gone.json == {"taskId": task_id, "deleted": True}
    async with stage.live.session.get(answer["content"]["video_url"]) as response:
        assert response.status == 404


WRONG_IMAGES = [
    (image(model=""), "model: must be present"),
    ({"model": "m", "input": {"prompt": "x"}}, "easyllm_id: must be present"),
    (image(input={}), "input.prompt: must be present"),
    (image(input={"prompt": " "}), "input.prompt: should say what is to be seen"),
    (image(parameters={"size": "0*5"}), 'parameters.size: "0*5" is not WIDTH*HEIGHT'),
    (image(parameters={"size": "big"}), 'parameters.size: "big" is not WIDTH*HEIGHT'),
    (image(parameters={"seed": -1}), "parameters.seed: -1 is not between"),
    (image(parameters={"seed": 2**32}), "parameters.seed: 4294967296 is not between"),
    (image(parameters={"steps": 0}), "parameters.steps: 0 is not between 1 and 500"),
    (image(parameters={"prompt_extend": "yes"}), 'parameters.prompt_extend: "yes" is not true'),
]
SMALL = "data:image/png;base64," + base64.b64encode(picture(200, 200)).decode()
LONG = "data:image/png;base64," + base64.b64encode(picture(1000, 300)).decode()


def picture_of(url: object) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


WRONG_VIDEOS = [
    (video(model=""), 400, "model: must be present"),
    ({**video(), "content": []}, 400, "content: 0 contents are not between 1 and 16"),
    ({**video(), "content": [{"type": "text"}]}, 400, "content: one of type text must have"),
    (video({"type": "audio"}), 400, 'content[1].type: "audio" is not one of text, image_url'),
    (video({"type": "image_url"}), 400, "content[1].image_url.url: must be present"),
    (video(picture_of(SMALL)), 400, "content[1].image_url.url: the picture has 200 x 200"),
    (video(picture_of(LONG)), 400, "content[1].image_url.url: the picture's width is 3.33"),
    (video(picture_of("data:image/png;base64,####")), 400, "content[1].image_url.url: should be"),
    (video(picture_of("http://169.254.169.254/x")), 400, "leads to an address that is not"),
    (video(picture_of("http://[::1]/x")), 400, "leads to an address that is not allowed"),
    (video(picture_of("file:///etc/passwd")), 400, "content[1].image_url.url: should be"),
    (video(resolution="360p"), 400, 'parameters.resolution: "360p" is not one of 480p, 720p'),
    (video(size="800*600"), 400, 'parameters.size: "800*600" is not one of 832*480'),
    (video(ratio="4:3"), 400, 'parameters.ratio: "4:3" is not one of 16:9, 9:16'),
    (video(duration=3), 400, "parameters.duration: 3 is not possible with this model, but 1 or 5"),
    (video(model="Wan2.1-T2V-14B", duration=1), 400, "not possible with this model, but 5"),
    (video(watermark="no"), 400, 'parameters.watermark: "no" is not true or false'),
    (video(seed="-1"), 400, "parameters.seed: should be a whole number to 4294967295"),
    (video(seed="4294967296"), 400, "parameters.seed: should be a whole number"),
    (video(seed=4294967295), 200, ""),
    (video(fps=0), 400, "parameters.fps: 0 is not between 1 and 240"),
]
WRONG_OCR = [
    (ocr(model=""), "model: must be present"),
    (ocr(easyllm_id=""), "easyllm_id: must be present"),
    (ocr(type="image"), 'type: "image" is not one of image_url'),
    (ocr(image_url={}), "image_url.url: must be present"),
    (ocr(image_url={"url": "data:image/png;base64,PHN2Zy8+"}), "image_url.url: is no picture"),
    (ocr(prettify_markdown="true"), 'prettify_markdown: "true" is not true or false'),
    (ocr(show_formula_number=1), "show_formula_number: 1 is not true or false"),
]


async def test_each_row_of_the_tables_is_checked(stage: Stage) -> None:
    rows = [(IMAGES, body, 400, message) for body, message in WRONG_IMAGES]
    rows += [(VIDEOS, body, status, message) for body, status, message in WRONG_VIDEOS]
    rows += [
        (OCR, body, 415 if "no picture" in message else 400, message) for body, message in WRONG_OCR
    ]
    for path, body, status, message in rows:
        answer = await stage.live.ask(path, body)
        assert answer.status == status, (body, answer.content[:300])
        if status != 200:
            assert set(answer.json) == {"status", "message", "timestamp"}
            assert message in answer.json["message"], (message, answer.json)


async def test_a_failure_of_the_service_is_said_in_the_task(stage: Stage) -> None:
    stage.vendors.fails = True
    try:
        made = await stage.live.ask(IMAGES, image())
        answer = await finished(stage, f"{IMAGES}/{made.json['output']['taskId']}")
        assert answer["output"]["taskStatus"] == "FAILED"
        assert "DataInspectionFailed" in answer["output"]["message"]
    finally:
        stage.vendors.fails = False
    missing = await stage.live.ask(f"{IMAGES}/nothing", method="GET")
    assert missing.json["message"] == "taskId: there is no such task"
