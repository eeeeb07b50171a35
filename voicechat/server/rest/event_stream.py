"""Server-sent events: ``data:`` and JSON, then an empty line.

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
    """Send each string of ``events`` as the data of one event.

    A failure before the first event is raised, so that it can be an HTTP status. A
    later one is sent as the last event, formatted by ``failed``. Raises
    ``ClientGoneError`` when the client disconnects or does not read for ``write_ms``.
    ``events`` is always closed.
    """
    # Without the charset some clients decode the text as Latin-1.
    headers = {hdrs.CONTENT_TYPE: f"{CONTENT_TYPE}; charset=utf-8", **STREAMED}
    response = web.StreamResponse(headers=headers)
    async with aclosing(events):
        try:
            async for data in events:
                await _write(request, response, data, write_ms)
        except ServiceFailedError as error:
            if not response.prepared:
                raise
            await _write(request, response, failed(error), write_ms)
    await response.write_eof()
    return response


async def _write(
    request: web.Request, response: web.StreamResponse, data: str, write_ms: int
) -> None:
    space = " " if data == DONE or in_openais_form(request) else ""
    await send_piece(request, response, f"data:{space}{data}\n\n".encode(), write_ms)


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
