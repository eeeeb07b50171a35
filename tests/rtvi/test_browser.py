"""Pipecat's own JavaScript client in Chromium, with a microphone that plays a file."""

import asyncio
import gc
import shutil
from pathlib import Path

import pytest
from aiohttp import web
from yarl import URL

from tests.node_packages import bundle, node_folder
from tests.openai_realtime.server import KEY, LONG_STORY, realtime_server
from voicechat.server.listener import listening
from voicechat.testing.scripted import ScriptedModel

pytestmark = [pytest.mark.real_time, pytest.mark.long]


async def test_pipecats_client_in_chromium(
    recordings: Path, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    executable = shutil.which("chromium") or shutil.which("chromium-browser")
    if executable is None:
        pytest.skip("needs Chromium")
    playwright = pytest.importorskip("playwright.async_api", reason="needs playwright")
    folder = node_folder(pytestconfig, Path(__file__).parent / "node")
    await bundle(folder, "page.mjs", "bundle.js")
    app = web.Application()
    app.router.add_static("/", folder)
    spoken = (recordings / "something.wav").resolve()
    flags = [
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-audio-capture={spoken}%noloop",
        "--autoplay-policy=no-user-gesture-required",
    ]
    model = ScriptedModel(((LONG_STORY,), ("Yes.",)))
    async with listening(app, "127.0.0.1", 0) as port:
        toml = f'[server]\nallowed_origins = ["http://127.0.0.1:{port}"]\n'
        async with realtime_server(tmp_path, model, toml=toml) as server:
            url = f"ws://127.0.0.1:{URL(server.url).port}/v1/rtvi?token={KEY}"
            async with playwright.async_playwright() as api:
                browser = await api.chromium.launch(executable_path=executable, args=flags)
                context = await browser.new_context(permissions=["microphone"])
                page = await context.new_page()
                address = URL(f"http://127.0.0.1:{port}/page.html").with_query(url=url)
                await page.goto(str(address))
                await page.wait_for_function("window.result", timeout=60_000)
                result = await page.evaluate("window.result")
                await browser.close()
            gc.collect()  # playwright's child process is let go while the loop still runs
            await asyncio.sleep(0)
    assert result.get("error") is None
    assert result["version"].startswith("2.")
    assert result["text"].startswith(LONG_STORY[:20])
    assert "go somewhere" in result["heard"]
    assert result["began"] >= 1
