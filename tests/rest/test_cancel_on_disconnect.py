"""A client that goes away: whatever was being made for it ends at once."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.rest.live import KEY, PROJECT, Live, serving_live
from voicechat.testing.scripted import Failure, ScriptedModel

pytestmark = pytest.mark.real_time

ONE = [{"role": "user", "content": "hello"}]


@pytest.fixture
async def live(tmp_path: Path) -> AsyncIterator[Live]:
    models = {
        "mute": ScriptedModel(failure=Failure(kind=None)),
        "talker": ScriptedModel(replies=[["word "] * 10_000], delta_ms=5),
    }
    async with serving_live(tmp_path, models) as server:
        yield server


async def begin(
    live: Live, path: str, body: object
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Send a request by hand, so that the connection can be dropped at any moment."""
    host, port = live.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    content = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: {host}:{port}\r\nAuthorization: Bearer {KEY}\r\n"
    writer.write(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
    await writer.drain()
    return reader, writer


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", ["mute", "talker"])
async def test_the_model_is_cancelled(live: Live, model: str, stream: bool) -> None:
    scripted = live.models[model]
    assert isinstance(scripted, ScriptedModel)
    reader, writer = await begin(
        live, "/v1/chat/completions", {"model": model, "messages": ONE, "stream": stream}
    )
    await live.until(lambda: scripted.open == 1)
    if stream and model == "talker":
        await reader.readuntil(b"data:")
    writer.transport.abort()
    await live.until(lambda: scripted.open == 0)


async def test_model_and_synthesiser_of_a_spoken_reply_are_cancelled(live: Live) -> None:
    talker = live.models["talker"]
    assert isinstance(talker, ScriptedModel)
    live.synthesizer.failure = Failure(after=1, kind=None)
    body = {
        "chat_completion_req": {"model": "talker", "messages": ONE},
        "speech_synthesis_req": {"easyllm_id": "default"},
    }
    _, writer = await begin(live, "/api/open-apis/v1/chat/completions-with-voice-output", body)
    await live.until(lambda: talker.open and live.synthesizer.open)
    writer.transport.abort()
    await live.until(lambda: not talker.open and not live.synthesizer.open)


async def test_the_synthesiser_is_cancelled(live: Live) -> None:
    live.synthesizer.failure = Failure(after=1, kind=None)
    for path in (
        f"{PROJECT}/easyllms/voice/synthesize-audio",
        f"{PROJECT}/easyllms/voice/synthesize-audio-stream",
    ):
        _, writer = await begin(
            live, path, {"easyllm_id": "default", "text": ["hello"], "synthesis_param": {}}
        )
        await live.until(lambda: live.synthesizer.open)
        writer.transport.abort()
        await live.until(lambda: not live.synthesizer.open)


async def test_audio_that_breaks_off_is_followed_by_nothing(live: Live) -> None:
    live.synthesizer.failure = Failure(after=1, calls=9)
    body = {"model": "tts-1", "input": "A long sentence, of some chunks.", "response_format": "pcm"}
    reader, writer = await begin(live, "/v1/audio/speech", body)
    head = await reader.readuntil(b"\r\n\r\n")
    async with asyncio.timeout(120):
        received = await reader.read()  # until the server drops the connection
    writer.transport.abort()
    assert b"chunked" in head
    assert received
    assert b"HTTP/1.1" not in received
    assert not received.endswith(b"0\r\n\r\n"), "the end of a whole body"


async def test_requests_in_progress_may_end_while_the_server_drains_and_new_ones_are_refused(
    live: Live,
) -> None:
    slow = live.model
    slow.first_ms = 300
    async with asyncio.TaskGroup() as tasks:
        asking = tasks.create_task(
            live.ask("/v1/chat/completions", {"model": "default", "messages": ONE})
        )
        await live.until(lambda: slow.open)
        draining = tasks.create_task(live.running.drain(2))
        await asyncio.sleep(0)
        refused = await live.ask("/v1/chat/completions", {"model": "default", "messages": ONE})
        assert not draining.done()
    assert refused.status == 503
    assert asking.result().status == 200
