"""The aiohttp application: sockets, health, metrics and the web demo on one port."""

from collections.abc import Iterable

from aiohttp import web

from voicechat.server.access_log import note_route
from voicechat.server.answers import answer_errors
from voicechat.server.connections import note_requests

MAX_BODY_BYTES = 256 * 1024


def build_app(routes: Iterable[web.RouteDef]) -> web.Application:
    """Put routes into an application that answers every error as JSON."""
    app = web.Application(middlewares=[note_requests, note_route, answer_errors], client_max_size=MAX_BODY_BYTES)
    app.add_routes(routes)
    return app
