"""What is logged of HTTP: nothing that a client wrote. No query, no path text, no
header, no malformed line.
"""

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
    """Remember for the log which route matched: a request that cannot be parsed never
    has one.
    """
    resource = request.match_info.route.resource
    if resource is not None:
        request[_ROUTE] = resource.canonical
    return await handler(request)


class AccessLogger(AbstractAccessLogger):
    """Logs one line per request, with the route instead of the path: keys stand in
    queries, and now and then in paths.

    A socket's line is written at its end.
    """

    @property
    def enabled(self) -> bool:
        """Whether lines are wanted at all."""
        return self.logger.isEnabledFor(logging.INFO)

    def log(self, request: web.BaseRequest, response: web.StreamResponse, time: float) -> None:
        """Write the line. ``time`` is the seconds that the request took; a socket's
        whole life.
        """
        route = request.get(_ROUTE, "(no route)")
        method = request.method if request.method in _METHODS else "(other)"
        sender = plain_address(request.remote or "")
        self.logger.info("%s %s %s %d %.3f s", sender, method, route, response.status, time)


def without_request_text(record: logging.LogRecord) -> bool:
    """Keep a record of aiohttp's out of the log when it quotes a request that could not
    be parsed.

    Such a line may hold a key, and anybody can send any number of them; the access log
    tells of each with status 400.
    """
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


def silence_subprotocols() -> None:
    """Keep the subprotocols that clients offer out of the log: some carry their keys in
    them.

    aiohttp's logger of WebSockets says nothing else.
    """
    ws_logger.addFilter(lambda _: False)
