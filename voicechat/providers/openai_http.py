"""The HTTP client for OpenAI-compatible services: warm connections, and the mapping of
failures.
"""

import asyncio
import logging
import re
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TypeAlias

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from voicechat.errors import ConfigError, FailureKind, ProviderError
from voicechat.providers.openai_errors import refusal, reported_in
from voicechat.proxies import proxy_of

PROVIDER = "openai"

CONNECT_MS = 3_000
READ_TIMEOUT_MS = 300_000
"""A backstop behind the engine's own deadlines."""
KEEP_WARM_S = 300
"""How long an idle connection is kept: a TLS handshake costs two round trips before the
first token.
"""
END_MS = 50
"""How long the end of the body may take after the last useful piece. A server that
delays it loses its connection.
"""
AWAY = (429, 502, 503, 504)
"""Statuses that make a probe fail: too many requests, or a proxy without a server
behind it.
"""
ANSWERED = (200, 201, 202, 203)
"""Statuses of an answer with a body."""
MAX_ERROR_BYTES = 16 * 1024
ERROR_BODY_MS = 1_000
"""Bytes of an error's body that are read, and the time limit for reading them."""

ENDPOINTS = ("chat/completions", "audio/speech", "audio/transcriptions", "embeddings")
"""The paths under a base URL, besides ``models``."""
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
"""A token (RFC 9110, 5.6.2)."""

logger = logging.getLogger(__name__)

Body: TypeAlias = bytes | Callable[[], aiohttp.FormData]
"""JSON, or a function that makes the form, because a form can be sent only once."""


