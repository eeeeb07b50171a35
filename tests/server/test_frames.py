"""Frames: shown as they arrive, counted, and refused when they are not RFC 6455's."""

import asyncio
import base64
import os
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from aiohttp import WSMessage, WSMsgType, web
from aiohttp.base_protocol import BaseProtocol
from aiohttp.streams import EofStream
from hypothesis import given
from hypothesis import strategies as st

from voicechat.dialects.base import Frame
from voicechat.runtime.socket import Control, Ping
from voicechat.server.app import build_app
from voicechat.server.frames import FRAMES_IN_A_PASS, QUEUE_BYTES, FrameReader, MessageQueue
from voicechat.server.listener import listening
from voicechat.server.websocket import AiohttpSocket
from voicechat.session.limits import SessionLimits

pytestmark = pytest.mark.real_time

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
FIN = 0x80
MASK = bytes(4)
"""A mask that changes nothing."""


def message(opcode: int, payload: bytes, flags: int = FIN) -> bytes:
    length = len(payload)
    head = (
        bytes([flags | opcode, 0x80 | length])
        if length < 126
        else struct.pack(">BBH", flags | opcode, 0xFE, length)
    )
    return head + MASK + payload


@dataclass
class Server:
    """One WebSocket route, which does not receive before it is told to."""

    limits: SessionLimits = field(default_factory=SessionLimits)
    takes: Callable[[Frame], bool] = lambda frame: isinstance(frame, bytes)
    shown: list[Frame] = field(default_factory=list)
    received: list[Frame | Control | Ping] = field(default_factory=list)
    opened: asyncio.Event = field(default_factory=asyncio.Event)
    may_receive: asyncio.Event = field(default_factory=asyncio.Event)
    over: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self, request: web.Request) -> web.StreamResponse:
        self.transport = request.transport
        socket = AiohttpSocket(self.limits)
        response = await socket.open(request)
        socket.offer(self.show)
        self.opened.set()
        await self.may_receive.wait()
        while not self.received or self.received[-1] is not Control.CLOSED:
            self.received.append(await socket.receive())
        self.over.set()
        return response

    def show(self, frame: Frame) -> bool:
        taken = self.takes(frame)
        if taken:
            self.shown.append(frame)
        return taken

    @asynccontextmanager
    async def client(
        self, early: bytes = b""
    ) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """A client that sends ``early`` together with its request, and has read the
        answer.
        """
        async with listening(build_app([web.get("/", self.serve)]), "127.0.0.1", 0) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            key = base64.b64encode(os.urandom(16)).decode()
            writer.write(
                f"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
                + early
            )
            await reader.readuntil(b"\r\n\r\n")
            async with asyncio.timeout(120):
                await self.opened.wait()
            yield reader, writer
            writer.close()
            self.may_receive.set()
            async with asyncio.timeout(120):
                await self.over.wait()

    async def until_shown(self, count: int) -> None:
        async with asyncio.timeout(120):
            while len(self.shown) < count:  # noqa: ASYNC110 - real sockets
                await asyncio.sleep(0.001)


async def test_audio_is_shown_to_whom_it_is_offered_and_nobody_need_receive() -> None:
    server = Server()
    async with server.client() as (_, writer):
        writer.write(message(BINARY, b"1") + message(BINARY, b"2" * 200))
        await server.until_shown(2)
    assert server.shown == [b"1", b"2" * 200]
    assert server.received == [Control.CLOSED]


async def test_nothing_overtakes_what_waits_to_be_received() -> None:
    server = Server()
    async with server.client() as (_, writer):
        writer.write(message(BINARY, b"1") + message(TEXT, b"t") + message(BINARY, b"2"))
        await server.until_shown(1)
        server.may_receive.set()
        writer.write(message(BINARY, b"") + message(CLOSE, b""))
    assert server.shown == [b"1"]
    assert server.received == ["t", b"2", b"", Control.CLOSED]


