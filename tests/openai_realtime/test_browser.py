"""OpenAI's agents in a browser, as a page of another origin with a client secret."""

import asyncio
import gc
import shutil
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from tests.node_packages import node_folder
from tests.openai_realtime.server import KEY, agents_model, realtime_server
from voicechat.server.listener import listening

pytestmark = [pytest.mark.real_time, pytest.mark.long]

BUNDLE = Path("node_modules") / "@openai" / "agents-realtime" / "dist" / "bundle"


async def test_the_agents_package_in_chromium(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    executable = shutil.which("chromium") or shutil.which("chromium-browser")
    if executable is None:
        pytest.skip("needs Chromium")
    playwright = pytest.importorskip("playwright.async_api", reason="needs playwright")
    folder = node_folder(pytestconfig, Path(__file__).parent / "node")
    app = web.Application()
    app.router.add_static("/bundle", folder / BUNDLE)
    app.router.add_static("/", folder)
    async with listening(app, "127.0.0.1", 0) as port:
        toml = f'[server]\nallowed_origins = ["http://127.0.0.1:{port}"]\n'
        async with realtime_server(tmp_path, agents_model(), toml=toml) as server:
            secret = await client_secret(server.url)
            async with playwright.async_playwright() as api:
                browser = await api.chromium.launch(executable_path=executable)
                page = await browser.new_page()
                address = f"http://127.0.0.1:{port}/agents_page.html"
                await page.goto(f"{address}?base={server.url}&secret={secret}")
                await page.wait_for_function("window.result", timeout=120_000)
                result = await page.evaluate("window.result")
                await browser.close()
            gc.collect()  # playwright's child process is let go while the loop still runs
            await asyncio.sleep(0)
    assert result["errors"] == []
    assert result["said"] == ["Let me see. ", "There is light."]
    assert result["audioBytes"] > 48 * 50 * len("There is light.")
    assert result["marks"] == ["tool", "handoff", "guardrail"]
    assert result["agentNow"] == "Other"
    assert result["history"].count("user") >= 3
    assert "function_call" in result["history"]


async def client_secret(url: str) -> str:
    headers = {"Authorization": f"Bearer {KEY}"}
    body: dict[str, Any] = {"session": {"type": "realtime"}}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{url}/v1/realtime/client_secrets", json=body, headers=headers) as answer,
    ):
        made = await answer.json()
        return str(made["value"])
