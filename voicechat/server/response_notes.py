"""Notes to the client in a response header, for example that a different service
answers than the one it named.
"""

from contextvars import ContextVar

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

HEADER = "Voicechat-Note"
"""ASCII; other characters are escaped as in Python strings."""
_notes: ContextVar[list[str] | None] = ContextVar("voicechat.notes", default=None)
_NOTES = web.RequestKey("voicechat.notes", list)


def add_note(text: str) -> None:
    """Add ``text``, unless it is empty, to the response of the request that this task
    serves.
    """
    notes = _notes.get()
    if text and notes is not None:
        notes.append(text)


def send_notes(app: web.Application) -> None:
    """Add the notes to every response of ``app``, if they were added before its headers
    are sent.
    """

    async def add_header(request: web.Request, response: web.StreamResponse) -> None:
        if notes := request.get(_NOTES):
            response.headers[HEADER] = "; ".join(notes).encode("ascii", "backslashreplace").decode()

    app.on_response_prepare.append(add_header)
    app.middlewares.append(_collecting())


def _collecting() -> Middleware:
    @web.middleware
    async def collect(request: web.Request, handler: Handler) -> web.StreamResponse:
        notes: list[str] = []
        request[_NOTES] = notes
        token = _notes.set(notes)
        try:
            return await handler(request)
        finally:
            _notes.reset(token)

    return collect
