"""A whole server whose picture and video services are the scripted vendors."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.compat.vendors import Vendors, scripted_vendors
from tests.rest.live import KEY, Live, serving_live
from voicechat.pictures.picture import Picture
from voicechat.providers import dashscope, openai, sharpening
from voicechat.providers.interfaces import ChatModel
from voicechat.providers.media import (
    BlockKind,
    ImageDescriber,
    ImageGenerator,
    TextBlock,
    TextReader,
    VideoGenerator,
)
from voicechat.runtime.drawing import DrawingTool
from voicechat.runtime.media_services import MediaServices, ServicesOfKind

OPEN = """
[admission]
unquestioned_sessions = 1000000
[transcription]
allowed_networks = ["127.0.0.0/8"]
allowed_ports = [80, 443, {port}]
"""


@dataclass(frozen=True)
class Stage:
    live: Live
    vendors: Vendors

    async def until(self, look: Callable[[], Awaitable[Any]], done: Callable[[Any], bool]) -> Any:
        """Look until it is done."""
        async with asyncio.timeout(120):
            while not done(found := await look()):  # noqa: ASYNC110 - a server is polled
                await asyncio.sleep(0.05)
        return found


def media_of(vendors: Vendors) -> MediaServices:
    url = vendors.base_url
    images: dict[str, ImageGenerator] = {
        "default": openai.open_image_generator(base_url=f"{url}/v1"),
        "qwen": dashscope.open_image_generator(
            base_url=f"{url}/api", api_key="k" * 8, poll_s=0.05, model="qwen-image"
        ),
    }
    videos: dict[str, VideoGenerator] = {
        "default": openai.open_video_generator(base_url=f"{url}/v1", poll_s=0.05),
        "wan": dashscope.open_video_generator(base_url=f"{url}/api", api_key="k" * 8, poll_s=0.05),
    }
    return MediaServices(
        images=ServicesOfKind("images", images, {"*": "default"}),
        videos=ServicesOfKind("videos", videos, {"*": "default"}),
        vision=ServicesOfKind("vision", {"default": ScriptedDescriber()}),
        enhancers=ServicesOfKind("enhancers", {"default": sharpening.open_enhancer()}),
        ocr=ServicesOfKind("ocr", {"default": ScriptedReader()}),
    )


SAMPLES = Path(__file__).parent / "samples"


async def run_sample(name: str, folder: Path, changed: Mapping[str, str]) -> str:
    """Run a document's shell sample in ``folder``, with texts changed, such as its host;
    give what it prints.
    """
    text = (SAMPLES / name).read_text("utf-8")
    for old, new in changed.items():
        text = text.replace(old, new)
    environ = {**os.environ, "API_KEY": KEY, "ProjectId": "p", "EasyllmId": "x"}
    process = await asyncio.create_subprocess_exec(
        *("bash", "-c", text),
        cwd=folder,
        env=environ,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(120):
        printed, complaints = await process.communicate()
    assert process.returncode == 0, complaints.decode()
    return printed.decode()


class ScriptedReader(TextReader):
    """Reads the same in every picture."""

    async def read_text(self, picture: Picture, prompt: str = "") -> tuple[TextBlock, ...]:
        table = "| a | b |\n| --- | --- |\n| 1 | 2 |"
        return (
            TextBlock(text="测试", left=0, top=0, right=720, bottom=1920),
            TextBlock(kind=BlockKind.TABLE, text=table, left=0, top=1920, right=720, bottom=2000),
        )


class ScriptedDescriber(ImageDescriber):
    """Says the same of every picture."""

    async def describe_image(self, picture: Picture, question: str) -> str:
        return "described"


@asynccontextmanager
async def media_stage(
    folder: Path,
    config: str = "",
    models: Mapping[str, ChatModel] | None = None,
    services: Sequence[str] = (),
    drawing_tools: Mapping[str, DrawingTool] | None = None,
) -> AsyncIterator[Stage]:
    async with scripted_vendors() as vendors:
        port = vendors.base_url.rpartition(":")[2]
        async with serving_live(
            folder,
            models,
            services=services,
            config=OPEN.format(port=port) + config,
            media=media_of(vendors),
            drawing_tools=drawing_tools,
        ) as live:
            yield Stage(live, vendors)
