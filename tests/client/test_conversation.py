import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from websockets.asyncio.server import ServerConnection, serve

from voicechat.client import (
    ConnectionLostError,
    GoingAwayMessage,
    ReplyTextMessage,
    TurnCompletedMessage,
    chat_settings,
    connect,
    recognise_stream,
)
from voicechat.client.connection import socket_url
from voicechat.errors import AdmissionError, Status

pytestmark = pytest.mark.real_time

Handler = Callable[[ServerConnection], Awaitable[None]]
CREATED = '{"status":0,"message":"","event_type":"chat.created"}'
COMPLETED = '{"status":0,"message":"","event_type":"conversation.chat.completed"}'


@asynccontextmanager
async def server(handler: Handler) -> AsyncIterator[str]:
    async with serve(handler, "127.0.0.1", 0) as running:
        port = next(iter(running.sockets)).getsockname()[1]
        yield f"http://127.0.0.1:{port}"


async def test_requests_arrive_in_the_contracts_form_with_the_key_in_a_header() -> None:
    seen: list[object] = []

    async def handler(socket: ServerConnection) -> None:
        assert socket.request is not None
        seen.append(socket.request.path)
        seen.append(socket.request.headers["Authorization"])
        assert "Sec-WebSocket-Extensions" not in socket.request.headers
        await socket.send(CREATED)
        async for frame in socket:
            seen.append(frame if isinstance(frame, bytes) else json.loads(frame))
            if len(seen) == 12:
                break

    async with server(handler) as url, connect(url, key="vc_k", model="m") as conversation:
        await conversation.update({"a": "好"})
        await conversation.send_audio(b"\1\2")
        await conversation.complete()
        await conversation.clear()
        await conversation.clear_history()
        await conversation.cancel()
        await conversation.ping()
        await conversation.send_text("hi")
        await conversation.report_played("c-1", 250)
        await conversation.answer_tool("call_1", "20")
        assert [message async for message in conversation] == []
    path = "/api/open-apis/projects/default/chat/speech-chat?model=m&asr_easyllm_id=default&tts_easyllm_id=default"
    assert seen == [
        path,
        "Bearer vc_k",
        {"event_type": "chat.update", "message": '{"a": "\\u597d"}'},
        b"\1\2",
        {"event_type": "input_audio_buffer.complete"},
        {"event_type": "input_audio_buffer.clear"},
        {"event_type": "conversation.clear"},
        {"event_type": "conversation.chat.cancel"},
        {"event_type": "ping"},
        {"event_type": "conversation.message.create", "role": "user", "content": "hi"},
        {"event_type": "conversation.audio.played", "reply": "c-1", "played_ms": 250},
        {
            "event_type": "conversation.message.create",
            "role": "tool",
            "tool_call_id": "call_1",
            "content": "20",
        },
    ]


async def test_messages_come_in_order_until_the_server_closes_normally() -> None:
    async def handler(socket: ServerConnection) -> None:
        for frame in (
            CREATED,
            '{"unknown":1}',
            '{"id":"c","choices":[{"delta":{"content":"Hi"}}]}',
            COMPLETED,
        ):
            await socket.send(frame)

    async with server(handler) as url, connect(url, key="k") as conversation:
        assert [message async for message in conversation] == [
            ReplyTextMessage("c", "Hi"),
            TurnCompletedMessage(0, ""),
        ]


async def test_a_refusal_is_an_admission_error_with_the_servers_words() -> None:
    async def handler(socket: ServerConnection) -> None:
        await socket.send(
            '{"status":40101,"message":"token: a valid key is '
            'required","event_type":"chat.created"}'
        )
        await socket.close(1008)

    async with server(handler) as url:
        with pytest.raises(AdmissionError, match="a valid key") as raised:
            async with connect(url, key="k"):
                raise AssertionError("must not be entered")
    assert raised.value.status is Status.NOT_AUTHORISED


async def test_only_who_asks_is_told_that_the_server_stops() -> None:
    async def handler(socket: ServerConnection) -> None:
        await socket.send(CREATED)
        assert socket.request is not None
        if "going_away=1" in socket.request.path:
            await socket.send(
                '{"status":0,"message":"","event_type":"session.going_away","left_ms":1500}'
            )
        await socket.close(1012, "the server restarts")

    async with server(handler) as url:
        async with connect(url, key="k", announce_end=True) as conversation:
            assert await anext(conversation) == GoingAwayMessage(1_500)
        async with connect(url, key="k") as conversation:
            with pytest.raises(ConnectionLostError, match="the server restarts"):
                await anext(conversation)


