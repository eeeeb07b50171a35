"""A whole server whose picture and video services are the scripted vendors."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from tests.compat.vendors import Vendors, scripted_vendors
from tests.rest.live import KEY, Live, serving_live
from voicechat.config import build_services, load_config
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
    VideoOperation,
    VideoProcessor,
)
from voicechat.runtime.drawing import DrawingTool
from voicechat.runtime.media_services import MediaServices, ServicesOfKind
from voicechat.server.credentials import credentials
from voicechat.server.serve import serving
from voicechat.store.keys import KeyStore
from voicechat.testing.scripted import ScriptedSynthesizer

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


CONFIGURED = """
[llm.default]
provider = "openai"
base_url = "{url}/v1"
model = "vendor-chat"
{keys}
[asr.default]
provider = "openai"
base_url = "{url}/v1"
model = "vendor-ears"
{keys}
[tts.default]
provider = "openai"
base_url = "{url}/v1"
model = "vendor-voice"
{keys}
[images.default]
provider = "openai"
base_url = "{url}/v1"
[videos.default]
provider = "openai"
base_url = "{url}/v1"
poll_s = 0.05
[vision.default]
provider = "openai"
base_url = "{url}/v1"
model = "vendor-eyes"
[ocr.default]
provider = "tests.compat.stage:open_reader"
[video_processors.default]
provider = "tests.compat.stage:open_processor"
"""
"""Every service of the documents, as an operator configures it at the vendor."""


@asynccontextmanager
async def configured_stage(folder: Path, config: str = "", keys: str = "") -> AsyncIterator[Stage]:
    """A server with the services of ``CONFIGURED`` and these sections. ``keys``: of each
    chat model, voice and recogniser.
    """
    async with scripted_vendors() as vendors:
        port = vendors.base_url.rpartition(":")[2]
        text = OPEN.format(port=port) + CONFIGURED.format(url=vendors.base_url, keys=keys) + config
        file = folder / "voicechat.toml"
        file.write_text(text, "utf-8")
        environ = {"VOICECHAT_DATA_DIR": str(folder / "data"), "VOICECHAT_API_KEY": KEY}
        loaded = load_config(file, environ, {"server": {"port": 0, "drain_s": 2.0}})
        async with (
            serving(loaded, build_services(loaded), credentials(loaded), lambda _: None) as running,
            aiohttp.ClientSession() as session,
        ):
            store = KeyStore(folder / "data" / "keys.sqlite3")
            yield Stage(Live(running, store, {}, ScriptedSynthesizer(), session), vendors)


class ScriptedProcessor(VideoProcessor):
    """Turns every video round."""

    @property
    def operations(self) -> frozenset[VideoOperation]:
        return frozenset(VideoOperation)

    async def process_video(self, source: Path, target: Path, operation: VideoOperation) -> None:
        target.write_bytes(source.read_bytes()[::-1])  # noqa: ASYNC240 - some kilobytes


class ScriptedReader(TextReader):
    """Reads the same in every picture."""

    async def read_text(self, picture: Picture, prompt: str = "") -> tuple[TextBlock, ...]:
        table = "| a | b |\n| --- | --- |\n| 1 | 2 |"
        return (
            TextBlock(text="测试", left=0, top=0, right=720, bottom=1920),
            TextBlock(kind=BlockKind.TABLE, text=table, left=0, top=1920, right=720, bottom=2000),
        )


def open_reader() -> ScriptedReader:
    return ScriptedReader()


def open_processor() -> ScriptedProcessor:
    return ScriptedProcessor()


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
