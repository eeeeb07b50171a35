import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from websockets.asyncio.server import ServerConnection, serve

from voicechat.cli.command import CommandError
from voicechat.cli.exchange import Exchange
from voicechat.client import connect

pytestmark = pytest.mark.real_time

COMPLETED = '{"status":0,"message":"","event_type":"input_audio_buffer.completed"}'
HEARD = '{"text":"go","begin_time":0,"end_time":900,"words":[],"is_sentence_end":true}'
TURN_OVER = '{"status":0,"message":"","event_type":"conversation.chat.completed"}'


@asynccontextmanager
async def exchange_with(answers: list[str]) -> AsyncIterator[tuple[Exchange, io.StringIO]]:
    """A server that gives these answers when the turn is complete."""

    async def handler(socket: ServerConnection) -> None:
        await socket.send('{"status":0,"message":"","event_type":"chat.created"}')
        async for frame in socket:
            if isinstance(frame, str) and ("complete" in frame or "chat.update" in frame):
                for answer in answers:
                    await socket.send(answer)
                if not answers:
                    return

    async with serve(handler, "127.0.0.1", 0) as running:
        port = next(iter(running.sockets)).getsockname()[1]
        async with connect(f"ws://127.0.0.1:{port}", key="k") as conversation:
            screen = io.StringIO()
            yield Exchange(conversation, screen), screen


async def test_a_turn_shows_what_was_said_and_gathers_the_audio() -> None:
    answers = [
        COMPLETED,
        HEARD,
        '{"id":"c","choices":[{"delta":{"content":"On "}}]}',
        '{"status":"accepting","usage":null,"audioFrame":"AAE=","id":"c"}',
        '{"id":"c","choices":[{"delta":{"content":"we go."}}]}',
        '{"status":"accepting","usage":null,"audioFrame":"Ag==","id":"c"}',
        '{"status":"finish","usage":{"characters":9},"audioFrame":null}',
        TURN_OVER,
    ]
    async with exchange_with(answers) as (exchange, screen):
        await exchange.turn(bytes(100_000))
    assert screen.getvalue() == "you:    go\nanswer: On we go.\n"
    assert bytes(exchange.audio) == b"\0\1\2"
    assert "None" not in exchange.latency()


@pytest.mark.parametrize(
    ("answers", "told"),
    [
        ([COMPLETED, TURN_OVER], "nothing was recognised"),
        (
            [
                COMPLETED,
                HEARD,
                '{"status":50202,"message":"the model failed","event_type":"error"}',
            ],
            "the model failed",
        ),
        (
            ['{"status":40901,"message":"too early","event_type":"input_audio_buffer.completed"}'],
            "too early",
        ),
        ([], "the server ended the conversation"),
    ],
)
async def test_whatever_goes_wrong_is_told(answers: list[str], told: str) -> None:
    async with exchange_with(answers) as (exchange, _):
        with pytest.raises(Exception, match="unhandled errors") as raised:
            await exchange.turn(bytes(3200))
    assert isinstance(raised.value, ExceptionGroup)
    assert raised.group_contains(CommandError, match=told)


async def test_refused_settings_are_told() -> None:
    refused = '{"status":40003,"message":"format: no","event_type":"chat.updated"}'
    async with exchange_with([refused]) as (exchange, _):
        with pytest.raises(CommandError, match="format: no"):
            await exchange.configure({})
