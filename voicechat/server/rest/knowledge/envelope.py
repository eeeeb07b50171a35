"""The form of the answers about knowledge bases, and what their endpoints share."""

import asyncio
import math
from collections.abc import Mapping
from datetime import UTC, datetime

from aiohttp import hdrs, web
from pydantic import Field

from voicechat.errors import RemoteProtocolError, Status
from voicechat.knowledge.interface import MAX_PAGE_SIZE, KnowledgeScope
from voicechat.names import quoted
from voicechat.runtime.wall_clock import unix_s
from voicechat.schema.json_text import write_json
from voicechat.server.auth import Principal
from voicechat.server.knowledge import AgentsKnowledge
from voicechat.server.rest.event_stream import send_piece
from voicechat.server.rest.operation import Parameter
from voicechat.server.rest.schemas import ResponseModel

SUCCEEDED = "请求成功"
"""The message of the document's answers."""
PAGE_SIZE = 10
"""The items of a page, unless the client wants another number."""
PIECE_CHARACTERS = 64 * 1024
"""Characters that are written as JSON at once: 0.2 ms."""
EMPTY_CONTENT = '"content":""'
JSON_UTF_8 = "application/json; charset=utf-8"
_MOST_DIGITS = 9


def now_ms() -> int:
    """Return the Unix time in milliseconds."""
    return int(unix_s() * 1000)


class KnowledgeAnswer(ResponseModel):
    """An answer of the document, without a result."""

    status: int = 0
    message: str = SUCCEEDED
    timestamp: int = Field(default_factory=now_ms)
    """Unix time in milliseconds."""


class KnowledgePage(ResponseModel):
    """A page of a list, without its items."""

    pageNum: int  # noqa: N815 - the document's name
    """The number of the page, from 1."""
    pageSize: int  # noqa: N815 - the document's name
    """Most items of a page."""
    size: int
    """Items of this page."""
    pages: int
    total: int
    """Items of all pages."""


PAGE_PARAMETERS = (
    Parameter(
        "query", "pageNum", "The page, from 1.", {"type": "integer", "minimum": 1, "default": 1}
    ),
    Parameter(
        "query",
        "pageSize",
        "Items of a page.",
        {"type": "integer", "minimum": 1, "maximum": MAX_PAGE_SIZE, "default": PAGE_SIZE},
    ),
)


def answer_with(answer: KnowledgeAnswer) -> web.Response:
    """Build the response of an answer."""
    return web.json_response(text=answer.model_dump_json())


async def answer_in_pieces(
    request: web.Request, answer: str, content: str, *, write_ms: int
) -> web.StreamResponse:
    """Send an answer, as JSON, with ``content`` in place of its empty ``content``.

    A document may have millions of characters: writing them as JSON at once would hold
    the event loop. Raises ``ClientGoneError`` if the client does not read for
    ``write_ms``.
    """
    before, quotes, after = answer.partition(EMPTY_CONTENT)
    assert quotes, "the answer has an empty content"
    response = web.StreamResponse(headers={hdrs.CONTENT_TYPE: JSON_UTF_8})
    await response.prepare(request)

    async def write(text: str) -> None:
        await send_piece(request, response, text.encode(), write_ms)
        await asyncio.sleep(0)  # a write that has room does not let other sessions run

    await write(before + EMPTY_CONTENT[:-1])
    for at in range(0, len(content), PIECE_CHARACTERS):
        await write(write_json(content[at : at + PIECE_CHARACTERS])[1:-1])
    await write('"' + after)
    await response.write_eof()
    return response


def written_time(time_s: float) -> str:
    """Return a Unix time as the document does, ``2025-03-17T06:21:09.175+00:00``."""
    return datetime.fromtimestamp(time_s, UTC).isoformat(timespec="milliseconds")


def read_page(query: Mapping[str, str]) -> tuple[int, int]:
    """Return ``pageNum`` and ``pageSize``. Raises ``RemoteProtocolError``."""
    return (
        _read_number(query, "pageNum", 1, 10**_MOST_DIGITS - 1),
        _read_number(query, "pageSize", PAGE_SIZE, MAX_PAGE_SIZE),
    )


def _read_number(query: Mapping[str, str], name: str, default: int, most: int) -> int:
    text = query.get(name, "")
    if not text:
        return default
    number = int(text) if text.isascii() and text.isdecimal() and len(text) <= _MOST_DIGITS else 0
    if not 1 <= number <= most:
        message = f"{name}: {quoted(text)} is not a whole number from 1 to {most}"
        raise RemoteProtocolError(Status.INVALID_PARAMETER, message)
    return number


def page_fields(count: int, total: int, number: int, size: int) -> dict[str, int]:
    """Return the fields of a page of ``count`` items."""
    return {
        "pageNum": number,
        "pageSize": size,
        "size": count,
        "pages": math.ceil(total / size),
        "total": total,
    }


def scope_of(request: web.Request, principal: Principal, agents: AgentsKnowledge) -> KnowledgeScope:
    """Return the knowledge base that a request is about. Raises
    ``RemoteProtocolError`` (NOT_FOUND).
    """
    base = agents.base_of(request.match_info["serviceId"])
    return KnowledgeScope(project=principal.project, base=base)
