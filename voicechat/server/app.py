"""The aiohttp application: sockets, health, metrics and the web demo on one port."""

from collections.abc import Iterable

from aiohttp import web

from voicechat.server.access_log import note_route
from voicechat.server.answers import answer_errors
from voicechat.server.connections import note_requests
from voicechat.server.cors import allow_pages
from voicechat.server.notes import tell_notes
from voicechat.server.origins import Origins

MAX_BODY_BYTES = 256 * 1024


def build_app(routes: Iterable[web.RouteDef], origins: Origins | None = None) -> web.Application:
    """Put routes into an application that answers every error as JSON.

    Without ``origins`` no page of another origin may read what it answers.
    """
    app = web.Application(
        middlewares=[note_requests, note_route, answer_errors], client_max_size=MAX_BODY_BYTES
    )
    allow_pages(app, origins or Origins())
    tell_notes(app)
    app.add_routes(routes)
    return app
