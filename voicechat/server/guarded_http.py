"""HTTP to addresses that clients name, for the package ``mcp``: ``httpx2`` on top of
the guarded sockets of ``fetch``.

Every request is checked, including redirects. An answer has at most
``MAX_ANSWER_BYTES`` and is never decompressed.
"""

import asyncio
from collections.abc import AsyncIterator

import httpx2
from aiohttp import ClientError, ClientResponse, ClientSession, ClientTimeout, DummyCookieJar, hdrs
from aiohttp.abc import AbstractResolver
from typing_extensions import override
from yarl import URL

from voicechat.server.fetch import CONNECT_S, AddressGuard, FetchPolicy, check_address

MAX_ANSWER_BYTES = 512 * 1024
"""Bound of one answer, and of one stream of events. Processing this much at once blocks
the event loop for 5 ms.
"""
PIECE_BYTES = 64 * 1024
LAST_WORDS_S = 0.5
"""Time limit for the request that ends a session."""
_OURS = frozenset({"host", "accept-encoding", "content-length", "transfer-encoding", "connection"})
"""Request headers that this transport sets itself."""


class GuardedTransport(httpx2.AsyncBaseTransport):
    """Carries the requests of one ``httpx2.AsyncClient``."""

    def __init__(self, policy: FetchPolicy, resolver: AbstractResolver) -> None:
        self._policy = policy
        self._session = ClientSession(
            connector=AddressGuard(policy).connector(resolver),
            timeout=ClientTimeout(total=None, sock_connect=CONNECT_S),
            cookie_jar=DummyCookieJar(),
            trust_env=False,
            auto_decompress=False,
        )

    @override
    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request. Raises ``httpx2.TransportError``."""
        url = URL(str(request.url), encoded=True)
        try:
            check_address(url, self._policy)
            body = await request.aread()
            headers = [(k, v) for k, v in request.headers.multi_items() if k.lower() not in _OURS]
            headers.append((hdrs.ACCEPT_ENCODING, "identity"))
            bye = request.method == "DELETE"
            async with asyncio.timeout(LAST_WORDS_S if bye else None):
                answer = await self._session.request(
                    request.method, url, headers=headers, data=body, allow_redirects=False
                )
        except (ClientError, OSError, ValueError, TimeoutError) as error:
            raise httpx2.ConnectError(type(error).__name__, request=request) from None
        if answer.headers.get(hdrs.CONTENT_ENCODING, "identity") != "identity":
            answer.close()
            raise httpx2.ReadError("compressed content, unasked", request=request)
        return httpx2.Response(
            answer.status,
            headers=list(answer.headers.items()),
            stream=_BoundedStream(answer),
            request=request,
        )

    @override
    async def aclose(self) -> None:
        """Close all connections."""
        await self._session.close()


class _BoundedStream(httpx2.AsyncByteStream):
    """The body of a server's answer, up to a bound."""

    def __init__(self, answer: ClientResponse) -> None:
        self._answer = answer

    @override
    async def __aiter__(self) -> AsyncIterator[bytes]:
        read_bytes = 0
        try:
            async for piece in self._answer.content.iter_chunked(PIECE_BYTES):
                read_bytes += len(piece)
                if read_bytes > MAX_ANSWER_BYTES:
                    raise httpx2.ReadError(f"more than {MAX_ANSWER_BYTES} bytes")
                yield piece
        except (ClientError, OSError) as error:
            raise httpx2.ReadError(type(error).__name__) from None

    @override
    async def aclose(self) -> None:
        self._answer.close()
