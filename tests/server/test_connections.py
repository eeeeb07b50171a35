"""Connections that ask for nothing are bounded, and never cost anybody else
anything.
"""

import asyncio
import gc
import logging
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
from aiohttp import web

from tests.hostile.clients import conversation, live_server, tcp
from voicechat.server import connections
from voicechat.server.app import build_app
from voicechat.server.connections import (
    HEAD_S,
    HTTP_OPTIONS,
    MAX_LINE_BYTES,
    PIECE_BYTES,
    SILENT_PER_ADDRESS,
    SWEEP_S,
    UNREAD_S,
    ClientConnection,
    Connections,
    encode_target,
)
from voicechat.server.listener import listening

REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


class Wire(asyncio.Transport):
    """A connection of a client that the test plays."""

    def __init__(self, address: str = "192.0.2.1") -> None:
        super().__init__({"peername": (address, 1)})
        self.answer = b""
        self.unread_bytes = 0
        self.gone = False
        self.reads = True
        self.handler: ClientConnection

    def pause_reading(self) -> None:
        self.reads = False

    def resume_reading(self) -> None:
        self.reads = True

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.answer += data

    def writelines(self, pieces: object) -> None:
        self.answer += b"".join(pieces)  # type: ignore[arg-type]

    def get_write_buffer_size(self) -> int:
        return self.unread_bytes

    def is_closing(self) -> bool:
        return self.gone

    def close(self) -> None:
        self.abort()

    def abort(self) -> None:
        if not self.gone:
            self.gone = True
            asyncio.get_running_loop().call_soon(self.handler.connection_lost, None)


class House:
    """A server whose requests last until they are let go."""

    def __init__(self, server: web.Server, most: int) -> None:
        self.connections = Connections(server, most)

    def connect(self, address: str = "192.0.2.1") -> Wire:
        wire = Wire(address)
        wire.handler = self.connections()
        wire.handler.connection_made(wire)
        return wire


@asynccontextmanager
async def house(
    most: int = 1000,
    handle: Callable[[], object] = lambda: None,
    routes: Sequence[web.RouteDef] | None = None,
) -> AsyncIterator[House]:
    async def answer(_: web.Request) -> web.Response:
        held = handle()
        if isinstance(held, asyncio.Event):
            await held.wait()
        return web.Response(text="here")

    runner = web.AppRunner(build_app(routes or [web.get("/", answer)]), **HTTP_OPTIONS)
    await runner.setup()
    assert runner.server is not None
    yield House(runner.server, most)
    await runner.cleanup()


async def test_a_connection_without_a_request_has_a_deadline() -> None:
    async with house() as made:
        silent, slow, quick = made.connect(), made.connect(), made.connect()
        quick.handler.data_received(REQUEST)
        for number in range(int(HEAD_S) - 1):
            slow.handler.data_received(REQUEST[number : number + 1])
            await asyncio.sleep(1)
        assert not silent.gone
        await asyncio.sleep(1 + 2 * SWEEP_S)
        assert [wire.gone for wire in (silent, slow, quick)] == [True, True, False]
        assert b"here" in quick.answer
        assert len(made.connections) == 1


async def test_of_one_address_only_so_many_wait_and_the_oldest_goes_first() -> None:
    async with house() as made:
        others = [made.connect("198.51.100.7")]
        flood = [made.connect() for _ in range(3 * SILENT_PER_ADDRESS)]
        assert [wire.gone for wire in flood].count(False) == SILENT_PER_ADDRESS
        assert not flood[-1].gone
        assert not others[0].gone


async def test_networks_count_as_addresses_where_they_are_given_to_one() -> None:
    async with house() as made:
        flood = [made.connect(f"2001:db8::{number:x}") for number in range(2 * SILENT_PER_ADDRESS)]
        assert [wire.gone for wire in flood].count(False) == SILENT_PER_ADDRESS


async def test_past_the_bound_of_all_those_go_that_ask_for_nothing_for_the_longest() -> None:
    async with house(most=10) as made:
        kept = made.connect("192.0.2.99")
        kept.handler.data_received(REQUEST)
        await asyncio.sleep(0.1)
        flood = [made.connect(f"192.0.2.{number}") for number in range(50)]
        assert kept.gone, "it has been answered and asks for nothing now"
        assert [wire.gone for wire in flood].count(False) == 10
        newcomer = made.connect("203.0.113.1")
        newcomer.handler.data_received(REQUEST)
        await asyncio.sleep(0.1)
        assert b"here" in newcomer.answer


