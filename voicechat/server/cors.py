"""CORS, and OPTIONS in general.

Keys come in a header or in the query and never as a cookie, so responses never allow
credentials in the browser's sense.
"""

import re

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

from voicechat.server.origins import Origins
from voicechat.server.response_notes import HEADER as NOTE

MAX_AGE_S = 600
"""How long a browser may cache a preflight response."""
EXPOSED = f"Retry-After, WWW-Authenticate, Content-Disposition, {NOTE}"
"""Response headers that a page may read besides the CORS-safelisted ones."""
USUAL_HEADERS = "authorization, content-type, idempotency-key"
_HEADERS = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~, \-]{1,2000}")
_PRIVATE_NETWORK = "Access-Control-Request-Private-Network"


def allow_pages(app: web.Application, origins: Origins) -> None:
    """Let pages of the allowed origins read the responses of ``app``, and answer
    OPTIONS on every path.
    """

    async def mark(request: web.Request, response: web.StreamResponse) -> None:
        origin = request.headers.get(hdrs.ORIGIN)
        if origin is None or not origins.allows(origin):
            return
        response.headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = "*" if origins.allow_all else origin
        response.headers[hdrs.ACCESS_CONTROL_EXPOSE_HEADERS] = EXPOSED
        if not origins.allow_all:
            response.headers.add(hdrs.VARY, hdrs.ORIGIN)

    app.on_response_prepare.append(mark)
    app.middlewares.append(_options_of(origins))


def _options_of(origins: Origins) -> Middleware:
    @web.middleware
    async def answer_options(request: web.Request, handler: Handler) -> web.StreamResponse:
        """Return the methods of a path, and for a preflight request what the page may
        send.
        """
        found = request.match_info.http_exception
        if request.method != hdrs.METH_OPTIONS or not isinstance(found, web.HTTPMethodNotAllowed):
            return await handler(request)
        methods = ", ".join(sorted({*found.allowed_methods, hdrs.METH_OPTIONS}))
        headers: dict[str, str] = {hdrs.ALLOW: methods}
        origin = request.headers.get(hdrs.ORIGIN)
        if origin is not None and origins.allows(origin):
            wanted = request.headers.get(hdrs.ACCESS_CONTROL_REQUEST_HEADERS, "")
            headers |= {
                hdrs.ACCESS_CONTROL_ALLOW_METHODS: methods,
                hdrs.ACCESS_CONTROL_ALLOW_HEADERS: wanted
                if _HEADERS.fullmatch(wanted)
                else USUAL_HEADERS,
                hdrs.ACCESS_CONTROL_MAX_AGE: str(MAX_AGE_S),
            }
            if request.headers.get(_PRIVATE_NETWORK) == "true":
                headers["Access-Control-Allow-Private-Network"] = "true"
        return web.Response(status=204, headers=headers)

    return answer_options
