"""Server-sent events: ``data:`` and JSON, then an empty line.

The original document writes no space between, and its clients cut five characters off.
OpenAI writes one, and some of its clients look for it: so do the addresses below
``/v1``.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing

from aiohttp import hdrs, web

from voicechat.server.rest.cancel_on_disconnect import ClientGoneError
from voicechat.server.rest.failures import ServiceFailedError

CONTENT_TYPE = "text/event-stream"
DONE = "[DONE]"
"""OpenAI's last event, everywhere with the space before it: no JSON begins so."""
OPENAI_FOLDER = "/v1/"
"""Below it everything has OpenAI's form to the letter."""
STREAMED: Mapping[str, str] = {hdrs.CACHE_CONTROL: "no-cache", "X-Accel-Buffering": "no"}
"""Headers of every body that is made while it is sent, so that no proxy holds it back.
"""


async def answer_with_events(
    request: web.Request,
    events: AsyncGenerator[str, None],
    *,
    write_ms: int,
    failed: Callable[[ServiceFailedError], str],
) -> web.StreamResponse:
    """Send what ``events`` yields, each as the data of one event.

    A failure before the first event is raised: it can still be an HTTP status. A later
    one is sent as the last event, written by ``failed``. Raises ``ClientGoneError``
    when the client has gone or does not read for ``write_ms``. Whatever happens,
    ``events`` is closed.
    """
    # Without the charset some clients take the text for Latin-1.
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
    """Whether the address that was asked promises OpenAI's form, and not the
    document's.
    """
    return request.path.startswith(OPENAI_FOLDER)


async def send_piece(
    request: web.Request, response: web.StreamResponse, piece: bytes, write_ms: int
) -> None:
    """Send the next piece of a body, after the headers if it is the first.

    Raises ``ClientGoneError`` when the client has gone, or has not read for
    ``write_ms``: it is then cut off.
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
    """Drop the connection, so that a client cannot take what it has for the whole
    answer.
    """
    if request.transport is not None:
        request.transport.abort()
