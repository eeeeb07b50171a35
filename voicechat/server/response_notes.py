"""What a client is told beside its answer: that something else serves than it named.

In a header of its own.
"""

from contextvars import ContextVar

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

HEADER = "Voicechat-Note"
"""ASCII; anything else stands in it as Python escapes it."""
_notes: ContextVar[list[str] | None] = ContextVar("voicechat.notes", default=None)
_NOTES = web.RequestKey("voicechat.notes", list)


def add_note(text: str) -> None:
    """Let the answer of the request that this task serves say ``text``, unless that is
    empty.
    """
    notes = _notes.get()
    if text and notes is not None:
        notes.append(text)


def send_notes(app: web.Application) -> None:
    """Let every answer of ``app`` carry what was noted before its headers were sent."""

    async def tell(request: web.Request, response: web.StreamResponse) -> None:
        if notes := request.get(_NOTES):
            response.headers[HEADER] = "; ".join(notes).encode("ascii", "backslashreplace").decode()

    app.on_response_prepare.append(tell)
    app.middlewares.append(_gathering())


def _gathering() -> Middleware:
    @web.middleware
    async def gather(request: web.Request, handler: Handler) -> web.StreamResponse:
        notes: list[str] = []
        request[_NOTES] = notes
        token = _notes.set(notes)
        try:
            return await handler(request)
        finally:
            _notes.reset(token)

    return gather
