"""The client of the HTTP endpoints."""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import quote, urlsplit, urlunsplit

import aiohttp
import orjson

from voicechat.client.connection import ConnectionLostError
from voicechat.client.messages import ReplyAudioMessage, ServerMessage, parse_message
from voicechat.errors import Status, VoiceChatError
from voicechat.providers.sse import SseError, SseParser
from voicechat.proxies import proxy_of

CONNECT_S = 10.0
SILENCE_S = 300.0
"""Read timeout between two pieces of an answer. The server's own timeouts for its
services are shorter.
"""

Messages = Sequence[Mapping[str, object]]
JsonTree = dict[str, Any]


class ApiError(VoiceChatError):
    """The server refused or failed. ``status`` is the contract's status if the server
    sent one, else the HTTP status.
    """

    def __init__(self, status: int, message: str, retry_after_s: int | None) -> None:
        """``retry_after_s`` is the value of ``Retry-After``; None if absent."""
        super().__init__(f"{status}: {message}")
        self.status = status
        self.message = message
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True)
class ToolRequest:
    """A tool call that the model requests. ``arguments`` is the model's JSON."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class ChatReply:
    """A chat model's whole reply. ``total_tokens`` is None if none was reported."""

    content: str
    finish_reason: str
    tool_calls: tuple[ToolRequest, ...] = ()
    total_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Token:
    """A short-lived token that a browser may use once instead of a key."""

    token: str
    expires_at: int
    """Unix time."""


class Api:
    """A client for one server with one key. Use it as a context manager, or call
    ``aclose``.

    Every method raises ``ApiError`` if the server refuses or fails, and
    ``ConnectionLostError`` if it cannot be reached or the answer is cut off. Cancelling
    a method, or closing an iterator, makes the server stop the work.
    """

    def __init__(self, url: str, *, key: str, project: str = "default") -> None:
        """``url`` is the server's address, http or https."""
        parts = urlsplit(url if "//" in url else f"http://{url}")
        scheme = {"ws": "http", "wss": "https"}.get(parts.scheme, parts.scheme)
        self._base = urlunsplit((scheme, parts.netloc, parts.path.rstrip("/"), "", ""))
        self._project = f"/api/open-apis/projects/{quote(project, safe='')}"
        # The key is sent in a header, because addresses are logged.
        self._headers = {"Authorization": f"Bearer {key}"}
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        """Enter the context; nothing is sent yet."""
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections. Answers in progress are cut off."""
        if self._session is not None:
            await self._session.close()

    async def models(self) -> list[str]:
        """List the chat models."""
        answer = await self._json("GET", "/v1/models")
        return [str(card["id"]) for card in answer["data"]]

    async def chat(
        self, messages: Messages, *, model: str = "default", **options: object
    ) -> ChatReply:
        """Request a chat completion. ``options`` are OpenAI's parameters, such as
        ``temperature``, ``tools`` and ``max_tokens``.
        """
        answer = await self._json("POST", "/v1/chat/completions", _chat(messages, model, options))
        choice, usage = answer["choices"][0], answer.get("usage")
        calls = tuple(
            ToolRequest(call["id"], call["function"]["name"], call["function"]["arguments"])
            for call in choice["message"].get("tool_calls") or ()
        )
        content = str(choice["message"].get("content") or "")
        return ChatReply(
            content, str(choice["finish_reason"]), calls, usage["total_tokens"] if usage else None
        )

    async def chat_stream(
        self, messages: Messages, *, model: str = "default", **options: object
    ) -> AsyncGenerator[str, None]:
        """Request a chat completion and yield its text deltas."""
        body = _chat(messages, model, options) | {"stream": True}
        async with aclosing(self._events("/v1/chat/completions", body)) as events:
            async for data in events:
                if data == "[DONE]":
                    return
                for choice in _checked(data)["choices"]:
                    if content := choice["delta"].get("content"):
                        yield str(content)

    async def chat_with_voice(
        self,
        messages: Messages,
        *,
        model: str = "default",
        synthesizer: str = "default",
        voice: Mapping[str, object] | None = None,
        **options: object,
    ) -> AsyncGenerator[ServerMessage, None]:
        """Request a chat completion with speech. Yields ``ReplyTextMessage`` and
        ``ReplyAudioMessage``, and a ``ReplyFinishedMessage`` at the end.

        ``voice`` is a ``synthesis_param``: ``format``, ``voice``, ``volume``,
        ``speechRate``, ``pitchRate``.
        """
        speech = {"easyllm_id": synthesizer, "synthesis_param": voice or {}}
        body = {
            "chat_completion_req": _chat(messages, model, options),
            "speech_synthesis_req": speech,
        }
        async with aclosing(
            self._events("/api/open-apis/v1/chat/completions-with-voice-output", body)
        ) as events:
            async for data in events:
                _checked(data)
                message = parse_message(data)
                if message is not None:
                    yield message

    async def speech(self, *texts: str, synthesizer: str = "default", **voice: object) -> bytes:
        """Synthesise a text and return the whole audio file. ``voice`` is as in
        ``chat_with_voice``.
        """
        body = {"easyllm_id": synthesizer, "text": texts, "synthesis_param": voice}
        async with self._request(
            "POST", f"{self._project}/easyllms/voice/synthesize-audio", body
        ) as response:
            return await response.read()

    async def speech_stream(
        self, *texts: str, synthesizer: str = "default", **voice: object
    ) -> AsyncGenerator[bytes, None]:
        """Synthesise a text and yield its audio as it is produced. Concatenated, the
        pieces form one stream.
        """
        body = {"easyllm_id": synthesizer, "text": texts, "synthesis_param": voice}
        async with aclosing(
            self._events(f"{self._project}/easyllms/voice/synthesize-audio-stream", body)
        ) as events:
            async for data in events:
                _checked(data)
                message = parse_message(data)
                if isinstance(message, ReplyAudioMessage):
                    yield message.payload

    async def create_token(
        self, *, endpoints: Sequence[str] = (), origin: str = "", expires_in_s: int = 60
    ) -> Token:
        """Create a token for a browser. It is accepted once, from ``origin``, for
        ``endpoints`` (empty: all that the key allows).
        """
        body = {"endpoints": list(endpoints), "origin": origin or None, "expires_in": expires_in_s}
        answer = await self._json("POST", f"{self._project}/tokens", body)
        return Token(str(answer["token"]), int(answer["expires_at"]))

    # --- transport --------------------------------------------------------------------

    async def _json(self, method: str, path: str, body: object = None) -> JsonTree:
        async with self._request(method, path, body) as response:
            return _object(await response.read())

    async def _events(self, path: str, body: object) -> AsyncGenerator[str, None]:
        """Yield the data of each server-sent event of an answer."""
        parser = SseParser()
        async with self._request("POST", path, body) as response:
            async for piece in response.content.iter_any():
                for data in parser.push_bytes(piece):
                    yield data

    @asynccontextmanager
    async def _request(
        self, method: str, path: str, body: object = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send a request. The context is entered if the status is below 400. Converts
        network errors to ``ConnectionLostError``.
        """
        try:
            headers = self._headers
            data: aiohttp.FormData | bytes | None = None
            if isinstance(body, aiohttp.FormData):
                data = body
            elif body is not None:
                data = orjson.dumps(body)
                headers = headers | {"Content-Type": "application/json"}
            async with self._open_session().request(
                method, self._base + path, data=data, headers=headers
            ) as response:
                if response.status >= 400:
                    raise _api_error(response, await response.read())
                yield response
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            host = urlsplit(self._base).netloc
            raise ConnectionLostError(
                1006, f"no answer from {host}: {type(error).__name__}"
            ) from error
        except SseError as error:
            raise ConnectionLostError(1002, str(error)) from error

    def _open_session(self) -> aiohttp.ClientSession:
        # Created here because a session belongs to the running loop.
        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=None, connect=CONNECT_S, sock_read=SILENCE_S)
            self._session = aiohttp.ClientSession(timeout=timeout, proxy=proxy_of(self._base))
        return self._session


