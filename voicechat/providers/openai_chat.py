"""OpenAI's chat completions, streaming: vLLM, SGLang, Ollama, llama.cpp, LM Studio,
DashScope, OpenAI itself.
"""

import asyncio
from collections.abc import AsyncGenerator, Mapping

import aiohttp
import orjson

from voicechat.errors import FailureKind, ProviderError
from voicechat.providers.chat_stream import ChatStream
from voicechat.providers.completion_body import CompletionBody
from voicechat.providers.interfaces import ChatRequest, Provider, ReplyPart
from voicechat.providers.openai_http import PROVIDER, OpenAIEndpoint, reach_end
from voicechat.providers.sse import SseError
from voicechat.providers.thinking import ThinkingForm, in_form

CLOSING_S = 1.0
"""How long the rest of a body may take once the reply is complete: the usage is worth
that, and no more.
"""

_HEADERS = {"Content-Type": "application/json", "Accept": "text/event-stream"}


class OpenAIChatModel(Provider):
    """A `ChatModel` over HTTP."""

    def __init__(
        self,
        endpoint: OpenAIEndpoint,
        model: str,
        *,
        include_usage: bool,
        starts_thinking: bool,
        thinking: ThinkingForm | None,
    ) -> None:
        """``thinking``: how the server is told whether to think; None: as the client
        wrote it.
        """
        self._endpoint = endpoint
        self._model = model
        self._include_usage = include_usage
        self._starts_thinking = starts_thinking
        self._thinking = thinking

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
        """Answer; see `ChatModel`. Cancelling closes the connection at once, so that
        the server stops generating.

        A reply is whole when the server says ``[DONE]``, ends its body between two
        events, or keeps it open for ``CLOSING_S`` after a finish reason. Raises
        `ProviderError`, besides what `OpenAIEndpoint.post` and `ChatStream` raise:
        REJECTED for a request that is no JSON, BROKEN for an answer without bounds.
        """
        asked = self._body(request)
        stream = ChatStream(PROVIDER, starts_thinking=self._starts_thinking)
        body = CompletionBody()
        try:
            async with self._endpoint.post("chat/completions", asked, _HEADERS) as response:
                pieces = _Pieces(response.content)
                while not stream.done and (piece := await pieces.next(stream)):
                    for data in body.push_bytes(piece):
                        for part in stream.push_event(data):
                            yield part
                for data in body.finish_body():
                    for part in stream.push_event(data):
                        yield part
                for part in stream.finish_reply(cut_off=body.cut_off):
                    yield part
                if not pieces.given_up:
                    await reach_end(response.content)
        except SseError as error:
            raise ProviderError(PROVIDER, FailureKind.BROKEN, str(error)) from error

    def _body(self, request: ChatRequest) -> bytes:
        """Give the request as JSON. Messages and options (``tools`` among them) have
        OpenAI's form already.

        Options that we do not know go out, too: it is for the model's server to know
        them, or to refuse them.
        """
        options = dict(request.options)
        body = options if self._thinking is None else in_form(self._thinking, options)
        body |= {"model": self._model, "messages": request.messages, "stream": True}
        if self._include_usage:
            body["stream_options"] = {"include_usage": True}
        else:
            body.pop("stream_options", None)
        try:
            return orjson.dumps(body, default=_plain)
        except orjson.JSONEncodeError as error:
            raise ProviderError(PROVIDER, FailureKind.REJECTED, "the request is no JSON") from error


class _Pieces:
    """The pieces of a body. When the reply is complete, the rest is waited for only
    shortly, and may be lost.
    """

    def __init__(self, content: aiohttp.StreamReader) -> None:
        self._content = content
        self._until_s: float | None = None
        self.given_up = False
        """Whether the end of the body was not waited for, or was lost."""

    async def next(self, stream: ChatStream) -> bytes:
        """Give the next piece; empty at the end."""
        if not stream.closing:
            return await self._content.readany()
        if self._until_s is None:
            self._until_s = asyncio.get_running_loop().time() + CLOSING_S
        try:
            async with asyncio.timeout_at(self._until_s):
                return await self._content.readany()
        except (TimeoutError, aiohttp.ClientError, OSError):
            self.given_up = True
            return b""


def _plain(value: object) -> object:
    """Give a mapping of any type as the kind that orjson knows."""
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(type(value).__name__)