async def test_what_is_not_taken_is_received_and_then_frames_are_shown_again() -> None:
    server = Server(takes=lambda frame: frame != b"no")
    async with server.client() as (_, writer):
        server.may_receive.set()
        writer.write(message(BINARY, b"no"))
        async with asyncio.timeout(120):
            while not server.received:  # noqa: ASYNC110 - real sockets
                await asyncio.sleep(0.001)
        writer.write(message(BINARY, b"yes"))
        await server.until_shown(1)
    assert server.received == [b"no", Control.CLOSED]
    assert server.shown == [b"yes"]


async def test_a_message_in_parts_is_shown_whole() -> None:
    server = Server()
    async with server.client() as (_, writer):
        writer.write(message(BINARY, b"a", 0) + message(PING, b"?") + message(CONTINUATION, b"b"))
        server.may_receive.set()
        await asyncio.sleep(0.05)
        for byte in message(BINARY, b"byte by byte"):
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0.001)
        await server.until_shown(1)
    assert [frame for frame in (*server.received, *server.shown) if isinstance(frame, bytes)] == [
        b"ab",
        b"byte by byte",
    ]


@pytest.mark.parametrize("cut", [0, 1, 5, 8, 11])
async def test_what_comes_together_with_the_request_is_not_lost(cut: int) -> None:
    server = Server()
    first = message(BINARY, b"first")
    async with server.client(first[:cut]) as (_, writer):
        server.may_receive.set()
        writer.write(first[cut:] + message(BINARY, b"second") + message(CLOSE, b""))
        await server.over.wait()
    frames = [frame for frame in (*server.received, *server.shown) if isinstance(frame, bytes)]
    assert frames == [b"first", b"second"]


async def test_a_message_over_the_limit_is_answered_with_its_code() -> None:
    server = Server(limits=SessionLimits(frame_bytes=1000))
    async with server.client() as (reader, writer):
        server.may_receive.set()
        writer.write(message(BINARY, bytes(1000)))
        await server.until_shown(1)
        writer.write(message(BINARY, bytes(1001)))
        head = await reader.readexactly(4)
        assert head[0] == FIN | CLOSE
        assert struct.unpack(">H", head[2:]) == (1009,)
    assert server.received == [Control.CLOSED]


async def test_compression_that_was_not_agreed_on_is_an_error() -> None:
    server = Server()
    async with server.client() as (reader, writer):
        server.may_receive.set()
        writer.write(message(BINARY, b"1", FIN | 0x40))
        async with asyncio.timeout(120):
            assert (await reader.readexactly(4))[2:] == struct.pack(">H", 1002)
    assert server.shown == []
    assert server.received == [Control.CLOSED]


async def test_who_takes_nothing_stops_the_client_in_the_end() -> None:
    """Nothing piles up without bound: past its queue aiohttp does not read."""
    server = Server(takes=lambda _frame: False)
    async with server.client() as (_, writer):
        for _ in range(64):
            writer.write(message(BINARY, bytes(60_000)))
        async with asyncio.timeout(120):
            while server.transport is not None and server.transport.is_reading():  # noqa: ASYNC110 - real sockets
                await asyncio.sleep(0.001)
        server.may_receive.set()
        writer.write(message(CLOSE, b""))
        await server.over.wait()
    assert [len(frame) for frame in server.received[:-1] if isinstance(frame, bytes)] == [
        60_000
    ] * 64


class Connection(BaseProtocol):
    """A connection that only remembers whether it is read."""

    def __init__(self) -> None:
        super().__init__(asyncio.get_running_loop())
        self._upgraded = True
        self.reads = True

    def _pause_transport_reading(self) -> None:
        self.reads = False

    def _resume_transport_reading(self) -> None:
        self.reads = True


LIMIT_BYTES = 1000
FLOODS = {
    "pings": message(PING, b""),
    "pongs": message(PONG, b""),
    "empty frames": message(BINARY, b""),
    "empty fragments": message(TEXT, b"", 0)
    + message(CONTINUATION, b"", 0)
    + message(CONTINUATION, b""),
}


