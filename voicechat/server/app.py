"""The aiohttp application: sockets, health, metrics and the web demo on one port."""

from collections.abc import Iterable

from aiohttp import web

from voicechat.server.access_log import note_route
from voicechat.server.connections import track_requests
from voicechat.server.cors import allow_pages
from voicechat.server.error_responses import answer_errors
from voicechat.server.origins import Origins
from voicechat.server.response_notes import send_notes

MAX_BODY_BYTES = 256 * 1024


def build_app(routes: Iterable[web.RouteDef], origins: Origins | None = None) -> web.Application:
    """Build an application of ``routes`` that answers every error as JSON.

    Without ``origins`` pages of other origins cannot read its responses.
    """
    app = web.Application(
        middlewares=[track_requests, note_route, answer_errors], client_max_size=MAX_BODY_BYTES
    )
    allow_pages(app, origins or Origins())
    send_notes(app)
    app.add_routes(routes)
    return app
