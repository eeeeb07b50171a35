"""Who may come in: the key of a request, and the Origin of the page that sent it.

A key may stand in the ``Authorization`` header or, since a browser's WebSocket cannot set one, in the query. It is
never written to a log, not even in part.
"""

import asyncio
import hmac
import logging
import re
from collections.abc import Collection
from dataclasses import dataclass
from urllib.parse import urlsplit

from aiohttp import hdrs, web

from voicechat.errors import AdmissionError, ConfigError, Status
from voicechat.store.keys import MAX_KEY_CHARACTERS, ApiKey, KeyStore, digest

DEFAULT_PROJECT = "default"
"""Serves requests whose path names no project."""

SECRET_PARAMETERS = ("token", "apikey")
"""Query parameters that hold a key: they must never reach a dialect or a log."""

# "Bearer k" after URL decoding; "Bearer+k" when a client escaped the plus sign of an already escaped space.
_SCHEME = re.compile(r"Bearer[ +]+", re.IGNORECASE)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Principal:
    """Who a request comes from, and for which project."""

    key_id: str
    project: str = DEFAULT_PROJECT


class Authoriser:
    """Decides for each request; one per server.

    ``static_keys`` are keys by id that are known in the clear: the environment's, or the server's own on loopback.
    """

    def __init__(self, keys: KeyStore, static_keys: dict[str, str], allowed_origins: Collection[str] = ()) -> None:
        self._keys = keys
        self._static_digests = {key_id: digest(key) for key_id, key in static_keys.items()}
        self._allowed_origins = frozenset(allowed_origins)

    async def __call__(self, request: web.Request) -> Principal:
        """Admit the request, or raise AdmissionError(NOT_AUTHORISED)."""
        if not origin_allowed(request, self._allowed_origins):
            _log.info("refused %s: its Origin is not allowed", request.remote)
            raise AdmissionError(Status.NOT_AUTHORISED, "pages of this origin may not connect")
        key_id = await self._key_id(request_key(request))
        if key_id is None:
            _log.info("refused %s: no valid key", request.remote)
            raise AdmissionError(Status.NOT_AUTHORISED, "token: a valid key is required")
        return Principal(key_id, request.match_info.get("project", DEFAULT_PROJECT))

    async def _key_id(self, key: str) -> str | None:
        if not key or len(key) > MAX_KEY_CHARACTERS:
            return None
        offered = digest(key)
        for key_id, expected in self._static_digests.items():
            if hmac.compare_digest(expected, offered):
                return key_id
        found = await self._stored_key(key)
        return found.id if found else None

    async def _stored_key(self, key: str) -> ApiKey | None:
        try:
            if self._keys.stale:
                await asyncio.to_thread(self._keys.refresh)
        except ConfigError as error:
            # Nobody is let in on keys that may have been revoked.
            _log.error("%s", error)
            raise AdmissionError(Status.INTERNAL, "the keys cannot be read") from error
        return self._keys.find(key)


def request_key(request: web.Request) -> str:
    """Take the key from a request: its header first, then the query's ``token``, then ``apikey``; else empty."""
    candidates = [request.headers.get(hdrs.AUTHORIZATION, "")]
    candidates += [request.rel_url.query.get(name, "") for name in SECRET_PARAMETERS]
    written = next((candidate for candidate in candidates if candidate), "").strip()
    return _SCHEME.sub("", written, count=1) if _SCHEME.match(written) else written


def origin_allowed(request: web.Request, allowed_origins: Collection[str]) -> bool:
    """Whether the page that sent the request may: no page at all, a page of this very host, or one of the list.

    Only browsers send an Origin, and no page can forge it. Behind a proxy that ends TLS the server does not know its
    own scheme, so host and port are compared, and either web scheme will do.
    """
    origins = request.headers.getall(hdrs.ORIGIN, [])
    if not origins:
        return True
    if len(origins) > 1:
        return False
    if origins[0] in allowed_origins:
        return True
    try:
        origin = urlsplit(origins[0])
    except ValueError:
        return False
    plain = origins[0] == f"{origin.scheme}://{origin.netloc}"
    return plain and origin.scheme in ("http", "https") and origin.netloc == request.host.lower()
