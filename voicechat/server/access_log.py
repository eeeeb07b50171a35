"""HTTP logging without client input: no query, path, header or malformed line."""

import logging
from collections.abc import Awaitable, Callable

from aiohttp import web
from aiohttp.abc import AbstractAccessLogger
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.log import ws_logger

from voicechat.server.origins import plain_address

_ROUTE = web.RequestKey("voicechat.route", str)
_METHODS = ("GET", "POST", "HEAD", "OPTIONS")


@web.middleware
async def note_route(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Remember the matched route for the access log. A request that cannot be parsed
    has none.
    """
    resource = request.match_info.route.resource
    if resource is not None:
        request[_ROUTE] = resource.canonical
    return await handler(request)


class AccessLogger(AbstractAccessLogger):
    """Logs one line per request, with the route instead of the path, because queries
    and sometimes paths hold keys.

    The line of a socket is written when it closes.
    """

    @property
    def enabled(self) -> bool:
        """Whether the log level includes these lines."""
        return self.logger.isEnabledFor(logging.INFO)

    def log(self, request: web.BaseRequest, response: web.StreamResponse, time: float) -> None:
        """Write the line. ``time`` is the duration of the request or of the socket, in
        seconds.
        """
        route = request.get(_ROUTE, "(no route)")
        method = request.method if request.method in _METHODS else "(other)"
        sender = plain_address(request.remote or "")
        self.logger.info("%s %s %s %d %.3f s", sender, method, route, response.status, time)


def without_request_text(record: logging.LogRecord) -> bool:
    """Log filter: reject aiohttp's records that quote a request that could not be
    parsed.

    Such a line may hold a key, and anyone can cause any number of them. The access log
    has a line with status 400 for each.
    """
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


def silence_subprotocols() -> None:
    """Keep the subprotocols that clients offer out of the log: some carry a key.

    aiohttp's WebSocket logger logs nothing else.
    """
    ws_logger.addFilter(lambda _: False)
