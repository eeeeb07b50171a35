"""The endpoints of Spark's application."""

import secrets
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING

from aiohttp import web

from voicechat.providers.interfaces import (
    ChatModel,
    ChatRequest,
    ReplyFinished,
    ReplyPart,
    TextDelta,
)
from voicechat.schema.json_text import write_json
from voicechat.server.auth import Principal, request_keys
from voicechat.server.rest.bodies import read_body
from voicechat.server.rest.chat import bounded_parts
from voicechat.server.rest.compat.parts import RECORDINGS, CompatParts, reply_of
from voicechat.server.rest.compat.spark.schemas import (
    ContentAnswer,
    DialogAnswer,
    DialogRequest,
    SparkFrame,
)
from voicechat.server.rest.event_stream import JSON_LINES, answer_with_pieces, line
from voicechat.server.rest.media.inputs import MAX_PICTURE_BYTES, read_bytes
from voicechat.server.rest.media.media import MEDIA_ERRORS
from voicechat.server.rest.media.openai_media import json_response
from voicechat.server.rest.operation import CHAT_ERRORS, JSON, SPEECH_ERRORS, Body, Operation, Shape
from voicechat.session.types import Message
from voicechat.store.access import ApiEndpoint

if TYPE_CHECKING:
    from voicechat.server.rest.compat.spark.accounts import AccountGate

OCTETS = "application/octet-stream"


class Spark:
    """The endpoints. ``uuid`` and ``username`` identify a user: an account's user if
    there are accounts; otherwise ``uuid`` may be a key of this server.
    """

    def __init__(self, parts: CompatParts, accounts: "AccountGate | None" = None) -> None:
        self._parts = parts
        self._accounts = accounts

    def operations(self) -> list[Operation]:
        """List the endpoints."""
        return [
            Operation(
                method="POST",
                paths=("/textModel/chat",),
                tag="spark",
                summary="Ask the chat model",
                handle=self._chat,
                body=DialogRequest,
                answers={200: (Body(JSON, DialogAnswer),)},
                errors=CHAT_ERRORS,
                shape=Shape.CODED,
            ),
            Operation(
                method="POST",
                paths=("/textModel/stream",),
                tag="spark",
                summary="Ask the chat model, answered by Spark's frames",
                details="A frame on each line.",
                handle=self._stream,
                body=DialogRequest,
                answers={200: (Body(JSON_LINES, SparkFrame),)},
                errors=CHAT_ERRORS,
                shape=Shape.CODED,
            ),
            Operation(
                method="POST",
                paths=("/voiceModel/chat",),
                tag="spark",
                summary="Recognise samples",
                details="The body is 16-bit mono PCM at 16 kHz, or a recording with a header; or "
                "a form with it as `file`.",
                handle=self._recognise,
                forms=RECORDINGS,
                answers={200: (Body(JSON, ContentAnswer),)},
                errors=SPEECH_ERRORS,
                shape=Shape.CODED,
            ),
            Operation(
                method="POST",
                paths=("/PictureToTextModel/chat",),
                tag="spark",
                summary="Read the text in a picture",
                details="The body is the picture; the headers `uuid` and `username` name the user.",
                handle=self._read_picture,
                forms=(Body("image/jpeg"), Body(OCTETS)),
                answers={200: (Body(JSON, ContentAnswer),)},
                errors=MEDIA_ERRORS,
                shape=Shape.CODED,
            ),
        ]

    async def _user_keys(self, request: web.Request, name: str, user_id: str) -> tuple[str, ...]:
        """Return the keys that may admit a user besides the guest key. Raises
        ``AdmissionError`` if accounts are needed and this is none.
        """
        if request_keys(request):
            return ()
        if self._accounts is not None:
            await self._accounts.check(request, name, user_id)
            return ()
        return (user_id,) if user_id else ()

    def _asked(self, principal: Principal, asked: DialogRequest) -> tuple[ChatModel, ChatRequest]:
        model, instructions = self._parts.backend.talking_model("model", "default", principal)
        said: list[Message] = [message.model_dump(exclude_unset=True) for message in asked.dialog]
        return model, ChatRequest(messages=(*instructions, *said))

    async def _chat(self, request: web.Request) -> web.Response:
        asked = await read_body(request, DialogRequest)
        keys = await self._user_keys(request, asked.username, asked.uuid)
        async with self._parts.admitted(request, ApiEndpoint.CHAT, keys) as principal:
            model, wanted = self._asked(principal, asked)
            reply = await reply_of(model, wanted.messages, {})
        tokens = (reply.finished.prompt_tokens or 0) + (reply.finished.completion_tokens or 0)
        return json_response(DialogAnswer(consume_token=tokens, content=reply.text))

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        asked = await read_body(request, DialogRequest)
        keys = await self._user_keys(request, asked.username, asked.uuid)
        async with self._parts.admitted(request, ApiEndpoint.CHAT, keys) as principal:
            model, wanted = self._asked(principal, asked)
            frames = _Frames()
            return await answer_with_pieces(
                request,
                _frames(bounded_parts(model, wanted), frames),
                content_type=JSON_LINES,
                encode=line,
                write_ms=self._parts.backend.limits.write_ms,
                failed=lambda error: write_json(frames.failure(int(error.status), error.message)),
            )

    async def _recognise(self, request: web.Request) -> web.Response:
        name, user_id = _user_of_headers(request)
        keys: tuple[str, ...] = ()
        if name or user_id:  # The document's clients name no user here.
            keys = await self._user_keys(request, name, user_id)
        async with self._parts.admitted(request, ApiEndpoint.TRANSCRIPTION, keys) as principal:
            text = await self._parts.recognise_body(request, principal)
        return json_response(ContentAnswer(content=text))

    async def _read_picture(self, request: web.Request) -> web.Response:
        keys = await self._user_keys(request, *_user_of_headers(request))
        media = self._parts.media
        async with self._parts.admitted(request, ApiEndpoint.MEDIA, keys):
            reader = media.services.ocr.find("body")
            content = await read_bytes(request, MAX_PICTURE_BYTES)
            picture = await media.inputs.inspect(content, "body")
            async with media.asking_service():
                blocks = await reader.read_text(picture)
        return json_response(ContentAnswer(content="\n".join(block.text for block in blocks)))


