"""Requests that are wrong, huge or never finished: refused in the documented form, and
nobody else notices.
"""

import asyncio
import logging
import socket
import struct
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.hostile.clients import (
    SERVICES,
    Closed,
    all_left,
    conversation,
    live_server,
    raw_client,
    tcp,
    upgrade,
)
from voicechat.client.recognition import STREAM_PATH

pytestmark = pytest.mark.real_time


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ({}, 40003),
        ({**SERVICES, "model": ""}, 40003),
        ({**SERVICES, "tts_easyllm_id": ""}, 40003),
    ],
)
async def test_a_query_that_names_no_service_is_told_so(
    query: dict[str, str], status: int, tmp_path: Path
) -> None:
    async with live_server(tmp_path) as server, raw_client(server, query=query) as client:
        message = await client.next()
        assert isinstance(message, dict)
        assert (message["event_type"], message["status"]) == ("chat.created", status)
        assert await client.closed() == 1008
        await all_left(server, 0)


@pytest.mark.parametrize("name", ["\x00", "../../etc/passwd", "x" * 2000, "\ud7ff\n\r\t"])
@pytest.mark.parametrize("parameter", SERVICES)
async def test_a_wild_name_means_the_only_service_and_is_quoted_within_bounds(
    parameter: str, name: str, tmp_path: Path
) -> None:
    async with (
        live_server(tmp_path) as server,
        raw_client(server, query={**SERVICES, parameter: name}) as client,
    ):
        message = await client.next()
        assert isinstance(message, dict)
        assert (message["event_type"], message["status"]) == ("chat.created", 0)
        assert message["message"].startswith(f"{parameter}: ")
        assert len(message["message"]) < 400


@pytest.mark.parametrize(
    "query",
    [
        {"format": "tape"},
        {"sample_rate": "-1"},
        {"sample_rate": "9" * 4000},
        {"sample_rate": "\u0661\u0666\u0660\u0660\u0660"},
        {"heartbeat": "perhaps"},
        {"session": "x" * 129},
        {"session": "\x00"},
        {"received": "1e3", "session": "a"},
        {"words": "xml"},
    ],
    ids=lambda query: "-".join(query),
)
async def test_a_recognition_query_that_means_nothing_is_closed_with_a_reason(
    query: dict[str, str], tmp_path: Path
) -> None:
    async with live_server(tmp_path) as server, raw_client(server, STREAM_PATH, query) as client:
        assert await client.next() == Closed(1008)
        await all_left(server, 0)


@pytest.mark.parametrize(
    "raw",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x00" * 1000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
        b"GET /" + b"p" * 100_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 50_000 + b"\r\n",
    ],
    ids=["TLS", "a future version", "NULs", "a huge header", "a huge path", "many headers"],
)
async def test_what_is_no_request_is_answered_400_or_cut(raw: bytes, tmp_path: Path) -> None:
    async with live_server(tmp_path) as server, conversation(server) as bystander:
        async with tcp(server) as client:
            client.write(raw)
            try:
                async with asyncio.timeout(30):
                    answer = await client.reader.readline()
            except ConnectionError:
                answer = b""
            assert answer == b"" or b" 400 " in answer
        await bystander.goes_on()


async def test_a_key_for_another_version_of_the_protocol_is_refused(tmp_path: Path) -> None:
    async with live_server(tmp_path) as server, tcp(server) as client:
        client.write(upgrade(server).replace(b"Version: 13", b"Version: 99"))
        assert b" 400 " in await client.reader.readline()
        await all_left(server, 0)


async def test_unfinished_handshakes_take_no_session_and_do_not_delay_the_end(
    tmp_path: Path,
) -> None:
    loop = asyncio.get_running_loop()
    async with AsyncExitStack() as clients:
        async with live_server(tmp_path) as server:
            for cut in (1, 10, 100):
                client = await clients.enter_async_context(tcp(server))
                client.write(upgrade(server)[:cut])
            bystander = await clients.enter_async_context(conversation(server))
            await bystander.goes_on()
            assert server.admission.sessions == 1
            bystander.writer.transport.abort()
            await all_left(server, 0)
            overdue = loop.time() + 30  # aiohttp by itself waits for 60 s
        assert loop.time() < overdue


async def test_a_client_that_vanishes_during_the_handshake_is_no_error_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with live_server(tmp_path) as server:
        for _ in range(20):
            async with tcp(server) as client:
                client.write(upgrade(server))
                handle = client.writer.get_extra_info("socket")
                handle.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            await all_left(server, 0)
            async with conversation(server) as bystander:
                await bystander.goes_on()
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []
