"""The client's ``Api`` against a live server, and against servers that misbehave."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest
from aiohttp import web

from tests.rest.live import KEY, Live, PartsModel, serving_live
from voicechat.client import (
    Api,
    ApiError,
    ConnectionLostError,
    PongMessage,
    ReplyAudioMessage,
    ReplyFinishedMessage,
    ReplyTextMessage,
    ToolRequest,
    connect,
)
from voicechat.errors import Status
from voicechat.providers.interfaces import ReplyFinished as ModelFinished
from voicechat.server.listener import listening
from voicechat.session.types import ToolCall
from voicechat.store.access import Grant, Quota
from voicechat.testing.scripted import Failure, ScriptedModel

pytestmark = pytest.mark.real_time

HELLO = [{"role": "user", "content": "hello"}]
PCM = {"format": "PCM_16000HZ_MONO_16BIT"}


@pytest.fixture
async def live(tmp_path: Path) -> AsyncIterator[Live]:
    calling = PartsModel([ToolCall(0, "c1", "f", "{}"), ModelFinished("tool_calls", 3, 4)])
    breaking = ScriptedModel(failure=Failure(after=1, calls=9))
    async with serving_live(tmp_path, {"calling": calling, "breaking": breaking}) as server:
        yield server


@pytest.fixture
async def api(live: Live) -> AsyncIterator[Api]:
    async with Api(live.url, key=KEY) as api:
        yield api


async def test_chat_whole_and_streamed(live: Live, api: Api) -> None:
    assert await api.models() == ["breaking", "calling", "default"]
    reply = await api.chat(HELLO, temperature=0.5)
    assert (reply.content, reply.finish_reason, reply.total_tokens) == (
        "Hello there. How are you?",
        "stop",
        None,
    )
    assert live.model.requests[0].options == {"temperature": 0.5}
    assert [text async for text in api.chat_stream(HELLO)] == ["Hello there. ", "How are you?"]
    called = await api.chat(HELLO, model="calling")
    assert called.tool_calls == (ToolRequest("c1", "f", "{}"),)
    assert called.total_tokens == 7


async def test_a_spoken_reply(api: Api) -> None:
    messages = [message async for message in api.chat_with_voice(HELLO, voice=PCM)]
    text = "".join(message.content for message in messages if isinstance(message, ReplyTextMessage))
    assert text == "Hello there. How are you?"
    assert any(isinstance(message, ReplyAudioMessage) for message in messages)
    assert isinstance(messages[-1], ReplyFinishedMessage)


async def test_speech_whole_and_streamed_is_the_same(api: Api) -> None:
    whole = await api.speech("Good morning.", "Good night.", **PCM)
    assert whole
    assert (
        b"".join(
            [piece async for piece in api.speech_stream("Good morning.", "Good night.", **PCM)]
        )
        == whole
    )


async def test_a_token_opens_a_socket(live: Live, api: Api) -> None:
    token = await api.create_token(endpoints=["conversation"])
    async with connect(live.url, key=token.token) as conversation:
        await conversation.ping()
        assert isinstance(await conversation.receive(), PongMessage)


async def test_refusals_carry_the_contracts_status(live: Live, api: Api) -> None:
    with pytest.raises(ApiError, match="is not one of") as unknown:
        await api.chat(HELLO, model="none")
    assert unknown.value.status == Status.NOT_FOUND
    with pytest.raises(ApiError, match="temperature") as bad:
        await api.chat(HELLO, temperature=9)
    assert bad.value.status == Status.INVALID_PARAMETER
    with pytest.raises(ApiError) as wrong:
        await api.speech("x", volume=101)
    assert wrong.value.status == Status.INVALID_PARAMETER
    async with Api(
        live.url, key=live.store.create_key("a", Grant(quota=Quota(requests_per_minute=1)))[1]
    ) as limited:
        await limited.models()
        with pytest.raises(ApiError) as too_many:
            await limited.models()
        assert (too_many.value.status, too_many.value.retry_after_s) == (Status.QUOTA, 60)
    async with Api(live.url, key="wrong") as stranger:
        with pytest.raises(ApiError) as refused:
            await stranger.models()
        assert refused.value.status == Status.NOT_AUTHORISED


async def test_a_failure_in_the_middle_is_raised(live: Live, api: Api) -> None:
    async with aclosing(api.chat_stream(HELLO, model="breaking")) as texts:
        assert await anext(texts) == "Hello there. "
        with pytest.raises(ApiError) as failed:
            await anext(texts)
    assert failed.value.status == Status.LLM_FAILED
    live.synthesizer.failure = Failure(after=1, calls=9)
    with pytest.raises(ApiError) as speechless:
        [piece async for piece in api.speech_stream("A long sentence, of some chunks.", **PCM)]
    assert speechless.value.status == Status.TTS_FAILED


async def test_closing_an_iterator_stops_the_server(live: Live, api: Api) -> None:
    live.model.replies = [["word "] * 10_000]
    live.model.delta_ms = 5
    async with aclosing(api.chat_stream(HELLO)) as texts:
        await anext(texts)
        assert live.model.open == 1
    await live.until(lambda: live.model.open == 0)


async def test_a_server_that_is_not_there_or_answers_nonsense_is_a_lost_connection() -> None:
    async def nonsense(_: web.Request) -> web.Response:
        return web.Response(text="<html>")

    async def refuse(_: web.Request) -> web.Response:
        return web.Response(status=502, text="<html>")

    async def breaks_off(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b'data:{"choices":[{"delta":{"content":"a"}}]}\n\n')
        assert request.transport is not None
        request.transport.abort()
        return response

    app = web.Application()
    app.router.add_get("/v1/models", nonsense)
    app.router.add_post("/v1/chat/completions", breaks_off)
    app.router.add_post("/{tail:.*}", refuse)
    async with listening(app, "127.0.0.1", 0) as port, Api(f"127.0.0.1:{port}", key="k") as api:
        with pytest.raises(ConnectionLostError):
            await api.models()
        with pytest.raises(ApiError) as refused:
            await api.create_token()
        assert refused.value.status == 502
        with pytest.raises(ConnectionLostError):
            [text async for text in api.chat_stream(HELLO)]
    async with asyncio.timeout(120), Api(f"127.0.0.1:{port}", key="k") as api:
        with pytest.raises(ConnectionLostError):
            await api.models()
