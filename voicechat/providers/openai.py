"""Any OpenAI-compatible chat endpoint, streaming: vLLM, Ollama, llama.cpp, SGLang, DashScope, OpenAI itself."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractAsyncContextManager, aclosing, suppress
from typing import Annotated

import aiohttp
import orjson
from pydantic import Field

from voicechat.errors import ConfigError, FailureKind, ProviderError
from voicechat.providers.chat_stream import ChatStream, kind_of_status
from voicechat.providers.interfaces import ChatRequest, ReplyPart
from voicechat.providers.sse import SseError, SseParser

PROVIDER = "openai"

KEEP_WARM_S = 300
"""An idle connection is kept this long: a TLS handshake costs two round trips before the first token."""
END_MS = 50
"""How long the end of the body may come after the last event; a server that holds it back loses its connection."""


class OpenAIChatModel:
    """A `ChatModel` over HTTP. Connections are kept warm and reused by all sessions."""

    def __init__(
        self, *, url: str, model: str, headers: dict[str, str], timeout: aiohttp.ClientTimeout, include_usage: bool
    ) -> None:
        self._url = url
        self._model = model
        self._headers = headers
        self._timeout = timeout
        self._include_usage = include_usage
        self._client: aiohttp.ClientSession | None = None
        self._closed = False

    async def aclose(self) -> None:
        """Close all connections; replies in progress fail."""
        self._closed = True
        if self._client is not None:
            await self._client.close()

    async def reply(self, request: ChatRequest) -> AsyncGenerator[ReplyPart, None]:
        """Answer; see `ChatModel`. Cancelling closes the connection at once, so that the server stops generating.

        Raises `ProviderError`: TIMEOUT (connecting, silence), RATE_LIMIT (429), REJECTED (other 4xx, or messages that
        are no JSON), CONNECTIVITY (refused, reset, 5xx, a reply that breaks off), BROKEN (no event stream).
        """
        stream = ChatStream(PROVIDER)
        try:
            async with self._post(self._body(request)) as response:
                if response.status != 200:
                    # Its text is left unread: it may quote the request.
                    raise ProviderError(PROVIDER, kind_of_status(response.status), f"HTTP status {response.status}")
                async with aclosing(_events(response.content)) as events:
                    async for data in events:
                        for part in stream.push(data):
                            yield part
                        if stream.done:
                            break
                for part in stream.finish():
                    yield part
                await _reach_end(response.content)
        except TimeoutError as error:
            raise ProviderError(PROVIDER, FailureKind.TIMEOUT, type(error).__name__) from error
        except SseError as error:
            raise ProviderError(PROVIDER, FailureKind.BROKEN, str(error)) from error
        except aiohttp.ClientResponseError as error:
            raise ProviderError(PROVIDER, FailureKind.BROKEN, f"no HTTP: {type(error).__name__}") from error
        except (aiohttp.ClientError, OSError) as error:
            raise ProviderError(PROVIDER, FailureKind.CONNECTIVITY, type(error).__name__) from error

    def _post(self, body: bytes) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        if self._closed:
            raise ProviderError(PROVIDER, FailureKind.CONNECTIVITY, "closed")
        # Made here because it belongs to the running loop.
        if self._client is None:
            connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_WARM_S)
            self._client = aiohttp.ClientSession(connector=connector, timeout=self._timeout)
        # A redirect could take the key to another host.
        return self._client.post(self._url, data=body, headers=self._headers, allow_redirects=False)

    def _body(self, request: ChatRequest) -> bytes:
        body: dict[str, object] = dict(request.options)
        body |= {"model": self._model, "messages": request.messages, "stream": True}
        if self._include_usage:
            body["stream_options"] = {"include_usage": True}
        try:
            return orjson.dumps(body, default=_plain)
        except orjson.JSONEncodeError as error:
            raise ProviderError(PROVIDER, FailureKind.REJECTED, "the request is no JSON") from error


async def _events(content: aiohttp.StreamReader) -> AsyncGenerator[str, None]:
    parser = SseParser()
    async for piece in content.iter_any():
        for data in parser.push(piece):
            yield data


async def _reach_end(content: aiohttp.StreamReader) -> None:
    """Read the few bytes after the last event: only then the connection can be used again."""
    with suppress(TimeoutError):
        async with asyncio.timeout(END_MS / 1000):
            async for _ in content.iter_any():
                pass


def _plain(value: object) -> object:
    """Give a mapping of any type as the kind that orjson knows."""
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(type(value).__name__)


def open_chat_model(
    *,
    model: str,
    base_url: str = "https://api.openai.com/v1",
    api_key: str = "",
    connect_ms: Annotated[int, Field(ge=1)] = 3_000,
    silence_ms: Annotated[int, Field(ge=1)] = 60_000,
    include_usage: bool = True,
) -> OpenAIChatModel:
    """Configure the model.

    ``model``: the endpoint's name of it. ``connect_ms``: limit for the TCP connection. ``silence_ms``: limit between
    two pieces of a reply, a backstop behind the engine's own deadlines. ``include_usage``: false for old servers that
    refuse ``stream_options``. Raises `ConfigError` for an unusable URL.
    """
    if not base_url.startswith(("http://", "https://")):
        raise ConfigError(f"base_url: {base_url!r} does not begin with http:// or https://")
    headers = {"Content-Type": "application/json", "Accept": "text/event-stream"}
    if api_key:
        headers["Authorization"] = f"Bearer {api_key}"
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=connect_ms / 1000, sock_read=silence_ms / 1000)
    url = base_url.rstrip("/") + "/chat/completions"
    return OpenAIChatModel(url=url, model=model, headers=headers, timeout=timeout, include_usage=include_usage)
