"""A chat endpoint that fails as it is told to, with real sockets."""

import asyncio
import json
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TypeAlias

from tests.unused_port import unused_port

HEADERS = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
)
RESET = struct.pack("ii", 1, 0)
"""``SO_LINGER`` with no time: closing sends RST."""

Fault: TypeAlias = Callable[[asyncio.StreamWriter], Awaitable[None]]


def event(text: str) -> bytes:
    content = json.dumps(
        {"choices": [{"index": 0, "delta": {"content": text}}]}, ensure_ascii=False
    )
    return f"data: {content}\n\n".encode()


def chunk(body: bytes) -> bytes:
    return f"{len(body):x}\r\n".encode() + body + b"\r\n"


def sends(*pieces: bytes, then: str = "close") -> Fault:
    """Send the pieces one after the other; then ``close``, ``hang`` until the client
    goes, or ``reset``.
    """

    async def answer(writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.01)
        if then == "hang":
            await writer.wait_closed()
        if then == "reset":
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            writer.transport.abort()

    return answer


def status(line: str, *headers: str, body: bytes = b"") -> bytes:
    told = [f"HTTP/1.1 {line}", *headers, f"Content-Length: {len(body)}"]
    return ("\r\n".join(told) + "\r\n\r\n").encode() + body


HELLO = chunk(event("Hello"))
DONE = chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"
_CUT = event("你好")
_INSIDE = _CUT.index("好".encode()) + 1

FAULTS: Mapping[str, Fault] = {
    "accepts and says nothing": sends(then="hang"),
    "sends half of the headers": sends(HEADERS[:30], then="hang"),
    "sends headers and no body": sends(HEADERS, then="hang"),
    "sends keep-alives only": sends(HEADERS, *[chunk(b": wait\n\n")] * 3, then="hang"),
    "falls silent in the body": sends(HEADERS, HELLO, then="hang"),
    "ends before its closing word": sends(HEADERS, HELLO, b"0\r\n\r\n"),
    "closes in the middle of an event": sends(HEADERS, HELLO, chunk(event(" there")[:20])),
    "resets the connection before the body": sends(HEADERS, then="reset"),
    "resets the connection in the body": sends(HEADERS, HELLO, then="reset"),
    "does not speak HTTP": sends(b"SSH-2.0-OpenSSH_9.2\r\n"),
    "answers with a web page": sends(
        status("200 OK", "Content-Type: text/html", body=b"<html>" * 10)
    ),
    "sends events that are no JSON": sends(HEADERS, chunk(b"data: <html>\n\n"), DONE),
    "is busy (429, Retry-After)": sends(status("429 Too Many Requests", "Retry-After: 60")),
    "refuses the request (400)": sends(status("400 Bad Request")),
    "is broken (500)": sends(status("500 Internal Server Error")),
    "redirects elsewhere": sends(status("307 Temporary Redirect", "Location: http://127.0.0.1:9/")),
    "cuts a line inside a character": sends(
        HEADERS, chunk(_CUT[:_INSIDE]), chunk(_CUT[_INSIDE:]), DONE
    ),
}


@asynccontextmanager
async def faulty(fault: Fault) -> AsyncIterator[str]:
    """Serve an endpoint with that fault; give its base URL."""
    writers: list[asyncio.StreamWriter] = []
    serving: list[asyncio.Task[None]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        task = asyncio.current_task()
        assert task is not None
        serving.append(task)
        try:
            await reader.readuntil(b"\r\n\r\n")
            await fault(writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client has gone, which is what a test of faults provokes
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()
        await asyncio.gather(*serving, return_exceptions=True)


@asynccontextmanager
async def refusing() -> AsyncIterator[str]:
    """Give the base URL of a port that nobody listens on."""
    yield f"http://127.0.0.1:{unused_port()}/v1"


@asynccontextmanager
async def not_accepting() -> AsyncIterator[str]:
    """Give the base URL of a port whose queue is full: connecting hangs."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        fillers = [socket.socket() for _ in range(3)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        try:
            yield f"http://127.0.0.1:{full.getsockname()[1]}/v1"
        finally:
            for filler in fillers:
                filler.close()
