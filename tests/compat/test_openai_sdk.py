"""The stock ``openai`` package against ``/v1/images`` and ``/v1/videos``."""

import base64
import io
from collections.abc import AsyncIterator

import openai
import pytest
import pytest_asyncio

from tests.compat.stage import Stage, media_stage
from tests.compat.vendors import PICTURE, VIDEO, picture
from tests.rest.live import KEY

pytestmark = [
    pytest.mark.real_time,
    pytest.mark.long,
    pytest.mark.asyncio(loop_scope="module"),
    # OpenAI's own service for videos has ended; others speak its API.
    pytest.mark.filterwarnings("ignore:The Sora API:DeprecationWarning"),
]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    async with media_stage(tmp_path_factory.mktemp("openai")) as stage:
        yield stage


def client(stage: Stage) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{stage.live.url}/v1", api_key=KEY, max_retries=0)


async def test_pictures_are_made(stage: Stage) -> None:
    async with client(stage) as sdk:
        made = await sdk.images.generate(
            prompt="a pig", model="gpt-image-1", n=2, size="1024x1024", quality="low"
        )
        assert made.data is not None
        assert [base64.b64decode(item.b64_json or "") for item in made.data] == [PICTURE] * 2
        assert stage.vendors.last("/v1/images/generations") == {
            "prompt": "a pig",
            "model": "gpt-image-1",
            "n": 2,
            "size": "1024x1024",
            "quality": "low",
        }
        made = await sdk.images.generate(prompt="a pig", response_format="url")
        assert made.data is not None
        address = made.data[0].url
        assert address is not None
        async with stage.live.session.get(address) as response:  # no key
            assert response.status == 200
            assert response.content_type == "image/png"
            assert response.headers["X-Content-Type-Options"] == "nosniff"
            assert await response.read() == PICTURE


async def test_pictures_are_changed(stage: Stage) -> None:
    async with client(stage) as sdk:
        made = await sdk.images.edit(
            image=[io.BytesIO(picture(32, 32)), io.BytesIO(picture(16, 16, "JPEG"))],
            prompt="more blue",
            mask=io.BytesIO(picture(32, 32)),
            n=1,
            response_format="b64_json",
        )
    assert made.data is not None
    assert base64.b64decode(made.data[0].b64_json or "") == PICTURE
    assert [name for name, _ in stage.vendors.files] == ["image[]", "image[]", "mask"]


async def test_errors_are_those_of_the_sdk(stage: Stage) -> None:
    async with client(stage) as sdk:
        with pytest.raises(openai.BadRequestError, match="size: should be WIDTHxHEIGHT"):
            await sdk.images.generate(prompt="a pig", size="wide")
        with pytest.raises(openai.BadRequestError, match="n: 11 is not between 1 and 10"):
            await sdk.images.generate(prompt="a pig", n=11)
        stage.vendors.status = 400
        with pytest.raises(openai.BadRequestError) as refused:
            await sdk.images.generate(prompt="a pig")
        assert refused.value.code == "content_policy"
        assert "quoting" not in str(refused.value)
        stage.vendors.status = 500
        with pytest.raises(openai.InternalServerError, match="service failed") as failed:
            await sdk.images.generate(prompt="a pig")
        assert failed.value.status_code == 502
        with pytest.raises(openai.APIStatusError, match="image: is no picture") as wrong:
            await sdk.images.edit(image=io.BytesIO(b"<svg/>"), prompt="x")
        assert wrong.value.status_code == 415
        stage.vendors.status = 200


async def test_videos_are_made_listed_fetched_changed_and_deleted(stage: Stage) -> None:
    async with client(stage) as sdk:
        made = await sdk.videos.create_and_poll(
            prompt="a sheep",
            model="sora-2",
            seconds="4",
            size="1280x720",
            input_reference=io.BytesIO(picture(kind="JPEG")),
            poll_interval_ms=50,
        )
        assert (made.status, made.seconds, made.size, made.progress) == (
            "completed",
            "4",
            "1280x720",
            100,
        )
        asked = stage.vendors.last("/v1/videos")
        assert asked == {"prompt": "a sheep", "model": "sora-2", "seconds": "4", "size": "1280x720"}
        assert stage.vendors.files[-1][0] == "input_reference"
        content = await sdk.videos.download_content(made.id)
        assert content.content == VIDEO

        first = next(iter(stage.vendors.jobs))
        changed = await sdk.videos.remix(made.id, prompt="in snow")
        assert changed.remixed_from_video_id == made.id
        changed = await sdk.videos.poll(changed.id, poll_interval_ms=50)
        assert changed.status == "completed"
        assert stage.vendors.last(f"/v1/videos/{first}/remix") == {"prompt": "in snow"}

        listed = [video.id async for video in sdk.videos.list()]
        assert listed == [changed.id, made.id]
        gone = await sdk.videos.delete(made.id)
        assert gone.deleted
        with pytest.raises(openai.NotFoundError):
            await sdk.videos.retrieve(made.id)


async def test_a_video_that_fails_says_why(stage: Stage) -> None:
    stage.vendors.fails, stage.vendors.status = True, 200
    async with client(stage) as sdk:
        made = await sdk.videos.create_and_poll(prompt="a sheep", poll_interval_ms=50)
        assert made.status == "failed"
        assert made.error is not None
        assert made.error.code == "invalid_parameter"
        assert "moderation_blocked" in made.error.message
        with pytest.raises(openai.NotFoundError, match="video: failed"):
            await sdk.videos.download_content(made.id)
