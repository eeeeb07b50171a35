"""A relay in front of a real server, that notes who ended a connection and whether an
answer was whole.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


@dataclass(eq=False)
class Passage:
    """One connection. ``answered`` grows with every answer on it."""

    requests: int = 0
    answered: bytearray = field(default_factory=bytearray)
    closed_by: str = ""
    closed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def whole_answers(self) -> int:
        """Answers that came to their end: here all are chunked (RFC 9112, section
        7.1).
        """
        return self.answered.count(b"\r\n0\r\n\r\n")


@dataclass
class Relay:
    port: int = 0
    passages: list[Passage] = field(default_factory=list)

    @property
    def chats(self) -> list[Passage]:
        return [passage for passage in self.passages if passage.requests]


@asynccontextmanager
async def relaying(to_port: int) -> AsyncIterator[Relay]:
    relay = Relay()

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        passage = Passage()
        relay.passages.append(passage)
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", to_port)

        async def up() -> None:
            while data := await _read(reader):
                passage.requests += data.count(b"POST /v1/chat/completions")
                server_writer.write(data)
            passage.closed_by = passage.closed_by or "client"

        async def down() -> None:
            while data := await _read(server_reader):
                passage.answered += data
                writer.write(data)
            passage.closed_by = passage.closed_by or "server"

        ends = [asyncio.create_task(up()), asyncio.create_task(down())]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        for end in ends:
            end.cancel()
        writer.close()
        server_writer.close()
        passage.closed.set()

    server = await asyncio.start_server(pass_on, "127.0.0.1", 0)
    relay.port = server.sockets[0].getsockname()[1]
    try:
        yield relay
    finally:
        server.close()


async def _read(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read(65_536)
    except ConnectionError:
        return b""
