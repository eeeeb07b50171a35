"""Each row of the parameter tables of the portal, the relay, the platforms and the
Spark application: what is missing, of the wrong type or out of its range is refused in
the document's form, the ends of a range are accepted, and what is left out has the
document's default.
"""

import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from tests.compat.stage import Stage, configured_stage
from tests.compat.vendors import PICTURE, picture
from tests.rest.live import KEY, Answer

pytestmark = [
    pytest.mark.real_time,
    pytest.mark.long,
    pytest.mark.asyncio(loop_scope="module"),
]
CONFIG = f"""
[compat]
guest_key = "{KEY}"
documents = ["portal", "relay", "platforms", "spark", "accounts"]
[platforms.acme]
llm = ["default"]
images = ["default"]
videos = ["default"]
[platforms.bare]
llm = ["default"]
"""
CODED = {"code", "message", "msg"}
CONTRACT = {"status", "message", "timestamp"}
OPENAI = {"error", "message"}
MESSAGE = {"role": "user", "content": "x"}


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    async with configured_stage(tmp_path_factory.mktemp("rows"), CONFIG) as stage:
        yield stage


async def send_form(stage: Stage, path: str, fields: dict[str, Any]) -> Answer:
    """Send a form; bytes are files, and a list has a part for each item."""
    form = aiohttp.FormData(default_to_multipart=True)
    for name, values in fields.items():
        for value in values if isinstance(values, list) else [values]:
            filename = "x.jpg" if isinstance(value, bytes) else None
            form.add_field(name, value, filename=filename)
    async with stage.live.session.post(
        stage.live.url + path, data=form, headers={"Authorization": f"Bearer {KEY}"}
    ) as response:
        return Answer(
            response.status, response.content_type, dict(response.headers), await response.read()
        )


def asked_of(stage: Stage) -> list[str]:
    """The requests to the vendor, but for the apology that the server has ready."""
    return [path for path, _ in stage.vendors.asked if path != "/v1/audio/speech"]


Row = tuple[str, dict[str, Any], str]


def texts(path: str, body: dict[str, Any], *names: str) -> list[Row]:
    """Rows of required texts."""
    return [
        row
        for name in names
        for row in (
            (path, {key: value for key, value in body.items() if key != name}, f"{name}: must be"),
            (path, {**body, name: ""}, f"{name}: must be present"),
            (path, {**body, name: 7}, f"{name}: 7 is not a text"),
        )
    ]


def numbers(path: str, body: dict[str, Any]) -> list[Row]:
    """Rows of the relay's ``max_tokens`` and ``temperature``."""
    return [
        (path, {**body, "max_tokens": -1}, "max_tokens: -1 is not between 0 and 4096"),
        (path, {**body, "max_tokens": 4097}, "max_tokens: 4097 is not between 0 and 4096"),
        (path, {**body, "max_tokens": 1.5}, "max_tokens: 1.5 is not a whole number"),
        (path, {**body, "max_tokens": "16"}, 'max_tokens: "16" is not a whole number'),
        (path, {**body, "temperature": -0.1}, "temperature: -0.1 is not between 0 and 2"),
        (path, {**body, "temperature": 2.1}, "temperature: 2.1 is not between 0 and 2"),
        (path, {**body, "temperature": "1"}, 'temperature: "1" is not a number'),
    ]


def messages(path: str, body: dict[str, Any], name: str = "messages") -> list[Row]:
    """Rows of an array of messages."""
    return [
        (path, {key: body[key] for key in body if key != name}, f"{name}: must be present"),
        (path, {**body, name: "x"}, f'{name}: "x" is not an array'),
        (path, {**body, name: []}, f"{name}: 0 messages are not between 1 and"),
        (path, {**body, name: ["x"]}, f'{name}[0]: "x" is not an object'),
        (path, {**body, name: [{"content": "x"}]}, f"{name}[0].role: must be present"),
        (path, {**body, name: [{"role": 7, "content": "x"}]}, f"{name}[0].role: 7 is not a text"),
        (path, {**body, name: [{"role": "x", "content": ""}]}, f'{name}[0].role: "x" is not one'),
        (path, {**body, name: [{"role": "user"}]}, f"{name}[0]: content must be present"),
        (path, {**body, name: [{"role": "user", "content": 7}]}, f"{name}[0].content: 7 is not a"),
    ]


