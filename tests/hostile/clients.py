"""A live server with scripted services, and a client that writes WebSocket frames by
hand, wrong ones too.
"""

import asyncio
import json
import socket
import struct
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from voicechat.client.conversation import CHAT_PATH
from voicechat.config import load_config
from voicechat.runtime.services import Services
from voicechat.server.serve import Running, credentials, serving
from voicechat.testing.scripted import ScriptedModel, ScriptedRecognizer, ScriptedSynthesizer

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
FIN = 0x80
SERVICES = {"model": "default", "asr_easyllm_id": "default", "tts_easyllm_id": "default"}
ANSWER_S = 30.0
_MASK = b"\x11\x22\x33\x44"


def scripted_services(reply: tuple[str, ...] = ("Hello there. ", "How are you?")) -> Services:
    return Services(
        {"default": ScriptedRecognizer(final_ms=20)},
        {"default": ScriptedModel((reply,), first_ms=20, delta_ms=5)},
        {"default": ScriptedSynthesizer(first_ms=5, chunk_delay_ms=2)},
    )


@asynccontextmanager
async def live_server(
    directory: Path, services: Services | None = None, **limits: int
) -> AsyncIterator[Running]:
    environ = {"VOICECHAT_DATA_DIR": str(directory)}
    config = load_config(None, environ, {"server": {"port": 0, "drain_s": 0.0}, "limits": limits})
    async with serving(
        config, services or scripted_services(), credentials(config), lambda _: None
    ) as server:
        yield server


@dataclass
class Closed:
    """How a connection ended: with a code, or without a word (None)."""

    code: int | None


@dataclass
class RawClient:
    """Knows just enough of RFC 6455 to break it."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    seen: list[dict[str, Any]] = field(default_factory=list)

    def write(self, raw: bytes) -> None:
        self.writer.write(raw)

    def frame(
        self, opcode: int, payload: bytes = b"", *, first_bits: int = FIN, masked: bool = True
    ) -> None:
        self.write(frame(opcode, payload, first_bits=first_bits, masked=masked))

    def text(self, text: str | bytes) -> None:
        self.frame(TEXT, text.encode() if isinstance(text, str) else text)

    def event(self, event_type: str, **more: object) -> None:
        self.text(json.dumps({"event_type": event_type, **more}))

    async def next(self) -> dict[str, Any] | Closed:
        """The next message, or how the connection ended. Pings are left unanswered."""
        async with asyncio.timeout(ANSWER_S):
            while True:
                try:
                    opcode, payload = await self._frame()
                except (asyncio.IncompleteReadError, ConnectionError):
                    return Closed(None)
                if opcode == TEXT:
                    message: dict[str, Any] = json.loads(payload)
                    self.seen.append(message)
                    return message
                if opcode == CLOSE:
                    return Closed(struct.unpack(">H", payload[:2])[0] if payload else None)

    async def until(self, event_type: str) -> dict[str, Any]:
        while True:
            message = await self.next()
            assert not isinstance(message, Closed), (
                f"closed with {message.code} before {event_type}"
            )
            if message.get("event_type") == event_type:
                return message

    async def closed(self) -> int | None:
        """Read on to the end; give the close code."""
        while not isinstance(message := await self.next(), Closed):
            pass
        return message.code

    async def goes_on(self) -> None:
        """The session lives: a ping is answered."""
        self.event("ping")
        await self.until("pong")

    async def _frame(self) -> tuple[int, bytes]:
        first, second = await self.reader.readexactly(2)
        length = second & 0x7F
        if length == 126:
            length = struct.unpack(">H", await self.reader.readexactly(2))[0]
        elif length == 127:
            length = struct.unpack(">Q", await self.reader.readexactly(8))[0]
        return first & 0x0F, await self.reader.readexactly(length)


def frame(
    opcode: int, payload: bytes = b"", *, first_bits: int = FIN, masked: bool = True
) -> bytes:
    bit = 0x80 if masked else 0
    if len(payload) < 126:
        length = bytes([bit | len(payload)])
    elif len(payload) < 1 << 16:
        length = struct.pack(">BH", bit | 126, len(payload))
    else:
        length = struct.pack(">BQ", bit | 127, len(payload))
    if not masked:
        return bytes([first_bits | opcode]) + length + payload
    mask = (_MASK * (len(payload) // 4 + 1))[: len(payload)]
    hidden = (int.from_bytes(payload, "big") ^ int.from_bytes(mask, "big")).to_bytes(
        len(payload), "big"
    )
    return bytes([first_bits | opcode]) + length + _MASK + hidden


def upgrade(
    server: Running, path: str = CHAT_PATH, query: Mapping[str, str] = SERVICES, headers: str = ""
) -> bytes:
    target = f"{path}?{urlencode({**query, 'token': server.key or ''})}"
    return (
        f"GET {target} HTTP/1.1\r\nHost: {urlsplit(server.url).netloc}\r\nUpgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        f"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
    ).encode()


@asynccontextmanager
async def tcp(server: Running, *, receive_buffer_bytes: int = 0) -> AsyncIterator[RawClient]:
    address = urlsplit(server.url)
    handle = socket.socket()
    handle.setblocking(False)
    if receive_buffer_bytes:
        handle.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
    await asyncio.get_running_loop().sock_connect(handle, (address.hostname, address.port))
    reader, writer = await asyncio.open_connection(sock=handle, limit=2**14)
    try:
        yield RawClient(reader, writer)
    finally:
        writer.transport.abort()


@asynccontextmanager
async def raw_client(
    server: Running,
    path: str = CHAT_PATH,
    query: Mapping[str, str] = SERVICES,
    *,
    receive_buffer_bytes: int = 0,
) -> AsyncIterator[RawClient]:
    """Upgraded; on speech-chat, ``chat.created`` is still to be read."""
    async with tcp(server, receive_buffer_bytes=receive_buffer_bytes) as client:
        client.write(upgrade(server, path, query))
        head = await client.reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101"), head
        yield client


@asynccontextmanager
async def conversation(
    server: Running, *, receive_buffer_bytes: int = 0
) -> AsyncIterator[RawClient]:
    async with raw_client(server, receive_buffer_bytes=receive_buffer_bytes) as client:
        created = await client.until("chat.created")
        assert created["status"] == 0, created
        yield client


async def all_left(server: Running, sessions: int, within_s: float = 30) -> None:
    """Wait until so few sessions are open."""
    async with asyncio.timeout(within_s):
        while server.admission.sessions != sessions:  # noqa: ASYNC110 - the end of a session is told to nobody
            await asyncio.sleep(0.01)
