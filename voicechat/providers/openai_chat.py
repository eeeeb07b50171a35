"""OpenAI's streaming chat completions: vLLM, SGLang, Ollama, llama.cpp, LM Studio,
DashScope, OpenAI itself.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterator, Mapping

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
"""How long to wait for the usage, and the rest of the body, once the reply is complete.
"""
PIECE_CHARACTERS = 64 * 1024
PASS_BYTES = 256 * 1024
"""How much of a request is written at once: 2 ms if every character is escaped. A REST
request may have 8 MiB.
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
        """``thinking``: the form of the server's option for thinking; None: as the
        client wrote it.
        """
        self._endpoint = endpoint
        self._model = model
        self._include_usage = include_usage
        self._starts_thinking = starts_thinking
        self._thinking = thinking

    async def start(self) -> None:
        """Warm up a connection, as `OpenAIEndpoint.start`."""
        await self._endpoint.start()

    async def probe(self) -> None:
        """Check whether the service answers, as `OpenAIEndpoint.probe`."""
        await self._endpoint.probe()

    async def aclose(self) -> None:
        """Close all connections; replies in progress fail."""
        await self._endpoint.aclose()

    async def reply(self, request: ChatRequest) -> AsyncGenerator[ReplyPart, None]:
        """Stream the answer. Cancelling closes the connection at once, so that the
        server stops generating.

        A reply is complete when the server sends ``[DONE]``, ends its body between two
        events, or keeps it open for ``CLOSING_S`` after a finish reason. Raises
        `ProviderError`, besides what `OpenAIEndpoint.post` and `ChatStream` raise:
        REJECTED for a request that cannot be written as JSON, BROKEN for an answer that
        exceeds a limit.
        """
        asked = await self._body(request)
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

    async def _body(self, request: ChatRequest) -> bytes:
        """Return the request as JSON. Messages and options (including ``tools``) have
        OpenAI's form already.

        Options that the engine does not know are sent too: the model's server decides
        about them.
        """
        options = dict(request.options)
        if not options.get("tools"):  # servers refuse an empty list, and a choice from none
            for name in ("tools", "tool_choice", "parallel_tool_calls"):
                options.pop(name, None)
        body = options if self._thinking is None else in_form(self._thinking, options)
        body |= {"model": self._model, "messages": request.messages, "stream": True}
        if self._include_usage:
            body["stream_options"] = {"include_usage": True}
        else:
            body.pop("stream_options", None)
        try:
            return await _written(body)
        except orjson.JSONEncodeError as error:
            raise ProviderError(PROVIDER, FailureKind.REJECTED, "the request is no JSON") from error


class _Pieces:
    """The pieces of a body. After the reply is complete, the rest is awaited for
    ``CLOSING_S`` and may be lost.
    """

    def __init__(self, content: aiohttp.StreamReader) -> None:
        self._content = content
        self._until_s: float | None = None
        self.given_up = False
        """Whether the end of the body was not awaited, or was lost."""

    async def next(self, stream: ChatStream) -> bytes:
        """Return the next piece; empty at the end."""
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


async def _written(body: Mapping[str, object]) -> bytes:
    """Write a request as JSON; other tasks run after each ``PASS_BYTES`` of it. Raises
    ``orjson.JSONEncodeError``.
    """
    pieces, unbroken_bytes = [], 0
    for piece in _json_pieces(body, levels=4):
        pieces.append(piece)
        unbroken_bytes += len(piece)
        if unbroken_bytes > PASS_BYTES:
            unbroken_bytes = 0
            await asyncio.sleep(0)
    return b"".join(pieces)


def _json_pieces(value: object, levels: int) -> Iterator[bytes]:
    """Write a value in pieces. ``levels``: request, messages, message, its parts."""
    if isinstance(value, str) and len(value) > PIECE_CHARACTERS:
        yield b'"'
        for start in range(0, len(value), PIECE_CHARACTERS):
            yield orjson.dumps(value[start : start + PIECE_CHARACTERS])[1:-1]
        yield b'"'
    elif levels and isinstance(value, Mapping) and not all(map(_is_short, value.values())):
        between = b"{"
        for key, item in value.items():
            yield between + orjson.dumps(key) + b":"
            yield from _json_pieces(item, levels - 1)
            between = b","
        yield b"}"
    elif levels and isinstance(value, list | tuple) and value:
        between = b"["
        for item in value:
            yield between
            yield from _json_pieces(item, levels - 1)
            between = b","
        yield b"]"
    else:
        yield orjson.dumps(value, default=_plain)


def _is_short(value: object) -> bool:
    return len(value) <= PIECE_CHARACTERS if isinstance(value, str) else value is None


def _plain(value: object) -> object:
    """Convert a mapping of any type to a dict, the type that orjson supports."""
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(type(value).__name__)
