"""What the DashScope providers send, compared with what the vendor's own SDK sends."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from functools import partial
from typing import Any

import dashscope as sdk
import pytest
import pytest_asyncio

from tests.compat.vendors import PICTURE, VIDEO, Vendors, picture, scripted_vendors
from tests.providers.test_remote_jobs import Job
from voicechat.errors import ProviderError
from voicechat.pictures.picture import Picture
from voicechat.providers import dashscope
from voicechat.providers.media import ImageRequest, VideoRequest

pytestmark = [pytest.mark.real_time, pytest.mark.long]

KEY = "sk-scripted"
FIRST = Picture(picture(), "image/png", 64, 48)
LAST = Picture(picture(colour="red"), "image/png", 64, 48)


@pytest_asyncio.fixture
async def vendors(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Vendors]:
    async with scripted_vendors() as scripted:
        scripted.polls = 0
        monkeypatch.setattr(sdk, "base_http_api_url", f"{scripted.base_url}/api")
        yield scripted


async def by_sdk(call: Any, **given: object) -> Any:
    """Call the SDK, which blocks, in a thread."""
    answer = await asyncio.to_thread(partial(call, api_key=KEY, **given))
    assert answer.status_code == 200, answer
    return answer


def asked(vendors: Vendors) -> tuple[str, Mapping[str, Any]]:
    """What a vendor was asked to do last."""
    return vendors.asked[-1]


def asked_by_sdk(vendors: Vendors) -> tuple[str, Mapping[str, Any]]:
    """What the SDK asked for a video last, without two fields that repeat the default
    (it calls the first one deprecated) and the path.
    """
    path, body = asked(vendors)
    assert body["input"].pop("extend_prompt") is True
    assert body["input"].pop("function") == path.rpartition("/")[2]
    return path, body


async def test_pictures_are_asked_for_as_the_sdk_does(vendors: Vendors) -> None:
    images = dashscope.open_image_generator(
        base_url=f"{vendors.base_url}/api", api_key=KEY, poll_s=0.01, model="wan2.2-t2i-plus"
    )
    (made,) = await images.make_images(
        ImageRequest(
            prompt="一只猫",
            negative_prompt="狗",
            width=1024,
            height=768,
            seed=7,
            options={"prompt_extend": False, "watermark": True, "quality": "hd"},
        )
    )
    await images.aclose()
    ours = asked(vendors)
    answer = await by_sdk(
        sdk.ImageSynthesis.call,
        model="wan2.2-t2i-plus",
        prompt="一只猫",
        negative_prompt="狗",
        n=1,
        size="1024*768",
        seed=7,
        prompt_extend=False,
        watermark=True,
    )
    assert ours == asked(vendors)
    # And the scripted vendor answers in the form that the SDK reads.
    assert answer.output.task_status == "SUCCEEDED"
    assert answer.output.results[0].url == f"{vendors.base_url}/picture.png"
    assert made.content == PICTURE


@pytest.mark.parametrize(
    ("request_", "given"),
    [
        (
            VideoRequest(
                prompt="一只猫",
                negative_prompt="狗",
                width=1280,
                height=720,
                seconds=5,
                seed=7,
                watermark=False,
            ),
            {"size": "1280*720", "duration": 5, "seed": 7, "watermark": False},
        ),
        (
            VideoRequest(prompt="一只猫", negative_prompt="狗", resolution="720p", ratio="16:9"),
            {"resolution": "720P", "ratio": "16:9"},
        ),
    ],
)
async def test_videos_are_asked_for_as_the_sdk_does(
    vendors: Vendors, request_: VideoRequest, given: dict[str, object]
) -> None:
    videos = dashscope.open_video_generator(
        base_url=f"{vendors.base_url}/api", api_key=KEY, poll_s=0.01, model="wan2.2-t2v-plus"
    )
    job = Job()
    made = await videos.make_video(request_, job)
    await videos.aclose()
    path, ours = asked(vendors)
    answer = await by_sdk(
        sdk.VideoSynthesis.call,
        model="wan2.2-t2v-plus",
        prompt="一只猫",
        negative_prompt="狗",
        **given,
    )
    assert (path, ours) == asked_by_sdk(vendors)
    assert answer.output.task_status == "SUCCEEDED"
    assert answer.output.video_url == f"{vendors.base_url}/video.mp4"
    assert (answer.usage.video_duration, answer.usage.video_ratio) == (made.seconds, made.ratio)
    assert bytes(job.written) == VIDEO


@pytest.mark.parametrize(
    ("model", "pictures", "names"),
    [
        ("wan2.2-i2v-plus", (FIRST,), ["img_url"]),
        ("wanx2.1-kf2v-plus", (FIRST, LAST), ["first_frame_url", "last_frame_url"]),
    ],
)
async def test_pictures_go_into_videos_as_the_sdk_does(
    vendors: Vendors, model: str, pictures: tuple[Picture, ...], names: list[str]
) -> None:
    videos = dashscope.open_video_generator(
        base_url=f"{vendors.base_url}/api", api_key=KEY, poll_s=0.01, model=model
    )
    await videos.make_video(VideoRequest(prompt="一只猫", pictures=pictures), Job())
    await videos.aclose()
    path, ours = asked(vendors)
    urls = {name: ours["input"][name] for name in names}
    await by_sdk(sdk.VideoSynthesis.async_call, model=model, prompt="一只猫", **urls)
    assert (path, ours) == asked_by_sdk(vendors)


async def test_tasks_are_cancelled_as_the_sdk_does(vendors: Vendors) -> None:
    videos = dashscope.open_video_generator(base_url=f"{vendors.base_url}/api", api_key=KEY)
    await videos.stop_job("task-9")
    await videos.aclose()
    await by_sdk(sdk.VideoSynthesis.cancel, task="task-9")
    assert vendors.stopped == ["task-9", "task-9"]


async def test_a_failed_task_names_the_vendors_code(vendors: Vendors) -> None:
    vendors.fails = True
    images = dashscope.open_image_generator(
        base_url=f"{vendors.base_url}/api", api_key=KEY, poll_s=0.01, model="qwen-image"
    )
    with pytest.raises(ProviderError, match="failed"):
        await images.make_images(ImageRequest(prompt="a pig"))
    await images.aclose()
    answer = await asyncio.to_thread(
        partial(sdk.ImageSynthesis.call, model="qwen-image", prompt="a pig", api_key=KEY)
    )
    assert (answer.output.task_status, answer.output["code"]) == ("FAILED", "DataInspectionFailed")
