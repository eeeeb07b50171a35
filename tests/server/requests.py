"""Requests that no socket has brought."""

from typing import Any
from unittest.mock import Mock

from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from multidict import CIMultiDict


def request(
    host: str, *origins: str, port: int = 8000, peer: str = "192.0.2.1", **more: Any
) -> web.Request:
    """A request that came to ``port``, with these headers."""
    transport: Any = Mock()
    transport.get_extra_info = lambda name, default=None: {
        "sockname": ("127.0.0.1", port),
        "peername": (peer, 50_000),
    }.get(name, default)
    headers = [("Host", host), *(("Origin", origin) for origin in origins)]
    headers += [(name.replace("_", "-"), value) for name, value in more.items()]
    return make_mocked_request("GET", "/", CIMultiDict(headers), transport=transport)
