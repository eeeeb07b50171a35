"""The endpoints of the relay."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from aiohttp import web

from voicechat.errors import RemoteProtocolError, Status
from voicechat.providers.interfaces import ChatModel
from voicechat.providers.media import ImageRequest
from voicechat.schema.checked import RequestModel
from voicechat.schema.json_text import write_json
from voicechat.server.auth import Principal
from voicechat.server.rest.bodies import read_body
from voicechat.server.rest.compat.conversations import KeptConversation, continue_conversation
from voicechat.server.rest.compat.parts import CompatParts, all_of, reply_of, text_pieces
from voicechat.server.rest.compat.relay.schemas import (
    RelayAnswer,
    RelayChat,
    RelayCompletion,
    RelayCompletions,
    RelayEdits,
    RelayImage,
    RelayPiece,
    SendAnswer,
    SendRequest,
)
from voicechat.server.rest.event_stream import CONTENT_TYPE as EVENTS
from voicechat.server.rest.event_stream import JSON_LINES, answer_with_pieces, event, line
from voicechat.server.rest.failures import Handler
from voicechat.server.rest.media.media import MEDIA_ERRORS, as_base64, read_size_text
from voicechat.server.rest.media.openai_media import json_response
from voicechat.server.rest.operation import CHAT_ERRORS, JSON, Body, Operation, Shape
from voicechat.session.types import Message
from voicechat.store.access import ApiEndpoint

SSE = "/sse"
"""The end of a path whose answers are events."""
EDITOR = "Change the text as instructed. Answer with the changed text and nothing else."
DONE = "[DONE]"


class Relay:
    """The endpoints. Their own clients send no key: see ``compat.guest_key``."""

    def __init__(self, parts: CompatParts) -> None:
        self._parts = parts

    def operations(self) -> list[Operation]:
        """List the endpoints."""
        return [
            self._operation(
                "GET", "/openai/models", "List the models by purpose", self._models, None
            ),
            self._operation(
                "POST",
                "/openai/completions",
                "Continue a text",
                self._completions,
                RelayCompletions,
            ),
            *self._streamed(
                "/openai/completions", "Continue a text", self._stream_text, RelayCompletion
            ),
            self._operation("POST", "/openai/chat", "Chat", self._chat, RelayChat),
            *self._streamed("/openai/chat", "Chat", self._stream_chat, RelayChat),
            self._operation("POST", "/openai/edits", "Change a text", self._edits, RelayEdits),
            self._operation("POST", "/openai/image", "Make pictures", self._image, RelayImage),
            Operation(
                method="POST",
                paths=("/send",),
                tag="relay",
                summary="Chat, in steamship's form",
                handle=self._send,
                body=SendRequest,
                answers={200: (Body(JSON, SendAnswer),)},
                errors=CHAT_ERRORS,
                shape=Shape.CODED,
            ),
        ]

    def _operation(
        self,
        method: str,
        path: str,
        summary: str,
        handle: Handler,
        body: type[RequestModel] | None,
    ) -> Operation:
        return Operation(
            method=method,
            paths=(path,),
            tag="relay",
            summary=summary,
            handle=handle,
            body=body,
            answers={200: (Body(JSON, RelayAnswer),)},
            errors=MEDIA_ERRORS,
            shape=Shape.CODED,
        )

    def _streamed(
        self, path: str, summary: str, handle: Handler, body: type[RequestModel]
    ) -> list[Operation]:
        return [
            Operation(
                method="POST",
                paths=(path + form,),
                tag="relay",
                summary=f"{summary}, as {name}",
                handle=handle,
                body=body,
                answers={200: (Body(content_type, RelayPiece),)},
                errors=CHAT_ERRORS,
                shape=Shape.CODED,
            )
            for form, name, content_type in (
                ("/stream", "JSON lines", JSON_LINES),
                (SSE, "events", EVENTS),
            )
        ]

    async def _models(self, request: web.Request) -> web.Response:
        async with self._parts.admitted(request, ApiEndpoint.CHAT):
            services = self._parts.backend.services
            chat = list(services.model_names)
            audio = sorted(services.recognizers)
            suggest = {
                "chat": chat,
                "completions": chat,
                "edits": chat,
                "audio": {"transcriptions": audio, "translations": []},
                "finetunes": [],
                "embeddings": [],
                "moderations": [],
            }
            models = list(dict.fromkeys([*chat, *audio]))
        return json_response(RelayAnswer(data={"models": models, "suggest": suggest}))

    async def _completions(self, request: web.Request) -> web.Response:
        async with self._parts.admitted(request, ApiEndpoint.CHAT) as principal:
            asked = await read_body(request, RelayCompletions)
            model, messages = self._model(principal, asked.model, asked.prompt)
            texts = await _replies(model, messages, _options(asked), asked.n)
        return json_response(RelayAnswer(data=texts))

    async def _edits(self, request: web.Request) -> web.Response:
        async with self._parts.admitted(request, ApiEndpoint.CHAT) as principal:
            asked = await read_body(request, RelayEdits)
            prompt = f"{asked.instruction}\n\n{asked.input}"
            model, messages = self._model(principal, asked.model, prompt)
            instructions: Message = {"role": "system", "content": EDITOR}
            options: dict[str, object] = {}
            if asked.temperature is not None:
                options["temperature"] = asked.temperature
            texts = await _replies(model, (instructions, *messages), options, asked.n)
        return json_response(RelayAnswer(data=texts))

    async def _image(self, request: web.Request) -> web.Response:
        media = self._parts.media
        async with self._parts.admitted(request, ApiEndpoint.MEDIA) as principal:
            asked = await read_body(request, RelayImage)
            width, height = read_size_text(asked.size, "size")
            wanted = ImageRequest(prompt=asked.prompt, count=asked.n, width=width, height=height)
            made = await media.make_images("prompt", "", wanted)
            if asked.response_format == "url":
                data = [
                    {"url": await media.publish(request, picture, principal.key_id)}
                    for picture in made
                ]
            else:
                data = [{"b64_json": await as_base64(picture.content)} for picture in made]
        return json_response(RelayAnswer(data=data))

    async def _chat(self, request: web.Request) -> web.Response:
        async with self._parts.admitted(request, ApiEndpoint.CHAT) as principal:
            asked = await read_body(request, RelayChat)
            conversation, model = await self._conversation(principal, asked)
            text = "".join([piece async for piece in conversation.reply(model, _options(asked))])
        data = {"chatcode": conversation.code, "role": "assistant", "content": text}
        return json_response(RelayAnswer(data=data))

    async def _send(self, request: web.Request) -> web.Response:
        async with self._parts.admitted(request, ApiEndpoint.CHAT) as principal:
            asked = await read_body(request, SendRequest)
            model, said = self._model(principal, "default", asked.text)
            conversation = await continue_conversation(
                self._parts.conversations, principal, asked.inputFileId, (), said, "inputFileId"
            )
            text = "".join([piece async for piece in conversation.reply(model, {})])
        return json_response(SendAnswer(text=text, fileId=conversation.code))

    async def _stream_text(self, request: web.Request) -> web.StreamResponse:
        async with self._parts.admitted(request, ApiEndpoint.CHAT) as principal:
            asked = await read_body(request, RelayCompletion)
            model, messages = self._model(principal, asked.model, asked.prompt)
            texts = text_pieces(model, messages, _options(asked))
            return await self._stream(request, texts)

    async def _stream_chat(self, request: web.Request) -> web.StreamResponse:
        async with self._parts.admitted(request, ApiEndpoint.CHAT) as principal:
            asked = await read_body(request, RelayChat)
            conversation, model = await self._conversation(principal, asked)
            texts = conversation.reply(model, _options(asked))
            return await self._stream(request, texts, conversation.code)

    async def _stream(
        self, request: web.Request, texts: AsyncGenerator[str, None], chatcode: str = ""
    ) -> web.StreamResponse:
        events = request.path.endswith(SSE)
        return await answer_with_pieces(
            request,
            _pieces(texts, chatcode),
            content_type=EVENTS if events else JSON_LINES,
            encode=event if events else line,
            write_ms=self._parts.backend.limits.write_ms,
            failed=lambda error: _piece("error", error.message, int(error.status)),
        )

    def _model(
        self, principal: Principal, wanted: str, prompt: str
    ) -> tuple[ChatModel, tuple[Message, ...]]:
        model, instructions = self._parts.backend.talking_model("model", wanted, principal)
        return model, (*instructions, {"role": "user", "content": prompt})

    async def _conversation(
        self, principal: Principal, asked: RelayChat
    ) -> tuple[KeptConversation, ChatModel]:
        model, instructions = self._parts.backend.talking_model("model", asked.model, principal)
        said = [message.model_dump(exclude_unset=True) for message in asked.messages]
        first = asked.initMessage
        begins: Sequence[Message] = (
            (first.model_dump(exclude_unset=True),) if first is not None else instructions
        )
        conversation = await continue_conversation(
            self._parts.conversations, principal, asked.chatcode, begins, said, "chatcode"
        )
        return conversation, model


async def _pieces(texts: AsyncGenerator[str, None], chatcode: str) -> AsyncGenerator[str, None]:
    async with aclosing(texts):
        async for text in texts:
            yield _piece("continue", text)
    if chatcode:
        yield _piece("code", chatcode)
    yield _piece("end", DONE)


def _piece(message: str, data: str, code: int = 0) -> str:
    return write_json({"code": code, "data": data, "message": message})


def _options(asked: RelayCompletion | RelayChat) -> dict[str, object]:
    options: dict[str, object] = {}
    if asked.max_tokens:
        options["max_tokens"] = asked.max_tokens
    if asked.temperature is not None:
        options["temperature"] = asked.temperature
    return options


async def _replies(
    model: ChatModel, messages: tuple[Message, ...], options: dict[str, object], count: int
) -> list[str]:
    replies = await all_of(reply_of(model, messages, options) for _ in range(count))
    if not any(reply.text for reply in replies):
        raise RemoteProtocolError(Status.INVALID_PARAMETER, "prompt: the model says nothing to it")
    return [reply.text for reply in replies]
