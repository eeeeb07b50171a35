"""aiohttp's WebSocket with a queue of ours in it: audio is shown as it arrives, and nothing else is another."""

import asyncio
import base64
import os
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from aiohttp import web

from voicechat.runtime.socket import Control
from voicechat.server import prompt
from voicechat.server.app import build_app
from voicechat.server.listener import listening
from voicechat.server.websocket import AiohttpSocket
from voicechat.session.limits import SessionLimits
from voicechat.wire.dialect import Frame

pytestmark = pytest.mark.real_time

CONTINUATION, TEXT, BINARY, CLOSE, PING = 0x0, 0x1, 0x2, 0x8, 0x9
FIN = 0x80
MASK = bytes(4)
"""A mask that changes nothing."""


def message(opcode: int, payload: bytes, flags: int = FIN) -> bytes:
    length = len(payload)
    head = bytes([flags | opcode, 0x80 | length]) if length < 126 else struct.pack(">BBH", flags | opcode, 0xFE, length)
    return head + MASK + payload


@dataclass
class Server:
    """One WebSocket route, which does not receive before it is told to."""

    limits: SessionLimits = field(default_factory=SessionLimits)
    takes: Callable[[bytes], bool] = lambda _frame: True
    shown: list[bytes] = field(default_factory=list)
    received: list[Frame | Control] = field(default_factory=list)
    opened: asyncio.Event = field(default_factory=asyncio.Event)
    may_receive: asyncio.Event = field(default_factory=asyncio.Event)
    over: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self, request: web.Request) -> web.StreamResponse:
        self.transport = request.transport
        socket = AiohttpSocket(self.limits)
        response = await socket.open(request)
        self.prompt = getattr(response, "inbox", None) is not None
        socket.offer(self.show)
        self.opened.set()
        await self.may_receive.wait()
        while not self.received or self.received[-1] is not Control.CLOSED:
            self.received.append(await socket.receive())
        self.over.set()
        return response

    def show(self, frame: bytes) -> bool:
        taken = self.takes(frame)
        if taken:
            self.shown.append(frame)
        return taken

    @asynccontextmanager
    async def client(self, early: bytes = b"") -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """A client that sends ``early`` together with its request, and has read the answer."""
        async with listening(build_app([web.get("/", self.serve)]), "127.0.0.1", 0) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            key = base64.b64encode(os.urandom(16)).decode()
            writer.write(
                f"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
                + early
            )
            await reader.readuntil(b"\r\n\r\n")
            async with asyncio.timeout(10):
                await self.opened.wait()
            yield reader, writer
            writer.close()
            self.may_receive.set()
            async with asyncio.timeout(10):
                await self.over.wait()

    async def until_shown(self, count: int) -> None:
        async with asyncio.timeout(10):
            while len(self.shown) < count:  # noqa: ASYNC110 - real sockets
                await asyncio.sleep(0.001)


async def test_audio_is_shown_to_whom_it_is_offered_and_nobody_need_receive() -> None:
    server = Server()
    async with server.client() as (_, writer):
        assert server.prompt, "the installed aiohttp is as this module knows it"
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
        async with asyncio.timeout(10):
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


@pytest.mark.parametrize("cut", [0, 1, 5, 8])
async def test_what_comes_together_with_the_request_is_not_lost(cut: int) -> None:
    """aiohttp's own parser has it, perhaps half of a message: then it keeps the connection."""
    server = Server()
    first = message(BINARY, b"first")
    async with server.client(first[:cut]) as (_, writer):
        assert server.prompt == (cut == 0)
        server.may_receive.set()
        writer.write(first[cut:] + message(BINARY, b"second") + message(CLOSE, b""))
        await server.over.wait()
    frames = server.shown if server.prompt else server.received[:-1]
    assert frames == [b"first", b"second"]


async def test_with_another_aiohttp_everything_is_received(monkeypatch: pytest.MonkeyPatch) -> None:
    def changed(*_arguments: object, **_options: object) -> None:
        raise TypeError

    monkeypatch.setattr(prompt, "WebSocketReader", changed)
    server = Server()
    async with server.client() as (_, writer):
        assert not server.prompt
        server.may_receive.set()
        writer.write(message(BINARY, b"1") + message(CLOSE, b""))
        await server.over.wait()
    assert server.received == [b"1", Control.CLOSED]
    assert server.shown == []


async def test_a_message_over_the_limit_is_answered_with_its_code() -> None:
    server = Server(limits=SessionLimits(frame_bytes=1000))
    async with server.client() as (reader, writer):
        server.may_receive.set()
        writer.write(message(BINARY, bytes(999)))
        await server.until_shown(1)
        writer.write(message(BINARY, bytes(1000)))
        head = await reader.readexactly(4)
        assert head[0] == FIN | CLOSE
        assert struct.unpack(">H", head[2:]) == (1009,)
    assert server.received == [Control.CLOSED]


async def test_compression_that_was_not_agreed_on_is_an_error() -> None:
    server = Server()
    async with server.client() as (reader, writer):
        server.may_receive.set()
        writer.write(message(BINARY, b"1", FIN | 0x40))
        assert (await reader.readexactly(4))[2:] == struct.pack(">H", 1002)
    assert server.shown == []
    assert server.received == [Control.CLOSED]


async def test_who_takes_nothing_stops_the_client_in_the_end() -> None:
    """Nothing piles up without bound: past its queue aiohttp does not read."""
    server = Server(takes=lambda _frame: False)
    async with server.client() as (_, writer):
        for _ in range(64):
            writer.write(message(BINARY, bytes(60_000)))
        async with asyncio.timeout(10):
            while server.transport is not None and server.transport.is_reading():  # noqa: ASYNC110 - real sockets
                await asyncio.sleep(0.001)
        server.may_receive.set()
        writer.write(message(CLOSE, b""))
        await server.over.wait()
    assert [len(frame) for frame in server.received[:-1] if isinstance(frame, bytes)] == [60_000] * 64
