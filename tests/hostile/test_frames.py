"""Frames that break RFC 6455 end their own connection with the code of the RFC, and
nothing else.
"""

import asyncio
from pathlib import Path

import pytest

from tests.hostile.clients import (
    BINARY,
    CONTINUATION,
    FIN,
    PING,
    PONG,
    TEXT,
    all_left,
    conversation,
    frame,
    live_server,
)

pytestmark = pytest.mark.real_time

BREACHES = {
    "bad UTF-8": (frame(TEXT, b'{"event_type": "\xff\xfe"}'), 1007),
    "a reserved bit": (frame(BINARY, b"a" * 10, first_bits=FIN | 0x40), 1002),
    "a reserved opcode": (frame(0x3, b"a"), 1002),
    "a ping of 126 bytes": (frame(PING, b"a" * 126), 1002),
    "a ping in fragments": (frame(PING, b"a", first_bits=0), 1002),
    "a continuation of nothing": (frame(CONTINUATION, b"a"), 1002),
    "a new message inside of one": (frame(TEXT, b"a", first_bits=0) + frame(TEXT, b"b"), 1002),
    "a frame without a mask": (frame(TEXT, b'{"event_type": "ping"}', masked=False), 1002),
    "a frame over the limit": (frame(BINARY, bytes(1024 * 1024 + 1)), 1009),
    "fragments over the limit": (
        frame(BINARY, bytes(600_000), first_bits=0)
        + frame(CONTINUATION, bytes(600_000), first_bits=0),
        1009,
    ),
}


@pytest.mark.parametrize("name", BREACHES)
async def test_a_breach_of_the_protocol_closes_with_its_code(name: str, tmp_path: Path) -> None:
    breach, code = BREACHES[name]
    async with live_server(tmp_path) as server, conversation(server) as bystander:
        async with conversation(server) as client:
            client.write(breach)
            assert await client.closed() == code
        await bystander.goes_on()
        await all_left(server, 1)


async def test_an_announced_size_over_the_limit_is_refused_before_it_is_sent(
    tmp_path: Path,
) -> None:
    async with live_server(tmp_path) as server, conversation(server) as client:
        client.write(b"\x82\xff" + (2**40).to_bytes(8, "big") + b"mask")
        assert await client.closed() == 1009


async def test_a_message_of_exactly_the_limit_is_accepted(tmp_path: Path) -> None:
    async with live_server(tmp_path) as server, conversation(server) as client:
        client.frame(BINARY, bytes(1024 * 1024))
        client.frame(BINARY, bytes(600_000), first_bits=0)
        client.frame(CONTINUATION, bytes(1024 * 1024 - 600_000))
        await client.goes_on()


async def test_a_frame_that_never_ends_is_given_up_on(tmp_path: Path) -> None:
    async with (
        live_server(tmp_path, idle_ms=300, ping_ms=100, close_ms=200) as server,
        conversation(server) as client,
    ):
        client.write(b"\x82\xfe\x0c\x80" + b"mask" + bytes(100))
        assert (await client.until("error"))["status"] == 40801
        assert await client.closed() in (1000, None)
        await all_left(server, 0)


async def test_fragments_without_end_are_given_up_on(tmp_path: Path) -> None:
    async with (
        live_server(tmp_path, idle_ms=300, ping_ms=100, close_ms=200) as server,
        conversation(server) as client,
    ):
        client.frame(BINARY, b"a", first_bits=0)

        async def go_on() -> None:
            while True:
                client.frame(CONTINUATION, b"", first_bits=0)
                await asyncio.sleep(0.02)

        async with asyncio.TaskGroup() as tasks:
            endless = tasks.create_task(go_on())
            assert (await client.until("error"))["status"] == 40801
            endless.cancel()
        await all_left(server, 0)


async def test_a_peer_that_answers_no_ping_is_given_up_on(tmp_path: Path) -> None:
    async with (
        live_server(tmp_path, idle_ms=300, ping_ms=100, close_ms=200) as server,
        conversation(server) as client,
    ):
        assert (await client.until("error"))["status"] == 40801
        await all_left(server, 0)


async def test_pongs_that_nobody_asked_for_and_empty_frames_are_harmless(tmp_path: Path) -> None:
    async with live_server(tmp_path) as server, conversation(server) as client:
        client.write(frame(PONG, b"unasked") + frame(BINARY) + frame(PING, b"x"))
        await client.goes_on()