def _chat(messages: Messages, model: str, options: Mapping[str, object]) -> JsonTree:
    return {"model": model, "messages": list(messages), **options}


def _object(content: bytes | str) -> JsonTree:
    try:
        value = orjson.loads(content)
    except orjson.JSONDecodeError:
        value = None
    if not isinstance(value, dict):
        raise ConnectionLostError(1002, "the server sent what is no JSON object")
    return value


def _checked(data: str) -> JsonTree:
    """Parse an event. Raises ApiError if it reports a failure in the middle of the
    answer.
    """
    event = _object(data)
    error = event.get("error")
    if isinstance(error, dict):
        raise ApiError(_status(error.get("code"), 500), str(error.get("message", "")), None)
    if isinstance(event.get("status"), int) and "message" in event:
        raise ApiError(event["status"], str(event["message"]), None)
    return event


def _api_error(response: aiohttp.ClientResponse, content: bytes) -> ApiError:
    try:
        told = _object(content)
    except ConnectionLostError:
        told = {}
    error = told.get("error")
    if isinstance(error, dict):
        status, message = _status(error.get("code"), response.status), error.get("message")
    else:
        status, message = told.get("status", response.status), told.get("message")
    wait = response.headers.get("Retry-After", "")
    return ApiError(
        int(status), str(message or response.reason), int(wait) if wait.isdecimal() else None
    )


def _status(code: object, otherwise: int) -> int:
    """Return the contract's status for an error code in OpenAI's form."""
    openai_codes = {"invalid_api_key": Status.NOT_AUTHORISED, "model_not_found": Status.NOT_FOUND}
    ours = {status.name.lower(): status for status in Status}
    return int((ours | openai_codes).get(str(code), otherwise))
