"""OpenAI's chat completions, streaming: vLLM, SGLang, Ollama, llama.cpp, LM Studio, DashScope, OpenAI itself."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing

import aiohttp
import orjson

from voicechat.errors import FailureKind, ProviderError
from voicechat.providers.chat_stream import ChatStream
from voicechat.providers.interfaces import ChatRequest, ReplyPart
from voicechat.providers.openai_http import PROVIDER, OpenAIEndpoint, reach_end, refuse_json
from voicechat.providers.sse import SseError, SseParser

_HEADERS = {"Content-Type": "application/json", "Accept": "text/event-stream"}


class OpenAIChatModel:
    """A `ChatModel` over HTTP."""

    def __init__(self, endpoint: OpenAIEndpoint, model: str, *, include_usage: bool, starts_thinking: bool) -> None:
        self._endpoint = endpoint
        self._model = model
        self._include_usage = include_usage
        self._starts_thinking = starts_thinking

    async def start(self) -> None:
        """Warm a connection up; see `OpenAIEndpoint.start`."""
        await self._endpoint.start()

    async def probe(self) -> None:
        """Ask whether the service lives; see `OpenAIEndpoint.probe`."""
        await self._endpoint.probe()

    async def aclose(self) -> None:
        """Close all connections; replies in progress fail."""
        await self._endpoint.aclose()

    async def reply(self, request: ChatRequest) -> AsyncGenerator[ReplyPart, None]:
        """Answer; see `ChatModel`. Cancelling closes the connection at once, so that the server stops generating.

        A reply is whole when the server says ``[DONE]`` or names a finish reason; one that ends before is CONNECTIVITY.
        Raises `ProviderError`, besides what `OpenAIEndpoint.post` and `ChatStream` raise: REJECTED for a request that
        is no JSON, BROKEN for an answer that is no event stream.
        """
        body = self._body(request)
        stream = ChatStream(PROVIDER, starts_thinking=self._starts_thinking)
        try:
            async with self._endpoint.post("chat/completions", body, _HEADERS) as response:
                await refuse_json(response, "an event stream")
                async with aclosing(_events(response.content)) as events:
                    async for data in events:
                        for part in stream.push(data):
                            yield part
                        if stream.done:
                            break
                for part in stream.finish():
                    yield part
                await reach_end(response.content)
        except SseError as error:
            raise ProviderError(PROVIDER, FailureKind.BROKEN, str(error)) from error

    def _body(self, request: ChatRequest) -> bytes:
        """Give the request as JSON. Messages and options (``tools`` among them) have OpenAI's form already."""
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


def _plain(value: object) -> object:
    """Give a mapping of any type as the kind that orjson knows."""
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(type(value).__name__)
