"""Recognition of a whole recording while the client waits: the contract's endpoint, and OpenAI's."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web
from pydantic import BaseModel

from voicechat.errors import RemoteProtocolError, Status
from voicechat.server.auth import Principal
from voicechat.server.fetch import FetchError, check_url
from voicechat.server.rest.backend import Backend
from voicechat.server.rest.bodies import checked, read_body
from voicechat.server.rest.forms import FORM, Form, read_field, receive_file, receive_form
from voicechat.server.rest.operation import JSON, SPEECH_ERRORS, Body, Operation, Parameter, Shape
from voicechat.server.rest.recognising import Recognised
from voicechat.server.rest.transcribing import Transcriber
from voicechat.server.rest.transcript_forms import plain, srt, vtt
from voicechat.server.rest.transcription_schemas import (
    NonStreamAnswer,
    NonStreamForm,
    NonStreamRequest,
    OpenAISegment,
    OpenAITranscription,
    OpenAITranscriptionForm,
    OpenAITranscriptionRequest,
    OpenAIVerboseTranscription,
    OpenAIWord,
)
from voicechat.server.rest.uploads import Upload
from voicechat.store.access import Endpoint

NON_STREAM_PATH = "/api/open-apis/projects/{project}/easyllms/speechtotext/non-stream"
OPENAI_PATHS = ("/v1/audio/transcriptions", "/api/open-apis/v1/audio/transcriptions")
OPENAI_MODELS = ("whisper-1", "gpt-4o-transcribe", "gpt-4o-mini-transcribe")
"""Asked for by clients that were only given another address: the default service listens."""
OCTETS = "application/octet-stream"
_LISTS = ("timestamp_granularities",)


class NonStream:
    """The endpoints. The recording is on disk while it is recognised, and gone when it is answered."""

    def __init__(self, backend: Backend, transcriber: Transcriber) -> None:
        self._backend = backend
        self._transcriber = transcriber

    def operations(self) -> list[Operation]:
        """List the endpoints."""
        return [
            Operation(
                method="POST",
                paths=(NON_STREAM_PATH,),
                tag="transcription",
                summary="Transcribe a recording while the client waits",
                details="A JSON body with `audio_url`; or a form (`multipart/form-data`) with `data`, which is that "
                "object as text, and `audio_file`; or the recording itself as `application/octet-stream`, with "
                "`easyllm_id` in the query.",
                handle=self._non_stream,
                body=NonStreamRequest,
                forms=(Body(FORM, NonStreamForm), Body(OCTETS)),
                parameters=(
                    Parameter("query", "easyllm_id", f"The service, where the body is {OCTETS}.", {"type": "string"}),
                ),
                answers={200: (Body(JSON, NonStreamAnswer),)},
                errors=SPEECH_ERRORS,
            ),
            Operation(
                method="POST",
                paths=OPENAI_PATHS,
                tag="transcription",
                summary="Transcribe a recording, in OpenAI's form",
                details="A form (`multipart/form-data`) with `file`, `model`, and if wished `response_format`, "
                "`language` and `timestamp_granularities[]`.",
                handle=self._openai,
                forms=(Body(FORM, OpenAITranscriptionForm),),
                answers={
                    200: (
                        Body(JSON, OpenAITranscription),
                        Body(JSON, OpenAIVerboseTranscription),
                        Body("text/plain"),
                        Body("text/vtt"),
                    )
                },
                errors=SPEECH_ERRORS,
                shape=Shape.OPENAI,
            ),
        ]

    async def _non_stream(self, request: web.Request) -> web.Response:
        async with self._receiving(request) as (principal, upload):
            if request.content_type == FORM:
                form = await receive_form(request, upload)
                asked = read_field(form, "data", NonStreamRequest)
                has_file = form.has_file
            elif has_file := request.content_type == OCTETS:
                asked = checked(NonStreamRequest, {"easyllm_id": request.query.get("easyllm_id", "")})
                await receive_file(request, upload)
            else:
                asked = await read_body(request, NonStreamRequest)
            if not has_file:
                await self._fetch(asked.audio_url, upload)
            recognised = await self._recognise(upload, principal, asked.easyllm_id, "easyllm_id")
        answer = NonStreamAnswer(result=plain(recognised), audio_duration=recognised.length_ms / 1000)
        return web.json_response(text=answer.model_dump_json())

    async def _openai(self, request: web.Request) -> web.Response:
        async with self._receiving(request) as (principal, upload):
            if request.content_type != FORM:
                raise RemoteProtocolError(Status.MALFORMED, f"the body should be {FORM}")
            form = await receive_form(request, upload)
            asked = checked(OpenAITranscriptionRequest, _openai_fields(form))
            if not form.has_file:
                raise RemoteProtocolError(Status.INVALID_PARAMETER, "file: must be present")
            name = "default" if asked.model in OPENAI_MODELS else asked.model
            recognised = await self._recognise(upload, principal, name, "model")
        return _openai_answer(asked, recognised)

    @asynccontextmanager
    async def _receiving(self, request: web.Request) -> AsyncIterator[tuple[Principal, Upload]]:
        async with (
            self._backend.admitted(request, Endpoint.TRANSCRIPTION) as principal,
            self._transcriber.recordings.receiving(principal.key_id) as upload,
        ):
            yield principal, upload

    async def _fetch(self, audio_url: str, upload: Upload) -> None:
        url = check_url(audio_url, self._transcriber.settings.fetch)
        try:
            await self._transcriber.fetch(url, upload)
        except FetchError as error:
            raise RemoteProtocolError(Status.INVALID_PARAMETER, f"audio_url: {error.reason}") from error

    async def _recognise(self, upload: Upload, principal: Principal, name: str, parameter: str) -> Recognised:
        recognizer = self._transcriber.recognizer(name, parameter)
        max_ms = self._transcriber.settings.max_synchronous_ms
        return await self._transcriber.recognise(upload.path, recognizer, max_ms, principal.account)


def _openai_fields(form: Form) -> dict[str, object]:
    fields: dict[str, object] = {name: values[0] for name, values in form.fields.items()}
    for name in _LISTS:
        values = form.fields.get(f"{name}[]") or form.fields.get(name)
        if values:
            fields[name] = values
    return fields


def _openai_answer(asked: OpenAITranscriptionRequest, recognised: Recognised) -> web.Response:
    match asked.response_format:
        case "text":
            return web.Response(text=plain(recognised) + "\n")
        case "srt":
            return web.Response(text=srt(recognised))
        case "vtt":
            return web.Response(text=vtt(recognised), content_type="text/vtt")
        case "verbose_json":
            answer: BaseModel = _verbose(asked, recognised)
        case _:
            answer = OpenAITranscription(text=plain(recognised))
    return web.json_response(text=answer.model_dump_json(exclude_none=True))


def _verbose(asked: OpenAITranscriptionRequest, recognised: Recognised) -> OpenAIVerboseTranscription:
    segments = [
        OpenAISegment(
            id=number,
            start=spoken.begin_ms / 1000,
            end=spoken.end_ms / 1000,
            text=spoken.transcript.text,
            channel=spoken.channel,
        )
        for number, spoken in enumerate(recognised.utterances)
    ]
    words = [
        OpenAIWord(word=word.text, start=word.begin_ms / 1000, end=word.end_ms / 1000)
        for spoken in recognised.utterances
        for word in spoken.transcript.words
    ]
    wanted = asked.timestamp_granularities
    return OpenAIVerboseTranscription(
        language=asked.language,
        duration=recognised.length_ms / 1000,
        text=plain(recognised),
        segments=segments if "segment" in wanted else None,
        words=words if "word" in wanted else None,
    )