COMPLETION = {"model": "m", "prompt": "x"}
CHAT = {"model": "m", "messages": [MESSAGE]}
EDIT = {"model": "m", "input": "x", "instruction": "y"}
IMAGE = {"prompt": "x"}
REPLIES = "/openai/completions"
RELAY: list[Row] = [
    *(
        row
        for path in (REPLIES, f"{REPLIES}/stream", f"{REPLIES}/sse")
        for row in (*texts(path, COMPLETION, "model", "prompt"), *numbers(path, COMPLETION))
    ),
    (REPLIES, {**COMPLETION, "n": 0}, "n: 0 is not between 1 and 10"),
    (REPLIES, {**COMPLETION, "n": 11}, "n: 11 is not between 1 and 10"),
    (REPLIES, {**COMPLETION, "n": "1"}, 'n: "1" is not a whole number'),
    *(
        row
        for path in ("/openai/chat", "/openai/chat/stream", "/openai/chat/sse")
        for row in (
            *texts(path, CHAT, "model"),
            *messages(path, CHAT),
            *numbers(path, CHAT),
            (path, {**CHAT, "messages": [MESSAGE] * 101}, "messages: 101 messages are not"),
            (path, {**CHAT, "chatcode": 7}, "chatcode: 7 is not a text"),
            (path, {**CHAT, "chatcode": "x" * 129}, "chatcode: longer than 128 characters"),
            (path, {**CHAT, "initMessage": "x"}, 'initMessage: "x" is not an object'),
            (path, {**CHAT, "initMessage": {"content": "x"}}, "initMessage.role: must be present"),
            (path, {**CHAT, "initMessage": {"role": "x", "content": ""}}, "initMessage.role: "),
            (path, {**CHAT, "initMessage": {"role": "system"}}, "initMessage: content must be"),
        )
    ),
    *texts("/openai/edits", EDIT, "model", "input", "instruction"),
    ("/openai/edits", {**EDIT, "temperature": 2.5}, "temperature: 2.5 is not between 0 and 2"),
    ("/openai/edits", {**EDIT, "n": 0}, "n: 0 is not between 1 and 10"),
    ("/openai/edits", {**EDIT, "n": 1.5}, "n: 1.5 is not a whole number"),
    *texts("/openai/image", IMAGE, "prompt"),
    ("/openai/image", {**IMAGE, "n": 0}, "n: 0 is not between 1 and 10"),
    ("/openai/image", {**IMAGE, "n": 11}, "n: 11 is not between 1 and 10"),
    ("/openai/image", {**IMAGE, "size": "64x64"}, 'size: "64x64" is not one of 256x256, 512x512'),
    ("/openai/image", {**IMAGE, "size": 256}, "size: 256 is not a text"),
    ("/openai/image", {**IMAGE, "response_format": "png"}, 'response_format: "png" is not one of'),
    *texts("/send", {"text": "x"}, "text"),
    ("/send", {"text": "x", "inputFileId": 7}, "inputFileId: 7 is not a text"),
    ("/send", {"text": "x", "inputFileId": "x" * 129}, "inputFileId: longer than 128 characters"),
]
ACCOUNT = {"username": "li", "password": "long enough", "email": "a@b.c"}
DIALOG = {"dialog": [MESSAGE], "uuid": "", "username": ""}
SPARK: list[Row] = [
    *texts("/auth/register", ACCOUNT, "username", "password", "email"),
    ("/auth/register", {**ACCOUNT, "username": "x" * 65}, "username: 65 characters are not"),
    ("/auth/register", {**ACCOUNT, "password": "x" * 7}, "password: 7 characters are not between"),
    ("/auth/register", {**ACCOUNT, "password": "x" * 257}, "password: 257 characters are not"),
    ("/auth/register", {**ACCOUNT, "email": "x" * 255}, "email: 255 characters are not between"),
    *texts("/auth/login", ACCOUNT, "username", "password"),
    *(
        row
        for path in ("/textModel/chat", "/textModel/stream")
        for row in (
            *messages(path, DIALOG, "dialog"),
            (path, {**DIALOG, "uuid": 7}, "uuid: 7 is not a text"),
            (path, {**DIALOG, "username": 7}, "username: 7 is not a text"),
        )
    ),
]
GENERATE, EDITS = "/acme/v1/images/generations", "/acme/v1/images/edits"
VIDEOS, CHATS = "/acme/v1/videos", "/acme/v1/chat/completions"
MADE = {"prompt": "x", "model": "m"}
URL = "data:image/png;base64," + base64.b64encode(picture()).decode()
PLATFORMS: list[Row] = [
    *texts(CHATS, CHAT, "model"),
    *messages(CHATS, CHAT),
    (CHATS, {**CHAT, "stream": "true"}, 'stream: "true" is not true or false'),
    *texts(GENERATE, MADE, "prompt", "model"),
    (GENERATE, {**MADE, "response_format": "png"}, 'response_format: "png" is not one of b64_json'),
    (GENERATE, {**MADE, "async": "true"}, 'async: "true" is not true or false'),
    (f"{GENERATE}?async=perhaps", MADE, 'async: "perhaps" is not true or false'),
    *texts(EDITS, {**MADE, "image": URL}, "prompt", "model"),
    (EDITS, MADE, "image: must be present"),
    (EDITS, {**MADE, "image": []}, "image: must be present"),
    (EDITS, {**MADE, "image": [URL] * 17}, "image: 17 pictures are more than 16"),
    (EDITS, {**MADE, "image": "?"}, "image: should be an http or https address, a data URL"),
    (EDITS, {**MADE, "image": "http://10.0.0.1/x.png"}, "image: "),
    (EDITS, {**MADE, "image": URL, "response_format": "x"}, 'response_format: "x" is not one of'),
    (EDITS, {**MADE, "image": URL, "async": 1}, "async: 1 is not true or false"),
    *texts(VIDEOS, MADE, "prompt", "model"),
    (EDITS, {**MADE, "image": 7}, "image: 7 is not a text or an array of texts"),
    (EDITS, {**MADE, "image": [7]}, "image: an array is not a text or an array of texts"),
    (VIDEOS, {**MADE, "seconds": []}, "seconds: an array is not a number or a text"),
    (VIDEOS, {**MADE, "seconds": "601"}, "seconds: should be above 0 and at most 600"),
    (VIDEOS, {**MADE, "input_reference": 7}, "input_reference: should be an address, a data URL"),
    (VIDEOS, {**MADE, "input_reference": "?"}, "input_reference: should be an http or https"),
    (VIDEOS, {**MADE, "input_reference": [URL] * 17}, "input_reference: 16 pictures at most"),
    (VIDEOS, {**MADE, "input_reference": "http://169.254.169.254/x"}, "input_reference: "),
    *texts(f"{VIDEOS}/none/remix", MADE, "prompt", "model"),
]


