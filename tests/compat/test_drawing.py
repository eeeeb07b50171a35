"""A conversation whose model draws: over a real socket, by the durable tasks."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.compat.stage import Stage, media_stage
from tests.compat.vendors import PICTURE
from tests.rest.live import KEY
from voicechat.client import PictureMessage, TurnCompletedMessage, connect
from voicechat.runtime.drawing import SHOWN, DrawingTool
from voicechat.session.types import ToolCall
from voicechat.testing.scripted import ScriptedModel

pytestmark = [pytest.mark.real_time, pytest.mark.long, pytest.mark.asyncio(loop_scope="module")]

CALL = (ToolCall(0, "c", "draw", '{"prompt": "a pig"}'),)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    model = ScriptedModel(replies=[CALL, ("Here it is.",)])
    async with media_stage(
        tmp_path_factory.mktemp("drawing"),
        models={"default": model},
        drawing_tools={"draw": DrawingTool(service="qwen", wait_s=120)},
    ) as stage:
        yield stage


async def exchange(stage: Stage) -> PictureMessage:
    pictures: list[PictureMessage] = []
    async with asyncio.timeout(120), connect(stage.live.url, key=KEY) as conversation:
        await conversation.send_text("Draw a pig.")
        async for message in conversation:
            if isinstance(message, PictureMessage):
                pictures.append(message)
            if isinstance(message, TurnCompletedMessage):
                break
    (picture,) = pictures
    return picture


async def test_the_client_gets_an_address_that_needs_no_key(stage: Stage) -> None:
    picture = await exchange(stage)
    assert (picture.prompt, picture.content_type) == ("a pig", "image/png")
    assert (picture.width, picture.height) == (64, 48)
    assert picture.url.startswith(f"{stage.live.url}/media/")
    async with stage.live.session.get(picture.url) as response:
        assert await response.read() == PICTURE
    messages = stage.live.model.requests[-1].messages
    assert [each["content"] for each in messages if each["role"] == "tool"][-1:] == [SHOWN]
    # The picture is a task of the key, like any other.
    tasks = "/api/open-apis/projects/default/easyllms/texttoimage/task"
    found = await stage.live.ask(f"{tasks}/{picture.id}", method="GET")
    assert (found.status, found.json["output"]["taskStatus"]) == (200, "SUCCEEDED")


async def test_the_model_learns_why_a_picture_failed(stage: Stage) -> None:
    stage.vendors.fails = True
    async with asyncio.timeout(120), connect(stage.live.url, key=KEY) as conversation:
        await conversation.send_text("Draw a pig.")
        async for message in conversation:
            assert not isinstance(message, PictureMessage)
            if isinstance(message, TurnCompletedMessage):
                break
    stage.vendors.fails = False
    messages = stage.live.model.requests[-1].messages
    (told,) = [str(each["content"]) for each in messages if each["role"] == "tool"][-1:]
    assert told.startswith("The picture could not be drawn: ")
    assert "DataInspectionFailed" in told