@pytest.mark.parametrize("name", FLOODS)
async def test_a_flood_of_frames_is_parsed_a_few_at_a_time(name: str) -> None:
    connection, queue = Connection(), MessageQueue()
    reader = FrameReader(connection, queue, LIMIT_BYTES)
    flood = FLOODS[name] * 20 * FRAMES_IN_A_PASS
    assert reader.feed_data(flood) == (False, b"")
    passes = 0
    received = asyncio.get_running_loop().create_task(_receive(queue))
    while reader._buffer:
        assert not connection.reads, "what is left is parsed before more is read"
        await asyncio.sleep(0)
        passes += 1
    assert passes >= 19
    assert connection.reads
    reader.feed_eof()
    assert len(await received) == 20 * FRAMES_IN_A_PASS


async def test_frames_that_nobody_receives_do_not_fill_the_memory() -> None:
    connection, queue = Connection(), MessageQueue()
    reader = FrameReader(connection, queue, LIMIT_BYTES)
    reader.feed_data(message(PONG, b"") * 10_000)
    await asyncio.sleep(1)
    assert queue.size_bytes < 2 * QUEUE_BYTES
    assert not connection.reads
    reader.feed_eof()
    assert len(await _receive(queue)) == 10_000


@pytest.mark.parametrize("read_first", [True, False])
async def test_a_connection_that_is_held_is_read_only_when_nothing_else_forbids_it(
    read_first: bool,
) -> None:
    connection, queue = Connection(), MessageQueue()
    reader = FrameReader(connection, queue, LIMIT_BYTES)
    reader.hold(True)
    assert not connection.reads
    reader.feed_data(message(PONG, b"") * 10_000)
    receiving = asyncio.get_running_loop().create_task(_receive(queue))
    if read_first:
        while reader._buffer:  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0)
        assert not connection.reads, "held"
        reader.hold(False)
    else:
        reader.hold(False)
        assert not connection.reads, "what was read is not parsed yet"
        while reader._buffer:  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0)
    assert connection.reads
    reader.feed_eof()
    assert len(await receiving) == 10_000


async def _receive(queue: MessageQueue) -> list[WSMessage]:
    messages: list[WSMessage] = []
    while True:
        try:
            messages.append(await queue.read())
        except EofStream:
            return messages
        await asyncio.sleep(0)


ascii_bytes = st.binary(max_size=300).map(lambda raw: bytes(byte & 0x7F for byte in raw))
parts = st.tuples(st.sampled_from([TEXT, BINARY]), st.lists(ascii_bytes, min_size=1, max_size=4))


@given(st.lists(parts, max_size=8), st.binary(min_size=4, max_size=4), st.data())
async def test_messages_are_the_same_however_they_are_cut(
    messages: list[tuple[int, list[bytes]]], mask: bytes, data: st.DataObject
) -> None:
    whole = [(opcode, b"".join(fragments)) for opcode, fragments in messages]
    wire = b""
    for opcode, fragments in messages:
        for number, fragment in enumerate(fragments):
            last = number == len(fragments) - 1
            wire += _masked(CONTINUATION if number else opcode, fragment, FIN if last else 0, mask)
            wire += _masked(PING, b"?", FIN, mask)
    pieces = []
    while wire:
        size = data.draw(st.integers(1, len(wire)))
        pieces.append(wire[:size])
        wire = wire[size:]
    queue = MessageQueue()
    reader = FrameReader(Connection(), queue, 10_000)
    receiving = asyncio.get_running_loop().create_task(_receive(queue))
    for piece in pieces:
        reader.feed_data(piece)
    reader.feed_eof()
    received = [found for found in await receiving if found.type is not WSMsgType.PING]
    assert [found.data for found in received] == [
        payload.decode() if opcode == TEXT else payload for opcode, payload in whole
    ]


def _masked(opcode: int, payload: bytes, flags: int, mask: bytes) -> bytes:
    hidden = bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))
    length = len(payload)
    if length < 126:
        return bytes([flags | opcode, 0x80 | length]) + mask + hidden
    return struct.pack(">BBH", flags | opcode, 0xFE, length) + mask + hidden