@pytest.mark.parametrize(
    ("rows", "form"),
    [(RELAY, CODED), (SPARK, CODED), (PLATFORMS, OPENAI)],
    ids=["relay", "spark", "platforms"],
)
async def test_what_a_row_does_not_allow_is_refused(
    stage: Stage, rows: list[Row], form: set[str]
) -> None:
    before = asked_of(stage)
    for path, body, message in rows:
        answer = await stage.live.ask(path, body)
        assert answer.status == 400, (path, body, answer.content[:300])
        assert set(answer.json) == form, answer.json
        assert answer.json["message"].startswith(message), (path, body, answer.json)
    assert asked_of(stage) == before, "no service was asked"


async def test_the_ends_of_the_relays_ranges(stage: Stage) -> None:
    for more, sent in (
        ({"max_tokens": 4096, "temperature": 2}, {"max_tokens": 4096, "temperature": 2}),
        ({"max_tokens": 1, "temperature": 0}, {"max_tokens": 1, "temperature": 0}),
        # Nothing, null and 0 tokens: the model's own.
        ({"max_tokens": 0, "temperature": None}, {}),
        ({}, {}),
    ):
        answer = await stage.live.ask(REPLIES, {**COMPLETION, **more})
        assert answer.status == 200, (more, answer.content)
        assert len(answer.json["data"]) == 1, "n is 1 unless it is named"
        asked = stage.vendors.last("/v1/chat/completions")
        assert {
            name: asked[name] for name in ("max_tokens", "temperature") if name in asked
        } == sent
    answer = await stage.live.ask(REPLIES, {**COMPLETION, "n": 10})
    assert len(answer.json["data"]) == 10
    # A streamed reply is one, whatever is named.
    answer = await stage.live.ask(f"{REPLIES}/stream", {**COMPLETION, "n": 3})
    assert answer.content.decode().count('"end"') == 1
    for size in ("256x256", "512x512", "1024x1024"):
        answer = await stage.live.ask("/openai/image", {**IMAGE, "size": size, "n": 10})
        assert len(answer.json["data"]) == 10
        assert set(answer.json["data"][0]) == {"url"}, "the default"
        assert stage.vendors.last("/v1/images/generations")["size"] == size


async def test_a_new_conversation_has_a_code_and_begins_with_its_message(stage: Stage) -> None:
    begin = {"role": "system", "content": "喵"}
    first = (await stage.live.ask("/openai/chat", {**CHAT, "initMessage": begin})).json["data"]
    assert len(first["chatcode"]) >= 24
    again = {
        **CHAT,
        "chatcode": first["chatcode"],
        "initMessage": {"role": "system", "content": "y"},
    }
    await stage.live.ask("/openai/chat", again)
    asked = stage.vendors.last("/v1/chat/completions")["messages"]
    assert [message["content"] for message in asked] == ["喵", "x", "你好，世界。", "x"]


