"""Every sample of the portal's, the relay's and the Spark application's documents, as
it stands there, against services in the real vendors' forms. Their clients send no key.

``samples/*/*.request.*`` are the bodies, ``*.answer.*`` the documents' answers, whose
form ours must have.
"""

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import fpdf
import pytest
import pytest_asyncio

from tests.compat.model_vendor import HEARD, SAID, USAGE
from tests.compat.shapes import check_shape
from tests.compat.stage import SAMPLES, Stage, configured_stage
from tests.compat.vendors import PICTURE, VIDEO, picture
from tests.documents.material import FONT
from tests.rest.live import KEY, Answer

pytestmark = [
    pytest.mark.real_time,
    pytest.mark.long,
    pytest.mark.asyncio(loop_scope="module"),
]
CONFIG = f"""
[compat]
guest_key = "{KEY}"
[knowledge]
embedder = ""
"""
RECORDING = Path(__file__).parents[1] / "recordings" / "goforward.wav"
REPLY = "".join(SAID)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    async with configured_stage(tmp_path_factory.mktemp("samples"), CONFIG) as stage:
        yield stage


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def accounts(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    config = CONFIG.replace("[knowledge]", 'documents = ["spark", "accounts"]\n[knowledge]')
    async with configured_stage(tmp_path_factory.mktemp("accounts"), config) as stage:
        yield stage


def sample(name: str) -> str:
    return (SAMPLES / name).read_text("utf-8")


async def send(
    stage: Stage, method: str, path: str, data: Any = None, headers: dict[str, str] | None = None
) -> Answer:
    async with stage.live.session.request(
        method, stage.live.url + path, data=data, headers=headers
    ) as response:
        return Answer(
            response.status, response.content_type, dict(response.headers), await response.read()
        )


async def run(stage: Stage, path: str, name: str, method: str = "POST") -> Answer:
    """Send the body of a sample."""
    headers = {"Content-Type": "application/json"}
    answer = await send(stage, method, path, sample(name).encode(), headers)
    assert answer.status == 200, answer.content
    return answer


# The relay


async def test_the_relays_models(stage: Stage) -> None:
    answer = await send(stage, "GET", "/openai/models")
    check_shape(json.loads(sample("relay/openai_models.answer.json")), answer.json)
    models = answer.json["data"]["models"]
    assert sorted(set(models)) == sorted(models), "no name twice"


async def test_the_relays_whole_answers(stage: Stage) -> None:
    answer = await run(stage, "/openai/completions", "relay/openai_completions.request.json")
    check_shape(json.loads(sample("relay/openai_completions.answer.json")), answer.json)
    assert answer.json["data"] == [REPLY]
    asked = stage.vendors.last("/v1/chat/completions")
    assert asked["messages"] == [{"role": "user", "content": "Say this is a test"}]
    assert (asked["max_tokens"], asked["temperature"]) == (16, 1)

    answer = await run(stage, "/openai/chat", "relay/openai_chat.request.json")
    check_shape(json.loads(sample("relay/openai_chat.answer.json")), answer.json)
    asked_for = json.loads(sample("relay/openai_chat.request.json"))
    assert answer.json["data"]["chatcode"] == asked_for["chatcode"]
    asked = stage.vendors.last("/v1/chat/completions")
    assert asked["messages"] == [asked_for["initMessage"], *asked_for["messages"]]
    assert asked["max_tokens"] == 1000

    answer = await run(stage, "/openai/edits", "relay/openai_edits.request.json")
    assert answer.json == {"code": 0, "data": [REPLY], "message": "响应成功"}
    said = stage.vendors.last("/v1/chat/completions")["messages"][-1]["content"]
    assert said == "Fix the spelling mistakes\n\nWhat day of the wek is it?"

    answer = await run(stage, "/send", "relay/send.request.json")
    check_shape(json.loads(sample("relay/send.answer.json")), answer.json)
    assert answer.json == {"text": REPLY, "fileId": "xxx"}


async def test_the_relays_pictures(stage: Stage) -> None:
    answer = await run(stage, "/openai/image", "relay/openai_image.request.json")
    assert answer.json["code"] == 0
    (item,) = answer.json["data"]
    assert set(item) == {"b64_json"}
    asked = stage.vendors.last("/v1/images/generations")
    assert asked == {"prompt": "A cute baby sea otter", "n": 1, "size": "1024x1024"}


@pytest.mark.parametrize("form", ["stream", "sse"])
@pytest.mark.parametrize("kind", ["completions", "chat"])
async def test_the_relays_streams(stage: Stage, kind: str, form: str) -> None:
    name = f"relay/openai_{kind}_{form}"
    answer = await run(stage, f"/openai/{kind}/{form}", f"{name}.request.json")
    text = answer.content.decode()
    if form == "sse":
        assert answer.content_type == "text/event-stream"
        assert all(event.startswith("data: {") for event in text.removesuffix("\n\n").split("\n\n"))
        text = text.replace("data: ", "").replace("\n\n", "\n")
    else:
        assert answer.content_type == "application/x-ndjson"
    pieces = [json.loads(line) for line in text.splitlines()]
    expected = [json.loads(line) for line in sample(f"{name}.answer.lines").strip().splitlines()]
    ends = 1 if kind == "completions" else 2
    assert pieces[-ends:] == expected[-ends:], "the code, if any, and the end, as they stand there"
    for piece in pieces:
        assert list(piece) == list(expected[0]), "the fields in the same order"
    assert {piece["message"] for piece in pieces[:-ends]} == {"continue"}
    assert "".join(piece["data"] for piece in pieces[:-ends]) == REPLY


# The portal


def file_form(name: str, content: bytes) -> aiohttp.FormData:
    """Make the form that the document writes as ``field: file://PATH``."""
    found = re.fullmatch(r"(\w+): file://(\S+)\s*", sample(name))
    assert found is not None
    form = aiohttp.FormData()
    form.add_field(found[1], content, filename=re.split(r"[\\/]", found[2])[-1])
    return form


FACT = "大数据中心上云的单位数量为三十七家。"


def lesson() -> bytes:
    """A PDF with ``FACT``."""
    document = fpdf.FPDF()
    document.add_font("noto", fname=str(FONT))
    document.add_page()
    document.set_font("noto", size=14)
    document.cell(text=FACT)
    return bytes(document.output())


async def test_the_portals_chat_answers_from_its_category(stage: Stage) -> None:
    form = file_form("portal/uploadFile_uploadLearningFile.request.yaml", lesson())
    learnt = await send(stage, "POST", "/uploadFile/uploadLearningFile?category=bj_gov", form)
    expected = json.loads(sample("portal/uploadFile_uploadLearningFile.answer.json"))
    assert (learnt.status, learnt.json) == (200, expected)

    async def ask() -> dict[str, Any]:
        answer = await run(stage, "/v1/chat/completions", "portal/v1_chat_completions.request.json")
        check_shape(json.loads(sample("portal/v1_chat_completions.answer.json")), answer.json)
        assert answer.json["choices"][0]["message"] == {"role": "assistant", "content": REPLY}
        assert answer.json["usage"] == USAGE
        return stage.vendors.last("/v1/chat/completions")

    def is_told(asked: dict[str, Any]) -> bool:
        return FACT in json.dumps(asked["messages"], ensure_ascii=False)

    asked = await stage.until(ask, is_told)
    assert (asked["temperature"], asked["max_tokens"]) == (0.8, 500)
    assert asked["model"] == "vendor-chat", "and not a path of the client's"
    assert "category" not in asked


async def test_the_portals_recognition_and_speech(stage: Stage) -> None:
    octets = {"Content-Type": "application/octet-stream"}
    answer = await send(stage, "POST", "/v1/asr", RECORDING.read_bytes(), octets)
    check_shape(json.loads(sample("portal/v1_asr.answer.json")), answer.json)
    assert answer.json == {"result": HEARD, "status": 20000000}
    form = aiohttp.FormData()
    form.add_field("file", RECORDING.read_bytes(), filename="x.wav")
    assert (await send(stage, "POST", "/v1/asr", form)).json == answer.json

    spoken = await send(stage, "GET", "/v1/tts?text=%E4%BD%A0%E5%A5%BD")
    assert (spoken.status, spoken.content_type) == (200, "audio/mpeg")
    assert spoken.content[0] == 0xFF, "an MP3 frame"
    assert stage.vendors.last("/v1/audio/speech")["input"] == "你好"
    failed = await send(stage, "GET", "/v1/tts")
    assert failed.content_type == "application/json"


async def test_the_portals_pictures(stage: Stage) -> None:
    answer = await run(stage, "/v1/images/generations", "portal/v1_images_generations.request.json")
    check_shape(json.loads(sample("portal/v1_images_generations.answer.json")), answer.json)
    fetched = await stage.live.session.get(answer.json["data"][0]["url"])
    assert await fetched.read() == PICTURE

    form = file_form("portal/image_imageToText.request.yaml", picture(kind="JPEG"))
    answer = await send(stage, "POST", "/image/imageToText", form)
    check_shape(json.loads(sample("portal/image_imageToText.answer.json")), answer.json)
    assert (answer.json["caption"], answer.json["classification"]) == (REPLY, REPLY)
    asked = stage.vendors.last("/v1/chat/completions")
    assert asked["model"] == "vendor-eyes"
    (image,) = (part for part in asked["messages"][-1]["content"] if part["type"] == "image_url")
    assert image["image_url"]["url"].startswith("data:image/jpeg;base64,")

    form = file_form("portal/image_enhanceImage.request.yaml", picture(kind="JPEG"))
    answer = await send(stage, "POST", "/image/enhanceImage", form)
    check_shape(json.loads(sample("portal/image_enhanceImage.answer.json")), answer.json)
    fetched = await stage.live.session.get(answer.json["enhanceImageUrl"])
    assert fetched.content_type == "image/png"


async def test_the_portals_videos(stage: Stage) -> None:
    form = file_form("portal/image_generateVideo.request.yaml", picture(kind="JPEG"))
    answer = await send(stage, "POST", "/image/generateVideo", form)
    check_shape(json.loads(sample("portal/image_generateVideo.answer.json")), answer.json)
    fetched = await stage.live.session.get(answer.json["svdVideoUrl"])
    assert await fetched.read() == VIDEO
    for name in ("motInference", "mmeditingInference"):
        form = file_form(f"portal/video_{name}.request.yaml", VIDEO)
        answer = await send(stage, "POST", f"/video/{name}", form)
        check_shape(json.loads(sample(f"portal/video_{name}.answer.json")), answer.json)
        fetched = await stage.live.session.get(answer.json["data"])
        assert (fetched.content_type, await fetched.read()) == ("video/mp4", VIDEO[::-1])


# The Spark application


def dialog() -> str:
    """The document's dialog, whose dots stand for further messages."""
    return re.sub(r",\s*\.\.\.\]", "]", sample("spark/textModel_chat.request.txt"))


def frames_of(answer: Answer) -> list[dict[str, Any]]:
    return [json.loads(line) for line in answer.content.splitlines()]


def check_frames(frames: list[dict[str, Any]]) -> None:
    """Check the frames against the document's last one."""
    text = sample("spark/textModel_stream.answer.txt")
    expected = json.loads(text[text.index("{") :])
    check_shape(expected, frames[-1])
    choices = [frame["payload"]["choices"] for frame in frames]
    assert "".join(choice["text"][0]["content"] for choice in choices) == REPLY
    assert [choice["seq"] for choice in choices] == list(range(len(frames)))
    statuses = [frame["header"]["status"] for frame in frames]
    assert statuses == [0, *[1] * (len(frames) - 2), 2]
    assert statuses == [choice["status"] for choice in choices]
    assert len({frame["header"]["sid"] for frame in frames}) == 1
    usage = frames[-1]["payload"]["usage"]["text"]
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (
        10,
        20,
        30,
    )
    assert all("usage" not in frame["payload"] for frame in frames[:-1])


async def test_spark_without_accounts(stage: Stage) -> None:
    answer = await send(stage, "POST", "/textModel/chat", dialog().encode())
    check_shape(json.loads(sample("spark/textModel_chat.answer.json")), answer.json)
    assert answer.json == {"code": 0, "consume_token": 30, "content": REPLY}
    roles = [message["role"] for message in stage.vendors.last("/v1/chat/completions")["messages"]]
    assert roles[:3] == ["system", "user", "assistant"]
    check_frames(frames_of(await send(stage, "POST", "/textModel/stream", dialog().encode())))
    samples = RECORDING.read_bytes()[44:]
    answer = await send(stage, "POST", "/voiceModel/chat", samples)
    check_shape(json.loads(sample("spark/voiceModel_chat.answer.json")), answer.json)
    assert answer.json == {"code": 0, "content": HEARD}
    answer = await send(stage, "POST", "/PictureToTextModel/chat", picture(kind="JPEG"), headers())
    check_shape(json.loads(sample("spark/PictureToTextModel_chat.answer.json")), answer.json)


def headers(**changed: str) -> dict[str, str]:
    """The document's headers."""
    found = dict(
        re.findall(r'"(\w+)": "(\w+)"', sample("spark/PictureToTextModel_chat.headers.txt"))
    )
    assert set(found) == {"uuid", "username"}
    return {**found, **changed}


async def test_spark_with_accounts(accounts: Stage) -> None:
    stage = accounts
    who = {"username": "li", "password": "correct horse", "email": "li@example.org"}

    def filled(name: str, **values: str) -> bytes:
        text = sample(name)
        for key, value in values.items():
            text = text.replace(f'"{key}": "xxx"', f'"{key}": "{value}"')
        return text.encode()

    made = await send(
        stage, "POST", "/auth/register", filled("spark/auth_register.request.json", **who)
    )
    check_shape(json.loads(sample("spark/auth_register.answer.json")), made.json)
    assert made.json["code"] == 0
    entered = await send(
        stage, "POST", "/auth/login", filled("spark/auth_login.request.json", **who)
    )
    check_shape(json.loads(sample("spark/auth_login.answer.json")), entered.json)
    user = {"uuid": entered.json["uuid"], "username": "li"}

    body = dialog()
    for key, value in user.items():
        body = body.replace(f'"{key}": "xxx"', f'"{key}": "{value}"')
    answer = await send(stage, "POST", "/textModel/chat", body.encode())
    assert answer.json == {"code": 0, "consume_token": 30, "content": REPLY}
    check_frames(frames_of(await send(stage, "POST", "/textModel/stream", body.encode())))
    answer = await send(
        stage, "POST", "/PictureToTextModel/chat", picture(kind="JPEG"), headers(**user)
    )
    assert answer.json["content"].startswith("测试")
    answer = await send(stage, "POST", "/voiceModel/chat", RECORDING.read_bytes()[44:])
    assert answer.json == {"code": 0, "content": HEARD}

    for path, content, sent in (
        ("/textModel/chat", dialog().encode(), None),
        ("/textModel/stream", dialog().encode(), None),
        ("/PictureToTextModel/chat", picture(kind="JPEG"), headers()),
        ("/PictureToTextModel/chat", picture(kind="JPEG"), None),
        ("/voiceModel/chat", bytes(32_000), headers()),
    ):
        refused = await send(stage, "POST", path, content, sent)
        assert refused.status == 401, path
        assert set(refused.json) == {"code", "message", "msg"}, "no content, as it says"
