"""Bodies sent piece by piece: server-sent events, which are ``data:`` and JSON, then an
empty line; and JSON lines.

The original document writes no space after the colon, and its clients cut off five
characters. OpenAI writes one, and some of its clients expect it: paths under ``/v1``
have it.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing

from aiohttp import hdrs, web

from voicechat.server.rest.cancel_on_disconnect import ClientGoneError
from voicechat.server.rest.failures import ServiceFailedError

CONTENT_TYPE = "text/event-stream"
JSON_LINES = "application/x-ndjson"
DONE = "[DONE]"
"""OpenAI's last event, on every path with the space before it: no JSON begins like
this.
"""
OPENAI_FOLDER = "/v1/"
"""Responses under this path have exactly OpenAI's form."""
STREAMED: Mapping[str, str] = {hdrs.CACHE_CONTROL: "no-cache", "X-Accel-Buffering": "no"}
"""Headers of every streamed body; they keep proxies from buffering it."""


async def answer_with_events(
    request: web.Request,
    events: AsyncGenerator[str, None],
    *,
    write_ms: int,
    failed: Callable[[ServiceFailedError], str],
) -> web.StreamResponse:
    """Send each string of ``events`` as the data of one event; see
    ``answer_with_pieces``.
    """

    def encode(data: str) -> bytes:
        return (
            event(data) if data == DONE or in_openais_form(request) else f"data:{data}\n\n".encode()
        )

    return await answer_with_pieces(
        request,
        events,
        content_type=CONTENT_TYPE,
        encode=encode,
        write_ms=write_ms,
        failed=failed,
    )


async def answer_with_pieces(
    request: web.Request,
    pieces: AsyncGenerator[str, None],
    *,
    content_type: str,
    encode: Callable[[str], bytes],
    write_ms: int,
    failed: Callable[[ServiceFailedError], str],
) -> web.StreamResponse:
    """Send each string of ``pieces``, encoded by ``encode``, as soon as it comes.

    A failure before the first piece is raised, so that it can be an HTTP status. A
    later one is sent as the last piece, formatted by ``failed``. Raises
    ``ClientGoneError`` when the client disconnects or does not read for ``write_ms``.
    ``pieces`` is always closed.
    """
    # Without the charset some clients decode the text as Latin-1.
    headers = {hdrs.CONTENT_TYPE: f"{content_type}; charset=utf-8", **STREAMED}
    response = web.StreamResponse(headers=headers)
    async with aclosing(pieces):
        try:
            async for piece in pieces:
                await send_piece(request, response, encode(piece), write_ms)
        except ServiceFailedError as error:
            if not response.prepared:
                raise
            await send_piece(request, response, encode(failed(error)), write_ms)
    await response.write_eof()
    return response


def event(data: str) -> bytes:
    """Encode an event with a space after the colon."""
    return f"data: {data}\n\n".encode()


def line(text: str) -> bytes:
    """Encode one of several lines."""
    return f"{text}\n".encode()


def in_openais_form(request: web.Request) -> bool:
    """Return whether the request's path promises OpenAI's form instead of the
    document's.
    """
    return OPENAI_FOLDER in request.path and not request.path.startswith("/api/")


async def send_piece(
    request: web.Request, response: web.StreamResponse, piece: bytes, write_ms: int
) -> None:
    """Send the next piece of a body, and the headers before the first one.

    Raises ``ClientGoneError`` when the client has disconnected, or has not read for
    ``write_ms``; its connection is then aborted.
    """
    try:
        async with asyncio.timeout(write_ms / 1000):
            if not response.prepared:
                await response.prepare(request)
            await response.write(piece)
    except ConnectionError:
        raise ClientGoneError from None
    except TimeoutError:
        cut_off(request)
        raise ClientGoneError from None


def cut_off(request: web.Request) -> None:
    """Abort the connection, so that the client cannot take a partial response for a
    complete one.
    """
    if request.transport is not None:
        request.transport.abort()
