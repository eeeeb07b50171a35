"""Chat completions with voice output: one event stream with the text's chunks and the
speech's frames.
"""

import secrets
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated

from aiohttp import web

from voicechat.dialects.speech_chat.codec import ReplyWriter
from voicechat.providers.interfaces import ChatModel, ChatRequest, ReplyPart
from voicechat.runtime.provider_deadlines import closing
from voicechat.runtime.wall_clock import unix_s
from voicechat.schema.checked import RequestModel, only
from voicechat.schema.json_text import read_object, shown, write_json
from voicechat.server.auth import Principal
from voicechat.server.metering import MeteredSynthesizer
from voicechat.server.rest.backend import Backend
from voicechat.server.rest.bodies import read_body
from voicechat.server.rest.chat import DOCUMENTED_DEFAULTS, MAX_BODY_BYTES, CompletionRequest
from voicechat.server.rest.completion import ExtraFields
from voicechat.server.rest.event_stream import CONTENT_TYPE as EVENTS
from voicechat.server.rest.event_stream import answer_with_events
from voicechat.server.rest.failures import ServiceFailedError, openai_failure
from voicechat.server.rest.operation import SPEECH_ERRORS, Body, Operation, Shape
from voicechat.server.rest.schemas import ChatCompletionChunk, SpeechEvent
from voicechat.server.rest.spoken_reply import FIRST_REPLY, SpokenReply
from voicechat.server.rest.voice import SynthesisParam
from voicechat.session.effects import StartReply
from voicechat.session.notices import ReplyNotice, ReplyText, ReplyTextFinished, ReplyToolCall
from voicechat.session.types import ChatSettings
from voicechat.store.access import ApiEndpoint

VOICE_OUTPUT_PATH = "/api/open-apis/v1/chat/completions-with-voice-output"
PROJECT_PATH = "/api/open-apis/projects/{project}/chat/completions-with-voice-output"
_VOICE_FIELD = "speech_synthesis_req.synthesis_param"


def _always_streamed(value: object) -> str:
    return f"{shown(value)} is not possible here: the answer is always streamed"


class SpokenCompletion(CompletionRequest):
    """The chat part; it is streamed whether asked for or not."""

    stream: Annotated[bool, only(True, _always_streamed)] = True
    """Always streamed."""


class SpeechPart(RequestModel):
    """The speech part."""

    easyllm_id: str
    """A configured speech service."""
    stream: Annotated[bool, only(True, _always_streamed)] = True
    """Always streamed."""
    synthesis_param: SynthesisParam = SynthesisParam()


class VoiceOutputRequest(RequestModel):
    """Both parts."""

    chat_completion_req: SpokenCompletion
    speech_synthesis_req: SpeechPart


class VoiceOutput:
    """The endpoint, which sends the same messages as the conversation socket."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def operations(self) -> list[Operation]:
        """List the endpoint."""
        return [
            Operation(
                method="POST",
                paths=(VOICE_OUTPUT_PATH, PROJECT_PATH),
                tag="chat",
                summary="Ask a chat model, and hear its reply while it is written",
                details="Server-sent events: chunks of text and frames of speech as they are "
                'made. The last event has `"status":"finish"`.',
                handle=self._reply,
                body=VoiceOutputRequest,
                answers={200: (Body(EVENTS, ChatCompletionChunk), Body(EVENTS, SpeechEvent))},
                errors=SPEECH_ERRORS,
                shape=Shape.OPENAI,
            )
        ]

    async def _reply(self, request: web.Request) -> web.StreamResponse:
        async with self._backend.admitted(request, ApiEndpoint.CONVERSATION) as principal:
            asked = await read_body(request, VoiceOutputRequest, MAX_BODY_BYTES)
            events = self._events(asked, principal, self._backend.public_url(request))
            write_ms = self._backend.limits.write_ms
            return await answer_with_events(
                request, events, write_ms=write_ms, failed=_failure_text
            )

    async def _events(
        self, asked: VoiceOutputRequest, principal: Principal, url: str
    ) -> AsyncGenerator[str, None]:
        backend, chat, speech = self._backend, asked.chat_completion_req, asked.speech_synthesis_req
        model, instructions = backend.talking_model(
            "chat_completion_req.model",
            chat.model,
            principal,
            url=url,
            category=chat.category,
        )
        synthesizer = backend.synthesizer("speech_synthesis_req.easyllm_id", speech.easyllm_id)
        start = StartReply(
            reply=FIRST_REPLY,
            messages=instructions + chat.context(),
            chat=ChatSettings(model=chat.model, options=DOCUMENTED_DEFAULTS | chat.given()),
            voice=speech.synthesis_param.settings(synthesizer, _VOICE_FIELD),
        )
        paid = MeteredSynthesizer(synthesizer, principal.account)
        extra_fields = ExtraFields()
        spoken = backend.services.for_speech(_CollectingModel(model, extra_fields))
        reply = SpokenReply(start, spoken, paid, threads=backend.threads, limits=backend.limits)
        writer = reply_writer(chat.model)
        begun = False
        async with aclosing(reply.messages()) as messages:
            async for message in messages:
                if not isinstance(message, ReplyNotice):
                    continue
                if isinstance(message, ReplyText) and not begun:
                    begun = True
                    # As in the document's sample, the first chunk has the role and no
                    # text.
                    yield str(writer.write(ReplyText(message.reply, "")))
                frame = writer.write(message)
                if frame is None:
                    continue
                if isinstance(message, (ReplyText, ReplyTextFinished, ReplyToolCall)):
                    last = isinstance(message, ReplyTextFinished)
                    frame = write_json(
                        extra_fields.merge_into(read_object(str(frame)), "delta", last=last)
                    )
                yield str(frame)


class _CollectingModel:
    """A chat model that collects the extra fields of its reply."""

    def __init__(self, model: ChatModel, extra_fields: ExtraFields) -> None:
        self._model = model
        self._extra_fields = extra_fields

    async def reply(self, request: ChatRequest) -> AsyncGenerator[ReplyPart, None]:
        """Yield the model's parts, and collect their extra fields."""
        parts = self._model.reply(request)
        async with closing(parts):
            async for part in parts:
                self._extra_fields.collect_part(part)
                yield part


def reply_writer(model: str) -> ReplyWriter:
    """Return a writer of one reply in the conversation socket's form."""
    return ReplyWriter(secrets.token_hex(8), unix_s(), model)


def _failure_text(failure: ServiceFailedError) -> str:
    return openai_failure(failure).model_dump_json()
