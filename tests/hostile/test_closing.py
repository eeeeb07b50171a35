"""The server's last word is read by a client that goes on sending: the connection stays
open, and what comes is dropped, until the client has closed it, too.
"""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.hostile.clients import (
    BINARY,
    CLOSE,
    SERVICES,
    TEXT,
    RawClient,
    all_left,
    frame,
    live_server,
    upgrade,
)
from voicechat.server.frames import DROPPED_BYTES
from voicechat.server.serve import Running

pytestmark = pytest.mark.real_time

AUDIO = frame(BINARY, bytes(64_000)) * 100
"""More than the buffers of both ends hold: it is sent only if the server reads it."""
NOBODY: dict[str, str] = {}
"""A query that is refused: it names no service."""
WAYS = {
    "refused": (NOBODY, b"", 1008, "model"),
    "ended by the session": (SERVICES, frame(TEXT, b"garbage") * 2, 1008, "JSON"),
    "ended by a broken frame": (SERVICES, frame(TEXT, b"unmasked", masked=False), 1002, ""),
}


@asynccontextmanager
async def connected(server: Running) -> AsyncIterator[socket.socket]:
    address = urlsplit(server.url)
    with socket.socket() as client:
        client.setblocking(False)
        await asyncio.get_running_loop().sock_connect(client, (address.hostname, address.port))
        yield client


async def closed(client: socket.socket) -> tuple[int, str]:
    """Read to the close frame; give its code and reason."""
    reader, writer = await asyncio.open_connection(sock=client)
    await reader.readuntil(b"\r\n\r\n")
    reading = RawClient(reader, writer)
    while True:
        opcode, payload = await reading._frame()
        if opcode == CLOSE:
            writer.write(frame(CLOSE, payload[:2]))
            assert await reader.read() == b"", "the server closes when the client has"
            writer.close()
            return struct.unpack(">H", payload[:2])[0], payload[2:].decode()


@pytest.mark.parametrize("way", WAYS)
async def test_the_reason_is_read_by_who_sends_much_before_reading(
    way: str, tmp_path: Path
) -> None:
    query, provocation, code, reason = WAYS[way]
    async with (
        live_server(tmp_path, close_ms=60_000, protocol_errors=1) as server,
        connected(server) as client,
        asyncio.timeout(60),
    ):
        sent = upgrade(server, query=query) + provocation + AUDIO
        await asyncio.get_running_loop().sock_sendall(client, sent)
        told, why = await closed(client)
        assert told == code
        assert reason in why
        await all_left(server, 0)


async def test_who_never_stops_sending_is_cut_off(tmp_path: Path) -> None:
    async with (
        live_server(tmp_path, close_ms=3_600_000) as server,
        connected(server) as client,
        asyncio.timeout(60),
    ):
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(client, upgrade(server, query=NOBODY))
        most = 4 * DROPPED_BYTES // len(AUDIO)
        with pytest.raises(ConnectionError):
            await loop.sock_sendall(client, AUDIO * most)


async def test_who_does_not_answer_is_cut_off(tmp_path: Path) -> None:
    async with (
        live_server(tmp_path, close_ms=100) as server,
        connected(server) as client,
        asyncio.timeout(60),
    ):
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(client, upgrade(server, query=NOBODY))
        while await loop.sock_recv(client, 4096):
            pass