async def test_a_request_in_progress_is_never_dropped_for_a_newcomer() -> None:
    held = asyncio.Event()
    async with house(most=5, handle=lambda: held) as made:
        busy = [made.connect(f"192.0.2.{number}") for number in range(5)]
        for wire in busy:
            wire.handler.data_received(REQUEST)
        await asyncio.sleep(0.1)
        newcomers = [made.connect("203.0.113.1") for _ in range(3)]
        assert all(wire.gone for wire in newcomers)
        held.set()
        await asyncio.sleep(0.1)
        assert all(b"here" in wire.answer for wire in busy)
        assert not any(wire.gone for wire in busy)


async def test_a_flood_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    async with house() as made:
        with caplog.at_level(logging.WARNING):
            for _ in range(2 * SILENT_PER_ADDRESS):
                made.connect()
    assert len(caplog.records) == 1
    assert "192.0.2.1" in caplog.text
    assert "connections without a request are dropped" in caplog.text


async def test_a_client_that_asks_and_is_gone_leaves_no_trace_in_the_log() -> None:
    faults: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, fault: faults.append(fault))
    async with house() as made:
        wire = made.connect()
        await asyncio.sleep(0)
        wire.handler.data_received(REQUEST)
        wire.handler.connection_lost(None)
        await asyncio.sleep(0.1)
        del wire
        gc.collect()
    assert faults == []


async def test_a_client_that_does_not_read_its_answer_is_cut_off() -> None:
    async with house() as made:
        reader, deaf = made.connect(), made.connect()
        for wire in (reader, deaf):
            wire.handler.data_received(REQUEST)
            wire.unread_bytes = 1_000_000
        for _ in range(int((UNREAD_S + 2 * SWEEP_S) / SWEEP_S)):
            reader.unread_bytes -= 1000
            await asyncio.sleep(SWEEP_S)
        assert [wire.gone for wire in (reader, deaf)] == [False, True]


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        (b"GET /a?token=Bearer KEY HTTP/1.1\r\n", b"GET /a?token=Bearer%20KEY HTTP/1.1\r\n"),
        (b"GET /a?a=b c d&e=f g HTTP/1.0\n", b"GET /a?a=b%20c%20d&e=f%20g HTTP/1.0\n"),
        (b"GET /a HTTP/1.1\r\nX: a b c\r\n\r\n", b"GET /a HTTP/1.1\r\nX: a b c\r\n\r\n"),
        (b"GET /a b", b"GET /a b"),
        ("GET /é?a=b HTTP/1.1\n".encode(), b"GET /%C3%A9?a=b HTTP/1.1\n"),
        ("GET /a HTTP/1.1\nX: é\n\n".encode(), "GET /a HTTP/1.1\nX: é\n\n".encode()),
        (b"a b c d\r\n", b"a b c d\r\n"),
        (b'{"a": "b c"}POST /d HTTP/1.1\r\n', b'{"a": "b c"}POST /d HTTP/1.1\r\n'),
        (b"\xff\xfe\n", b"\xff\xfe\n"),
        (b"\x16\x03\x01\xff HTTP/1.1\n", b"\x16\x03\x01\xff HTTP/1.1\n"),
        (b"", b""),
    ],
)
def test_what_is_raw_in_a_target_is_encoded(sent: bytes, read: bytes) -> None:
    assert encode_target(sent) == read


async def test_a_target_with_a_raw_space_is_understood_however_it_comes() -> None:
    async with house() as made:
        whole, pieces = made.connect(), made.connect()
        request = b"GET /?token=Bearer KEY HTTP/1.1\r\nHost: a\r\n\r\n"
        whole.handler.data_received(request)
        for byte in request:
            pieces.handler.data_received(bytes([byte]))
        await asyncio.sleep(0.1)
        assert b"200 OK" in whole.answer
        assert b"200 OK" in pieces.answer
        whole.handler.data_received(request)
        await asyncio.sleep(0.1)
        assert whole.answer.count(b"200 OK") == 2