async def test_what_is_too_long_for_the_model_loses_its_oldest_messages(stage: Stage) -> None:
    path, body = "/openai/chat", {**CHAT, "chatcode": "long"}
    begin = {"role": "system", "content": "喵"}
    for number in range(4):
        said = {"role": "user", "content": f"message {number}"}
        await stage.live.ask(path, {**body, "messages": [said], "initMessage": begin})
    stage.vendors.most_messages = 5
    try:
        answer = await stage.live.ask(path, {**body, "messages": [MESSAGE]})
    finally:
        stage.vendors.most_messages = 1000
    assert answer.status == 200, answer
    asked = stage.vendors.last("/v1/chat/completions")["messages"]
    assert asked[0] == begin, "but not what it begins with"
    assert asked[-1] == MESSAGE
    assert 2 <= len(asked) <= 5


async def test_the_platforms_pictures(stage: Stage) -> None:
    encoded = "data:image/png;base64," + base64.b64encode(PICTURE).decode()
    for answer in (
        await stage.live.ask(GENERATE, MADE),
        await stage.live.ask(GENERATE, {**MADE, "response_format": "b64_json", "async": False}),
        await send_form(stage, GENERATE, {**MADE, "async": "false"}),
        await stage.live.ask(f"{GENERATE}?async=False", MADE),
        await stage.live.ask(EDITS, {**MADE, "image": URL}),
        await stage.live.ask(EDITS, {**MADE, "image": [URL, URL.partition(",")[2]]}),
        await send_form(stage, EDITS, {**MADE, "image": picture()}),
        await send_form(stage, EDITS, {**MADE, "image[]": [picture(), URL]}),
    ):
        assert answer.json["data"] == [{"b64_json": encoded}], "the default form"
        assert isinstance(answer.json["created"], int)
    for answer in (
        await stage.live.ask(f"{GENERATE}?async=true", MADE),
        await stage.live.ask(GENERATE, {**MADE, "async": True}),
        await send_form(stage, EDITS, {**MADE, "image": picture(), "async": "true"}),
    ):
        assert (answer.json["object"], answer.json["status"]) == ("image", "queued")
    for fields, message in (
        ({**MADE, "async": "perhaps"}, 'async: "perhaps" is not true or false'),
        ({**MADE, "n": "many"}, "n: is not a number"),
        ({"prompt": "x"}, "model: must be present"),
    ):
        answer = await send_form(stage, GENERATE, fields)
        assert (answer.status, answer.json["message"]) == (400, message)


async def test_the_platforms_tasks(stage: Stage) -> None:
    task = (await stage.live.ask(VIDEOS, MADE)).json
    assert set(task) == {"id", "object", "model", "status", "created_at"}
    path = f"{VIDEOS}/{task['id']}"

    async def look() -> Any:
        return (await stage.live.ask(path, method="GET")).json

    await stage.until(look, lambda found: found["status"] == "completed")
    for query, has_detail in (("", False), ("?detail=false", False), ("?detail=true", True)):
        answer = await stage.live.ask(path + query, method="GET")
        assert ("detail" in answer.json) == has_detail, query
    answer = await stage.live.ask(f"{path}?detail=perhaps", method="GET")
    assert answer.status == 400
    assert answer.json["message"] == 'detail: "perhaps" is not true or false'
    remix = f"{path}/remix"
    for body, status, message in (
        ({**MADE, "input_reference": "?"}, 400, "input_reference: should be"),
        ({**MADE, "input_reference": "http://169.254.169.254/x"}, 400, "input_reference: "),
        (
            {**MADE, "input_reference": ["data:image/png;base64,PHN2Zy8+"]},
            415,
            "input_reference: is",
        ),
    ):
        answer = await stage.live.ask(remix, body)
        assert (answer.status, answer.json["message"].startswith(message)) == (status, True), answer
    answer = await stage.live.ask(remix, {**MADE, "input_reference": [URL]})
    assert "input_reference" in answer.headers["Voicechat-Note"]
    for path, status, message in (
        (f"{VIDEOS}/none", 404, "task_id: there is no such task"),
        (f"{VIDEOS}/none/content", 404, "task_id: there is no such task"),
        (f"/bare/v1/videos/{task['id']}", 404, "task_id: there is no such task"),
        (f"/other/v1/videos/{task['id']}", 404, 'platform: "other" is not one of acme, bare'),
    ):
        answer = await stage.live.ask(path, method="GET")
        assert (answer.status, answer.json["message"]) == (status, message)