class OpenAIEndpoint:
    """One base URL with its key. All sessions share its warm connections."""

    def __init__(
        self,
        base_url: str,
        api_key: str,
        *,
        connect_ms: int = CONNECT_MS,
        read_timeout_ms: int = READ_TIMEOUT_MS,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """``base_url`` may have a query, which every request carries. ``headers`` are
        sent with every request.

        ``connect_ms``: limit for a TCP connection. ``read_timeout_ms``: limit between
        two pieces of an answer. Raises `ConfigError` for unusable values.
        """
        self._base_url = _checked_url(base_url)
        if not (api_key.isascii() and api_key.isprintable()):
            raise ConfigError("api_key: has characters that no HTTP header can carry")
        # A configured header replaces ours, whatever the case of its name.
        self._headers = CIMultiDict({"Authorization": f"Bearer {api_key}"} if api_key else {})
        self._headers.update(_checked_headers(headers or {}))
        self._host = URL(self._base_url).authority.rpartition("@")[2]
        self._proxy = proxy_of(self._base_url)
        self._timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=connect_ms / 1000, sock_read=read_timeout_ms / 1000
        )
        self._models_timeout = aiohttp.ClientTimeout(total=connect_ms / 1000)
        self._client: aiohttp.ClientSession | None = None
        self._closed = False

    async def start(self) -> None:
        """Open a connection, so that the first request finds it warm. An endpoint that
        is down does not raise.

        It may come up later; ``voicechat doctor`` reports the reason.
        """
        try:
            await self._look_up_models()
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            logger.warning("openai: %s cannot be reached yet: %s", self._host, type(error).__name__)

    async def probe(self) -> None:
        """Request the list of models, which costs nothing and loads no model. Any
        answer counts as alive.

        That includes 401, 404 and 500: self-hosted servers may have no such list, or
        require another key for it, and work all the same. Raises `ProviderError`:
        without an answer as `post` does (within ``connect_ms``), and for a status in
        ``AWAY``.
        """
        with _failures_mapped(self._host):
            response = await self._look_up_models()
        if response.status in AWAY:
            raise refusal(PROVIDER, response.status, b"", response.headers)

    async def aclose(self) -> None:
        """Close all connections; requests in progress fail."""
        self._closed = True
        if self._client is not None:
            await self._client.close()

    @asynccontextmanager
    async def post(
        self, path: str, body: Body, headers: dict[str, str]
    ) -> AsyncGenerator[aiohttp.ClientResponse, None]:
        """Send a request; yields the answer, whose status is one of ``ANSWERED``.

        Leaving the context early closes the connection. Raises `ProviderError`, also
        for errors of reading within the context: TIMEOUT (connecting, silence, 408),
        RATE_LIMIT (429), REJECTED (other 4xx; 400, 413 and 422 as
        `RequestRefusedError`), CONNECTIVITY (refused, reset, 5xx), BROKEN (another
        status, no HTTP).
        """
        with _failures_mapped(self._host):
            async with await self._sent(self._url(path), body, headers) as response:
                if response.status not in ANSWERED:
                    raise await _refusal(response)
                yield response

    @asynccontextmanager
    async def get(self, path: str) -> AsyncGenerator[aiohttp.ClientResponse, None]:
        """Send a GET request to a path; otherwise as `post`."""
        with _failures_mapped(self._host):
            async with self._opened().get(
                self._url(path), headers=self._headers, allow_redirects=False, proxy=self._proxy
            ) as response:
                if response.status not in ANSWERED:
                    raise await _refusal(response)
                yield response

    @asynccontextmanager
    async def delete(self, path: str) -> AsyncGenerator[aiohttp.ClientResponse, None]:
        """Send a DELETE request to a path; otherwise as `post`."""
        with _failures_mapped(self._host):
            async with self._opened().delete(
                self._url(path), headers=self._headers, allow_redirects=False, proxy=self._proxy
            ) as response:
                if response.status not in (*ANSWERED, 204):
                    raise await _refusal(response)
                yield response

    async def download(self, address: str, most_bytes: int) -> bytes:
        """Fetch a result from an address in the service's answer, without the key,
        because it may be on another host. Raises `ProviderError` as `post`, and BROKEN
        for a result of more than ``most_bytes``.
        """
        content = bytearray()
        async for piece in self.stream(address):
            content += piece
            if len(content) > most_bytes:
                message = f"a result has more than {most_bytes} bytes"
                raise ProviderError(PROVIDER, FailureKind.BROKEN, message)
        return bytes(content)

    async def stream(self, address: str) -> AsyncGenerator[bytes, None]:
        """Yield the pieces of a result, as `download`, of any size."""
        if not address.startswith(("http://", "https://")):
            raise ProviderError(PROVIDER, FailureKind.BROKEN, "a result's address is no URL")
        with _failures_mapped(URL(address).host or ""):
            async with self._opened().get(address, proxy=proxy_of(address)) as response:
                if response.status not in ANSWERED:
                    raise await _refusal(response)
                async for piece in response.content.iter_any():
                    yield piece

    async def _look_up_models(self) -> aiohttp.ClientResponse:
        async with self._opened().get(
            self._url("models"),
            headers=self._headers,
            timeout=self._models_timeout,
            allow_redirects=False,
            proxy=self._proxy,
        ) as response:
            await reach_end(response.content)
        return response

    async def _sent(self, url: str, body: Body, headers: dict[str, str]) -> aiohttp.ClientResponse:
        client = self._opened()
        try:
            return await self._post(client, url, body, headers)
        except (
            aiohttp.ServerDisconnectedError,
            aiohttp.ClientOSError,
            ConnectionResetError,
        ) as error:
            if isinstance(error, aiohttp.ClientConnectorError):
                raise
            # The server has just closed the idle connection, before any answer: send
            # the request again.
            return await self._post(client, url, body, headers)

    async def _post(
        self, client: aiohttp.ClientSession, url: str, body: Body, headers: dict[str, str]
    ) -> aiohttp.ClientResponse:
        sent = self._headers.copy()
        sent.update(headers)
        # A redirect could send the key to another host.
        return await client.post(
            url, data=_payload(body), headers=sent, allow_redirects=False, proxy=self._proxy
        )

    def _url(self, path: str) -> str:
        """Return the address of an endpoint: ``path`` goes in front of the query."""
        base, mark, query = self._base_url.partition("?")
        return f"{base.rstrip('/')}/{path}{mark}{query}"

    def _opened(self) -> aiohttp.ClientSession:
        if self._closed:
            raise ProviderError(PROVIDER, FailureKind.CONNECTIVITY, "closed")
        # Created here because it belongs to the running loop.
        if self._client is None:
            connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_WARM_S)
            # Headers are passed per request: aiohttp would send those of the session to
            # the proxy too, the key in clear.
            self._client = aiohttp.ClientSession(connector=connector, timeout=self._timeout)
        return self._client


