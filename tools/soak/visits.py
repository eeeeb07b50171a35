"""One connection brought into each state that a session can be left in."""

import asyncio
import json
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as websockets_connect

from voicechat.client.connection import socket_url
from voicechat.client.conversation import CHAT_PATH
from voicechat.client.recognition import STREAM_PATH

SERVICES = {"model": "default", "asr_easyllm_id": "default", "tts_easyllm_id": "default"}
FRAME = bytes(3200)
ANSWER_S = 30.0
"""For whatever the server says next; embedded recognisers may let a stream wait for its
turn.
"""


@dataclass
class Visit:
    """One client; ``number`` is its own among all."""

    url: str
    key: str
    number: int
    sockets: list[ClientConnection] = field(default_factory=list)
    raw: list[asyncio.StreamWriter] = field(default_factory=list)

    async def leave(self) -> None:
        """Close as a well-behaved client does."""
        for connection in self.sockets:
            await connection.close()
        for writer in self.raw:
            writer.close()

    def cut(self, *, reset: bool) -> None:
        """Vanish without a word: as a process that is killed (FIN), or as a network
        that is gone (RST).
        """
        for transport in [c.transport for c in self.sockets] + [w.transport for w in self.raw]:
            if reset and not transport.is_closing():
                handle = transport.get_extra_info("socket")
                handle.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            transport.abort()

    async def converse(self) -> ClientConnection:
        connection = await self._connect(CHAT_PATH, SERVICES)
        await until(connection, "chat.created")
        return connection

    async def dictate(self, **query: str) -> ClientConnection:
        connection = await self._connect(STREAM_PATH, query)
        await until(connection, "status")
        return connection

    async def _connect(self, path: str, query: Mapping[str, str]) -> ClientConnection:
        connection = await websockets_connect(
            socket_url(self.url, path, query),
            additional_headers={"Authorization": f"Bearer {self.key}"},
            compression=None,
            close_timeout=0.5,  # a client cut off within a frame gets no close frame
        )
        self.sockets.append(connection)
        return connection

    async def knock(self, request: str) -> None:
        """Send the beginning of an HTTP request, and nothing more."""
        address = urlsplit(self.url)
        _, writer = await asyncio.open_connection(address.hostname, address.port)
        self.raw.append(writer)
        writer.write(request.encode())
        await writer.drain()


async def say(connection: ClientConnection, event_type: str, **more: object) -> None:
    await connection.send(json.dumps({"event_type": event_type, **more}))


async def until(connection: ClientConnection, key: str) -> dict[str, Any]:
    """Read until a message that has ``key`` as event type or as a key."""
    async with asyncio.timeout(ANSWER_S):
        while True:
            message: dict[str, Any] = json.loads(await connection.recv())
            if message.get("event_type") == key or key in message:
                return message


async def in_a_turn(visit: Visit) -> ClientConnection:
    """Typed, so that it is answered whatever a recogniser makes of silence."""
    connection = await visit.converse()
    await connection.send(FRAME)
    await say(
        connection,
        "conversation.message.create",
        role="user",
        content="How far is it to the next town?",
    )
    return connection


async def half_a_request(visit: Visit) -> None:
    await visit.knock(
        "GET /api/open-apis/projects/default/chat/speech-chat HTTP/1.1\r\nHost: a\r\nUpg"
    )


async def before_created(visit: Visit) -> None:
    query = f"token={visit.key}&model=default&asr_easyllm_id=default&tts_easyllm_id=default"
    await visit.knock(
        f"GET {CHAT_PATH}?{query} HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: "
        "Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )


async def refused(visit: Visit) -> None:
    connection = await visit._connect(CHAT_PATH, {"model": "default"})
    await until(connection, "chat.created")


async def configuring(visit: Visit) -> None:
    await visit.converse()


async def listening(visit: Visit) -> None:
    connection = await visit.converse()
    for _ in range(3):
        await connection.send(FRAME)


async def in_the_middle_of_a_frame(visit: Visit) -> None:
    connection = await visit.converse()
    connection.transport.write(b"\x82\xfe\x0c\x80" + b"mask" + FRAME[:1000])


async def transcribing(visit: Visit) -> None:
    connection = await visit.converse()
    await connection.send(FRAME)
    await say(connection, "input_audio_buffer.complete")
    await until(connection, "input_audio_buffer.completed")


async def during_text(visit: Visit) -> None:
    await until(await in_a_turn(visit), "choices")


async def during_audio(visit: Visit) -> None:
    await until(await in_a_turn(visit), "audioFrame")


async def canceling(visit: Visit) -> None:
    connection = await in_a_turn(visit)
    await until(connection, "choices")
    await say(connection, "conversation.chat.cancel")


async def after_a_turn(visit: Visit) -> None:
    await until(await in_a_turn(visit), "conversation.chat.completed")


async def while_the_server_closes(visit: Visit) -> None:
    connection = await visit.dictate()
    await connection.send(FRAME)
    await connection.send("BYE")


async def dictating(visit: Visit) -> None:
    connection = await visit.dictate()
    await connection.send(FRAME)


async def detached(visit: Visit) -> None:
    connection = await visit.dictate(session=f"visit-{visit.number}")
    await connection.send(FRAME)


async def resumed(visit: Visit) -> None:
    connection = await visit.dictate(session=f"visit-{visit.number}")
    await connection.send(FRAME)
    connection.transport.abort()
    await visit.dictate(session=f"visit-{visit.number}")


STATES: tuple[Callable[[Visit], Awaitable[None]], ...] = (
    half_a_request,
    before_created,
    refused,
    configuring,
    listening,
    in_the_middle_of_a_frame,
    transcribing,
    during_text,
    during_audio,
    canceling,
    after_a_turn,
    while_the_server_closes,
    dictating,
    detached,
    resumed,
)