async def test_an_abnormal_end_is_raised_with_code_and_reason() -> None:
    async def handler(socket: ServerConnection) -> None:
        await socket.send(CREATED)
        await socket.recv()
        await socket.close(1012, "the server restarts")

    async with server(handler) as url, connect(url, key="k") as conversation:
        await conversation.complete()
        with pytest.raises(ConnectionLostError, match="the server restarts") as raised:
            await anext(conversation)
        assert raised.value.code == 1012
        with pytest.raises(ConnectionLostError):
            await conversation.complete()


async def test_no_server_is_a_lost_connection_that_names_the_host_and_not_the_query() -> None:
    async def handler(_: ServerConnection) -> None:
        raise AssertionError("closed before anybody came")

    async with server(handler) as url:
        pass
    with pytest.raises(ConnectionLostError, match=url.removeprefix("http://")) as raised:
        async with connect(url + "?token=SECRET", key="k"):
            raise AssertionError("must not be entered")
    assert "SECRET" not in str(raised.value)


async def test_an_error_inside_the_context_comes_out_as_itself_and_the_socket_is_closed() -> None:
    closed = asyncio.Event()

    async def handler(socket: ServerConnection) -> None:
        await socket.send(CREATED)
        await socket.wait_closed()
        closed.set()

    async with server(handler) as url:
        with pytest.raises(LookupError):
            async with connect(url, key="k"):
                raise LookupError("of the caller")
        await asyncio.wait_for(closed.wait(), 30)


async def test_the_client_keeps_the_connection_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("voicechat.client.conversation.PING_S", 0.01)
    pings: list[object] = []

    async def handler(socket: ServerConnection) -> None:
        await socket.send(CREATED)
        while len(pings) < 3:
            pings.append(json.loads(await socket.recv())["event_type"])

    async with server(handler) as url, connect(url, key="k") as conversation:
        assert [message async for message in conversation] == []
    assert pings == ["ping"] * 3


async def test_a_stream_is_recognised_until_its_last_result() -> None:
    async def handler(socket: ServerConnection) -> None:
        await socket.send('{"status": "ok"}')
        heard = [await socket.recv(), await socket.recv()]
        assert heard == [b"\1\2", "BYE"]
        await socket.send(
            '{"text":"go","begin_time":0,"end_time":null,"words":[],"is_sentence_end":false}'
        )
        await socket.send(
            '{"text":"go on","begin_time":0,"end_time":9,"words":[],"is_sentence_end":true}'
        )

    async with (
        server(handler) as url,
        recognise_stream(url, key="k", sample_rate_hz=8000) as stream,
    ):
        await stream.send_audio(b"\1\2")
        await stream.finish_audio()
        assert [(result.text, result.final) async for result in stream] == [
            ("go", False),
            ("go on", True),
        ]


async def test_a_refused_stream_says_why() -> None:
    async def handler(socket: ServerConnection) -> None:
        await socket.close(1008, "format: speex")

    async with server(handler) as url:
        with pytest.raises(ConnectionLostError, match="format: speex"):
            async with recognise_stream(url, key="k"):
                raise AssertionError("must not be entered")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://h:1", "ws://h:1/a/chat?m=x"),
        ("https://h/", "wss://h/a/chat?m=x"),
        ("wss://h/voice", "wss://h/voice/a/chat?m=x"),
        ("ws://h/projects/p/chat?asr=1", "ws://h/projects/p/chat?asr=1&m=x"),
        ("h:8000", "ws://h:8000/a/chat?m=x"),
    ],
)
def test_addresses_are_completed(url: str, expected: str) -> None:
    assert socket_url(url, "/a/chat", {"m": "x"}) == expected


def test_settings_name_only_what_was_asked_for() -> None:
    settings = chat_settings(input_format="pcm", output_format="WAV_16000HZ_MONO_16BIT")
    assert settings["create_transcription_task_req"] == {
        "speech_recognition_param": {"format": "pcm"}
    }
    assert "sample_rate" not in json.dumps(settings)