async def refuse_json(response: aiohttp.ClientResponse, wanted: str) -> None:
    """Raise `ProviderError` for JSON in place of a stream: the failure of its error
    object, else BROKEN.
    """
    if response.content_type == "application/json":
        body = await read_whole(response.content, MAX_ERROR_BYTES)
        raise reported_in(PROVIDER, body) or ProviderError(
            PROVIDER, FailureKind.BROKEN, f"the server answered with JSON instead of {wanted}"
        )


async def read_whole(content: aiohttp.StreamReader, most_bytes: int) -> bytes:
    """Read a body, at most ``most_bytes`` of it."""
    body = b""
    while len(body) < most_bytes and (piece := await content.readany()):
        body += piece
    return body


async def reach_end(content: aiohttp.StreamReader) -> None:
    """Read the few bytes after the last useful piece, so that the connection can be
    reused.
    """
    with suppress(TimeoutError):
        async with asyncio.timeout(END_MS / 1000):
            async for _ in content.iter_any():
                pass


@contextmanager
def _failures_mapped(host: str) -> Iterator[None]:
    try:
        yield
    except TimeoutError as error:
        message = f"{host} did not answer in time ({type(error).__name__})"
        raise ProviderError(PROVIDER, FailureKind.TIMEOUT, message) from error
    except (aiohttp.ClientProxyConnectionError, aiohttp.ClientHttpProxyError) as error:
        message = (
            f"{host} cannot be reached through the environment's proxy ({type(error).__name__})"
        )
        raise ProviderError(PROVIDER, FailureKind.CONNECTIVITY, message) from error
    except aiohttp.ClientConnectorError as error:
        message = (
            f"{host} cannot be reached ({type(error).__name__}); "
            "does it run, and is base_url right?"
        )
        raise ProviderError(PROVIDER, FailureKind.CONNECTIVITY, message) from error
    except aiohttp.ClientResponseError as error:
        message = f"{host} does not speak HTTP ({type(error).__name__})"
        raise ProviderError(PROVIDER, FailureKind.BROKEN, message) from error
    except (aiohttp.ClientError, OSError) as error:
        message = f"the connection to {host} was lost ({type(error).__name__})"
        raise ProviderError(PROVIDER, FailureKind.CONNECTIVITY, message) from error


async def _refusal(response: aiohttp.ClientResponse) -> ProviderError:
    body = b""
    with suppress(TimeoutError, aiohttp.ClientError):  # the status is known already
        async with asyncio.timeout(ERROR_BODY_MS / 1000):
            body = await read_whole(response.content, MAX_ERROR_BYTES)
    return refusal(PROVIDER, response.status, body, response.headers)


def _payload(body: Body) -> bytes | aiohttp.FormData:
    return body if isinstance(body, bytes) else body()


def _checked_headers(headers: Mapping[str, str]) -> Mapping[str, str]:
    for name, value in headers.items():
        if not _HEADER_NAME.fullmatch(name):
            raise ConfigError(f"headers: {name!r} is no name of an HTTP header")
        if not (value.isascii() and value.isprintable()):
            raise ConfigError(f"headers.{name}: has characters that no HTTP header can carry")
    return headers


def _checked_url(base_url: str) -> str:
    if not base_url.startswith(("http://", "https://")):
        raise ConfigError(f"base_url: {base_url!r} does not begin with http:// or https://")
    try:
        url = URL(base_url)
    except ValueError as error:
        raise ConfigError(f"base_url: {base_url!r} is no URL: {error}") from error
    if not url.host:
        raise ConfigError(f"base_url: {base_url!r} names no host")
    if url.fragment:
        raise ConfigError(f"base_url: {base_url!r} has a fragment (#), which no server is sent")
    for endpoint in ENDPOINTS:
        if url.path.rstrip("/").endswith(f"/{endpoint}"):
            raise ConfigError(
                f"base_url: {base_url!r} must end before /{endpoint}, which is added to it"
            )
    return base_url