def _user_of_headers(request: web.Request) -> tuple[str, str]:
    return request.headers.get("username", ""), request.headers.get("uuid", "")


async def _frames(
    parts: AsyncGenerator[ReplyPart, None], frames: "_Frames"
) -> AsyncGenerator[str, None]:
    finished = ReplyFinished()
    async with aclosing(parts):
        async for part in parts:
            if isinstance(part, TextDelta) and part.text:
                yield write_json(frames.piece(part.text))
            elif isinstance(part, ReplyFinished):
                finished = part
    yield write_json(frames.last(finished))


class _Frames:
    """Writes Spark's frames.

    Source: the document's sample; status 0, 1, 2: the first, a middle, the last one.
    """

    def __init__(self) -> None:
        self._sid = f"cht{secrets.token_hex(8)}"
        self._number = 0

    def piece(self, text: str) -> dict[str, object]:
        status = 0 if self._number == 0 else 1
        return self._frame(status, text)

    def last(self, finished: ReplyFinished) -> dict[str, object]:
        asked, said = finished.prompt_tokens or 0, finished.completion_tokens or 0
        usage = {
            "question_tokens": asked,
            "prompt_tokens": asked,
            "completion_tokens": said,
            "total_tokens": asked + said,
        }
        return self._frame(2, "", usage={"text": usage})

    def failure(self, code: int, message: str) -> dict[str, object]:
        return {"header": {"code": code, "message": message, "sid": self._sid, "status": 2}}

    def _frame(self, status: int, text: str, **more: object) -> dict[str, object]:
        spoken = {"content": text, "role": "assistant", "index": 0}
        choices = {"status": status, "seq": self._number, "text": [spoken]}
        self._number += 1
        header = {"code": 0, "message": "Success", "sid": self._sid, "status": status}
        return {"header": header, "payload": {"choices": choices, **more}}
