"""Every provider of ours passes the suite that is shipped for everybody's."""

import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from voicechat.audio.resample import RateConverter
from voicechat.providers import espeak, openai, pocketsphinx
from voicechat.providers.interfaces import VoiceOptions
from voicechat.testing.conformance import check_chat_model, check_recognizer, check_synthesizer, leaving_nothing

pytestmark = pytest.mark.real_time


async def test_espeak() -> None:
    async with leaving_nothing():
        synthesizer = espeak.open_synthesizer()
        await synthesizer.start()
        await check_synthesizer(synthesizer)
        await synthesizer.aclose()


async def test_pocketsphinx() -> None:
    pcm = await speech("Go forward ten meters.")
    async with leaving_nothing():
        recognizer = pocketsphinx.open_recognizer(workers=1, streams_per_worker=2)
        await recognizer.start()
        await check_recognizer(recognizer, pcm, at_once=2)
        await recognizer.aclose()


async def test_openai() -> None:
    async with leaving_nothing(), an_endpoint() as base_url:
        model = openai.open_chat_model(model="m", base_url=base_url)
        await check_chat_model(model)
        await model.aclose()


async def speech(text: str) -> bytes:
    """Speak ``text`` as s16le mono 16 kHz."""
    synthesizer, converter = espeak.open_synthesizer(), RateConverter(16_000)
    pcm = b"".join(
        [converter.push(chunk.pcm, chunk.rate_hz) async for chunk in synthesizer.synthesize(text, VoiceOptions())]
    )
    await synthesizer.aclose()
    return pcm + converter.finish()


@asynccontextmanager
async def an_endpoint() -> AsyncIterator[str]:
    """Serve a chat endpoint that always says the same."""

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for text in ("Hello", " there", "."):
            event = {"choices": [{"index": 0, "delta": {"content": text}}]}
            await response.write(f"data: {json.dumps(event)}\n\n".encode())
        await response.write(b"data: [DONE]\n\n")
        return response

    application = web.Application()
    application.router.add_post("/v1/chat/completions", answer)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    await web.SockSite(runner, listening := socket.create_server(("127.0.0.1", 0))).start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
    finally:
        await runner.cleanup()