async def test_a_line_without_an_end_is_refused_when_it_is_too_long() -> None:
    async with house() as made:
        wire = made.connect()
        wire.handler.data_received(b"GET /" + b"a" * (MAX_LINE_BYTES + 1))
        await asyncio.sleep(0.1)
        assert wire.answer.startswith(b"HTTP/1.0 400") or wire.answer.startswith(b"HTTP/1.1 400")


async def deliver(wire: Wire, data: bytes) -> int:
    """Let data arrive as the client sends it while it is read; gives the passes of the
    loop that it took.
    """
    passes = 0
    for start in range(0, len(data), 256 * 1024):
        while not wire.reads:
            await asyncio.sleep(0)
            passes += 1
        wire.handler.data_received(data[start : start + 256 * 1024])
    while not wire.reads:
        await asyncio.sleep(0)
        passes += 1
    return passes


async def test_a_body_in_tiny_chunks_is_parsed_a_piece_at_a_time() -> None:
    body: list[bytes] = []

    async def read(request: web.Request) -> web.Response:
        body.append(await request.read())
        return web.Response(text="read")

    async with house(routes=[web.post("/", read)]) as made:
        wire = made.connect()
        await asyncio.sleep(0)
        head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        sent = head + b"1\r\na\r\n" * 40_000 + b"0\r\n\r\n"
        assert await deliver(wire, sent) >= len(sent) // PIECE_BYTES - 1
        await asyncio.sleep(0.1)
        assert body == [b"a" * 40_000]
        assert b"read" in wire.answer


async def test_requests_that_come_all_at_once_are_all_answered_and_do_not_pile_up() -> None:
    async with house() as made:
        wire = made.connect()
        await asyncio.sleep(0)
        await deliver(wire, REQUEST * 3000)
        await asyncio.sleep(1)
        assert wire.answer.count(b"200 OK") == 3000
        assert wire.reads


async def test_what_has_come_before_an_upgrade_is_answered_keeps_its_order() -> None:
    frames: list[bytes] = []

    def feed(data: bytes) -> tuple[bool, bytes]:
        frames.append(data)
        return False, b""

    parser = SimpleNamespace(feed_data=feed, feed_eof=lambda: None)

    async def upgrade(request: web.Request) -> web.Response:
        request.protocol.set_parser(parser)  # type: ignore[arg-type]
        return web.Response()

    async with house(routes=[web.get("/", upgrade)]) as made:
        wire = made.connect()
        await asyncio.sleep(0)
        head = b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
        tail = bytes(range(256)) * 600
        wire.handler.data_received(head + tail)
        await asyncio.sleep(0.1)
        assert b"".join(frames) == tail


@pytest.mark.real_time
async def test_whoever_is_connected_goes_on_while_others_connect_and_say_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "SILENT_PER_ADDRESS", 64)
    async with (
        live_server(tmp_path) as server,
        conversation(server) as inside,
        AsyncExitStack() as flood,
    ):
        for _ in range(256):
            await flood.enter_async_context(tcp(server))
        await inside.goes_on()
        async with conversation(server) as newcomer:
            await newcomer.goes_on()


@pytest.mark.real_time
@pytest.mark.parametrize("query", ["token=Bearer {key}", "apikey={key}&about=one two"])
async def test_sockets_and_rest_take_raw_spaces(query: str, tmp_path: Path) -> None:
    async with live_server(tmp_path) as server:
        target = "/v1/models?" + query.format(key=server.key)
        async with tcp(server) as client:
            client.write(f"GET {target} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
            assert (await client.reader.readline()).startswith(b"HTTP/1.1 200")
        target = (
            "/api/open-apis/projects/P/chat/speech-chat?model=default&asr_easyllm_id=default"
            "&tts_easyllm_id=default&" + query.format(key=server.key)
        )
        async with tcp(server) as client:
            client.write(
                f"GET {target} HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n"
                "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
            )
            head = await client.reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 101")
            assert (await client.until("chat.created"))["status"] == 0


@pytest.mark.real_time
async def test_a_listener_closes_the_connections_that_never_spoke() -> None:
    async with listening(build_app([]), "127.0.0.1", 0) as port:
        silent = socket.create_connection(("127.0.0.1", port))
        silent.setblocking(False)
        await asyncio.sleep(0)
    async with asyncio.timeout(120):
        with suppress(ConnectionResetError):
            assert await asyncio.get_running_loop().sock_recv(silent, 1) == b""
    silent.close()
