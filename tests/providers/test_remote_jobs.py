"""Jobs that a service performs: begun once, whatever happens to this process."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pytest

from tests.compat.vendors import PICTURE, VIDEO, scripted_vendors
from voicechat.providers import dashscope, openai
from voicechat.providers.media import (
    ImageGenerator,
    ImageRequest,
    VideoGenerator,
    VideoRequest,
)

pytestmark = [pytest.mark.real_time, pytest.mark.long]


class KilledError(Exception):
    """Stands for a SIGKILL."""


@dataclass
class Job:
    """A job of one attempt. ``killed``: the process dies before it can store the name."""

    remote_id: str = ""
    killed: bool = False
    key: str = "task-1"
    written: bytearray = field(default_factory=bytearray)

    async def begin(self, submit: Callable[[], Awaitable[str]]) -> str:
        if not self.remote_id:
            remote_id = await submit()
            if self.killed:
                raise KilledError
            self.remote_id = remote_id
        return self.remote_id

    def report(self, done: float) -> None:
        assert 0 <= done <= 1

    async def write_piece(self, piece: bytes) -> None:
        self.written += piece


@pytest.mark.parametrize("vendor", ["openai", "dashscope"])
async def test_a_video_whose_name_was_not_stored_is_not_begun_again(vendor: str) -> None:
    async with scripted_vendors() as vendors:
        video: VideoGenerator = (
            openai.open_video_generator(base_url=f"{vendors.base_url}/v1", poll_s=0.01)
            if vendor == "openai"
            else dashscope.open_video_generator(
                base_url=f"{vendors.base_url}/api", api_key="k", poll_s=0.01, model="wan"
            )
        )
        with pytest.raises(KilledError):
            await video.make_video(VideoRequest(prompt="a pig"), Job(killed=True))
        job = Job()
        made = await video.make_video(VideoRequest(prompt="a pig"), job)
        await video.aclose()
        assert bytes(job.written) == VIDEO
        assert list(vendors.jobs) == [made.source]
        assert len(vendors.asked) == 2


async def test_a_video_whose_name_is_stored_is_continued() -> None:
    async with scripted_vendors() as vendors:
        vendors.jobs["video_9"] = 0
        video = openai.open_video_generator(base_url=f"{vendors.base_url}/v1", poll_s=0.01)
        job = Job(remote_id="video_9")
        made = await video.make_video(VideoRequest(prompt="a pig"), job)
        await video.aclose()
        assert (made.source, vendors.asked, bytes(job.written)) == ("video_9", [], VIDEO)


async def test_pictures_of_a_task_are_not_begun_again_either() -> None:
    async with scripted_vendors() as vendors:
        images: ImageGenerator = dashscope.open_image_generator(
            base_url=f"{vendors.base_url}/api", api_key="k", poll_s=0.01, model="qwen-image"
        )
        with pytest.raises(KilledError):
            await images.make_images(ImageRequest(prompt="a pig"), Job(killed=True))
        (picture,) = await images.make_images(ImageRequest(prompt="a pig"), Job())
        assert (picture.content, len(vendors.jobs)) == (PICTURE, 1)
        # Requests of waiting clients are different ones.
        await images.make_images(ImageRequest(prompt="a pig"))
        await images.aclose()
        assert len(vendors.jobs) == 2
