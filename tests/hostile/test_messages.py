"""Messages that are no events, in every state: each earns the documented error, and the
session goes on.
"""

import json
import random
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.hostile.clients import BINARY, RawClient, conversation, live_server, raw_client
from voicechat.client.recognition import STREAM_PATH

pytestmark = pytest.mark.real_time

SILENCE = bytes(3200)
GARBAGE = {
    "nothing": ("", 40001),
    "no JSON": ("hello", 40001),
    "half JSON": ('{"event_type": "pi', 40001),
    "an array": ("[1, 2, 3]", 40001),
    "a number": ("1e999", 40001),
    "not a number": ('{"event_type": NaN}', 40001),
    "a lone surrogate": (r'{"event_type": "\ud800"}', 40001),
    "no type": ("{}", 40001),
    "a type that is none": ('{"event_type": 7}', 40001),
    "an unknown type": ('{"event_type": "conversation.explode"}', 40002),
    "nested deep": ("[" * 100_000 + "]" * 100_000, 40001),
    "a huge number": (
        '{"event_type": "conversation.audio.played", "reply": 1, "played_ms": ' + "9" * 5000 + "}",
        None,
    ),
    "too long": (json.dumps({"event_type": "ping", "more": "x" * 300_000}), 41301),
    "NUL": ("\x00" * 10, 40001),
    "a dialogue that is none": (
        '{"event_type": "conversation.message.create", "role": "system"}',
        40001,
    ),
}


async def configuring(client: RawClient) -> None:
    assert client.seen


async def listening(client: RawClient) -> None:
    client.frame(BINARY, SILENCE)


async def transcribing(client: RawClient) -> None:
    client.frame(BINARY, SILENCE)
    client.event("input_audio_buffer.complete")
    await client.until("input_audio_buffer.completed")


async def replying(client: RawClient) -> None:
    client.event("conversation.message.create", role="user", content="Hello")
    while "choices" not in client.seen[-1]:
        await client.next()


STATES = (configuring, listening, transcribing, replying)


@pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__)
async def test_every_bad_text_earns_one_error_in_every_state(
    state: Callable[[RawClient], Awaitable[None]], tmp_path: Path
) -> None:
    async with live_server(tmp_path) as server, conversation(server) as client:
        await state(client)
        for text, _ in GARBAGE.values():
            client.text(text)
        await client.goes_on()
        errors = [
            message["status"] for message in client.seen if message.get("event_type") == "error"
        ]
        expected = [status for _, status in GARBAGE.values()]
        assert len(errors) == len(expected)
        assert all(want in (None, got) for got, want in zip(errors, expected, strict=True)), errors


@pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__)
async def test_any_bytes_are_audio_in_every_state(
    state: Callable[[RawClient], Awaitable[None]], tmp_path: Path
) -> None:
    dice = random.Random(1)
    async with live_server(tmp_path) as server, conversation(server) as client:
        await state(client)
        for length in (1, 2, 3, 7, 44, 45, 1000, 3201, 65_536):
            client.frame(BINARY, dice.randbytes(length))
        client.frame(BINARY, b"RIFF" + dice.randbytes(60))
        await client.goes_on()
        client.event("conversation.chat.cancel")
        await client.until("conversation.chat.canceled")
        assert {m["status"] for m in client.seen if m.get("event_type") == "error"} <= {
            41501,
            41502,
        }


async def test_a_hundred_bad_messages_in_a_row_close_the_connection(tmp_path: Path) -> None:
    async with live_server(tmp_path) as server, conversation(server) as bystander:
        async with conversation(server) as client:
            for _ in range(99):
                client.text("?")
            client.event("ping")
            for _ in range(100):
                client.text("?")
            assert await client.closed() == 1008
            kinds = [message["event_type"] for message in client.seen]
            assert kinds.index("pong") == 100
            assert set(kinds[101:]) == {"error"}
            assert len(kinds[101:]) in (99, 100)
        await bystander.goes_on()


async def test_recognition_sockets_ignore_texts_that_mean_nothing(tmp_path: Path) -> None:
    async with live_server(tmp_path) as server, raw_client(server, STREAM_PATH, {}) as client:
        assert await client.next() == {"status": "ok"}
        client.frame(BINARY, SILENCE)
        for text, _ in GARBAGE.values():
            client.text(text)
        client.text("BYE")
        assert await client.closed() == 1000
        assert all("is_sentence_end" in message for message in client.seen[1:])
