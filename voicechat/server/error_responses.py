"""The form of HTTP errors: ``{"status", "message", "timestamp"}``, with a status of the
wire contract.
"""

import logging
from collections.abc import Awaitable, Callable
from typing import Protocol

from aiohttp import hdrs, web

from voicechat.errors import AdmissionError, RemoteProtocolError, Status
from voicechat.runtime.wall_clock import unix_s
from voicechat.schema.json_text import write_json

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_FORM = "voicechat_error_form"


class ErrorResponder(Protocol):
    """Builds error responses in one form; ``code`` is a service's own code."""

    def __call__(self, status: Status, message: str, code: str = "") -> web.Response:
        """Build a response with the HTTP status of ``status``."""
        ...


def set_error_form(handler: Handler, form: ErrorResponder) -> None:
    """Set the form of the errors that concern the path of ``handler`` and happen
    outside it, as a wrong method does.
    """
    setattr(handler, _FORM, form)


async def _error_form(request: web.Request) -> ErrorResponder:
    """Return the form of a request for whose method its path has no handler."""
    for resource in request.app.router.resources():
        _, methods = await resource.resolve(request)
        for route in resource if methods else ():
            form: ErrorResponder | None = getattr(route.handler, _FORM, None)
            if form is not None:
                return form
    return error_response


_STATUS_OF_HTTP = {
    400: Status.MALFORMED,
    401: Status.NOT_AUTHORISED,
    404: Status.NOT_FOUND,
    405: Status.WRONG_METHOD,
    413: Status.TOO_LARGE,
    503: Status.AT_CAPACITY,
}

_log = logging.getLogger(__name__)


def client_error(error: Exception) -> tuple[Status, str]:
    """Return the status and message that a client may see of an exception.

    The texts of foreign exceptions are only logged.
    """
    match error:
        case AdmissionError() | RemoteProtocolError():
            return error.status, error.message
        case web.HTTPMethodNotAllowed():
            methods = ", ".join(sorted(error.allowed_methods))
            return Status.WRONG_METHOD, f"this path takes {methods}"
        case web.HTTPException():
            status = _STATUS_OF_HTTP.get(
                error.status, Status.MALFORMED if error.status < 500 else Status.INTERNAL
            )
            return (
                status,
                error.reason if status is not Status.NOT_FOUND else "there is nothing here",
            )
        case _:
            _log.error("a request failed", exc_info=error)
            return Status.INTERNAL, "internal error"


def error_response(status: Status, message: str, code: str = "") -> web.Response:
    """Build an error response; the status' first three digits are the HTTP status."""
    body = {"status": int(status), "message": message, "timestamp": int(unix_s() * 1000)}
    return web.json_response(text=write_json(body), status=status // 100)


@web.middleware
async def answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn every exception of a handler into an error response."""
    try:
        return await handler(request)
    except ConnectionError:
        return web.Response()  # The client has disconnected: no response is read.
    except Exception as error:
        if not can_respond(request, error):
            raise
        if not isinstance(error, web.HTTPMethodNotAllowed):
            return error_response(*client_error(error))
        form = await _error_form(request)
        answer = form(*client_error(error))
        answer.headers[hdrs.ALLOW] = error.headers[hdrs.ALLOW]
        return answer


def can_respond(request: web.Request, error: Exception) -> bool:
    """Return whether an error response can still be sent for ``error``: it is not a
    response itself, and nothing has been sent.
    """
    is_answer = isinstance(error, web.HTTPException) and error.status < 400
    return not is_answer and not request.writer.output_size