async def test_the_portals_rows(stage: Stage) -> None:
    chat = {**CHAT, "max_tokens": 5}
    for body, message in (
        *((body, message) for _, body, message in messages("", chat)),
        *((body, message) for _, body, message in texts("", chat, "model")),
        ({**chat, "temperature": 2.1}, "temperature: 2.1 is not between 0 and 2"),
        ({**chat, "temperature": "x"}, 'temperature: "x" is not a number'),
        ({**chat, "max_tokens": 0}, "max_tokens: 0 is less than 1"),
        ({**chat, "max_tokens": 1.5}, "max_tokens: 1.5 is not a whole number"),
        ({**chat, "category": 7}, "category: 7 is not a text"),
    ):
        answer = await stage.live.ask("/v1/chat/completions", body)
        assert (answer.status, answer.json["message"].startswith(message)) == (400, True), (
            body,
            answer,
        )
    for body, message in (
        ({}, "prompt: must be present"),
        ({"prompt": " "}, "prompt: should say what is to be seen"),
        ({"prompt": 7}, "prompt: 7 is not a text"),
        ({"prompt": "x" * 32_001}, "prompt: 32001 characters are more than 32000"),
    ):
        answer = await stage.live.ask("/v1/images/generations", body)
        assert (answer.status, answer.json["message"]) == (400, message)
    for text, message in (
        ("", "text: must be present"),
        ("%20", "text: must be present"),
    ):
        answer = await stage.live.ask(f"/v1/tts?text={text}", method="GET")
        assert (answer.status, set(answer.json)) == (400, CONTRACT)
        assert answer.json["message"].startswith(message)


async def test_the_portals_learning_files(stage: Stage) -> None:
    path = "/uploadFile/uploadLearningFile"
    for query, fields, status, message in (
        ("", {"fileToUpload": b"A text."}, 400, "category: "),
        ("?category=", {"fileToUpload": b"A text."}, 400, "category: "),
        ("?category=a/b", {"fileToUpload": b"A text."}, 400, "category: "),
        (f"?category={'x' * 65}", {"fileToUpload": b"A text."}, 400, "category: "),
        ("?category=x", {"file": b"A text."}, 400, "fileToUpload: must be present"),
    ):
        answer = await send_form(stage, path + query, fields)
        assert (answer.status, set(answer.json)) == (status, CONTRACT), (query, answer)
        assert answer.json["message"].startswith(message), answer.json


async def test_the_portals_files(stage: Stage) -> None:
    for path in (
        "/image/imageToText",
        "/image/enhanceImage",
        "/image/generateVideo",
        "/video/motInference",
        "/video/mmeditingInference",
    ):
        for fields in ({}, {"other": b"x"}, {"file": b""}):
            answer = await send_form(stage, path, {"x": "y", **fields})
            assert (answer.status, answer.json["message"]) == (400, "file: must be present"), fields
            assert set(answer.json) == CONTRACT
        answer = await stage.live.ask(path, {"file": "x"})
        assert (answer.status, answer.json["message"]) == (
            400,
            "the body should be multipart/form-data",
        )
        if path.startswith("/image"):
            answer = await send_form(stage, path, {"file": b"<svg/>"})
            assert (answer.status, answer.json["message"][:17]) == (415, "file: is no pictu")


async def test_bodies_that_are_files(stage: Stage) -> None:
    """``/v1/asr`` of the portal, and the Spark application's voice and picture."""
    for path, form in (("/v1/asr", CONTRACT), ("/voiceModel/chat", CODED)):
        for content, status, message in (
            (b"", 400, "body: is empty"),
            (json.dumps({"a": 1}).encode(), 415, "body: this is no known kind of recording"),
            (picture(), 415, "body: this is no known kind of recording"),
        ):
            answer = await stage.live.ask(path, content)
            assert (answer.status, set(answer.json)) == (status, form), answer
            assert message in answer.json["message"]
        for fields, message in (
            ({"other": b"x"}, "file: must be present"),
            ({"file": b""}, "file: is empty"),
        ):
            answer = await send_form(stage, path, fields)
            assert (answer.status, set(answer.json)) == (400, form), answer
            assert answer.json["message"] == message
        silence = await stage.live.ask(path, bytes(32_000))
        assert silence.status == 200, "samples without a header"
    for content, status in ((b"", 415), (b"x", 415), (picture(), 200), (picture(kind="JPEG"), 200)):
        answer = await stage.live.ask("/PictureToTextModel/chat", content)
        assert answer.status == status, answer
        assert ("content" in answer.json) == (status == 200), "only where it succeeded"
