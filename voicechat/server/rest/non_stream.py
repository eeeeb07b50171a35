"""Recognition of a whole recording while the client waits: the contract's endpoint, and
OpenAI's.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import partial

from aiohttp import web
from pydantic import BaseModel

from voicechat.errors import RemoteProtocolError, Status
from voicechat.server.auth import Principal
from voicechat.server.fetch import FetchError, check_url
from voicechat.server.rest.backend import Backend
from voicechat.server.rest.bodies import checked, read_body
from voicechat.server.rest.event_stream import CONTENT_TYPE as EVENTS
from voicechat.server.rest.event_stream import answer_with_events
from voicechat.server.rest.failures import ServiceFailedError, openai_error
from voicechat.server.rest.forms import FORM, Form, read_field, receive_file, receive_form
from voicechat.server.rest.operation import JSON, SPEECH_ERRORS, Body, Operation, Parameter, Shape
from voicechat.server.rest.recognising import RecordingResult, RecordingUtterance
from voicechat.server.rest.transcribing import RecordingOptions, Transcriber
from voicechat.server.rest.transcript_forms import one_line, plain, srt, vtt
from voicechat.server.rest.transcription_schemas import (
    BARE_FORMATS,
    NonStreamAnswer,
    NonStreamForm,
    NonStreamRequest,
    OpenAIDuration,
    OpenAISegment,
    OpenAITranscriptDelta,
    OpenAITranscriptDone,
    OpenAITranscription,
    OpenAITranscriptionForm,
    OpenAITranscriptionRequest,
    OpenAIVerboseTranscription,
    OpenAIWord,
)
from voicechat.server.rest.uploads import Upload
from voicechat.store.access import ApiEndpoint
from voicechat.text.words import join

NON_STREAM_PATH = "/api/open-apis/projects/{project}/easyllms/speechtotext/non-stream"
OPENAI_PATHS = ("/v1/audio/transcriptions", "/api/open-apis/v1/audio/transcriptions")
OPENAI_MODELS = ("whisper-1", "gpt-4o-transcribe", "gpt-4o-mini-transcribe")
"""Model names of OpenAI's service, which select the default service."""
OCTETS = "application/octet-stream"
_LISTS = ("timestamp_granularities",)
_LANGUAGES = {
    "zh": "chinese",
    "en": "english",
    "ja": "japanese",
    "ko": "korean",
    "de": "german",
    "fr": "french",
    "es": "spanish",
    "it": "italian",
    "pt": "portuguese",
    "ru": "russian",
}


class NonStream:
    """The endpoints. The recording is on disk while it is recognised, and removed
    afterwards.
    """

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
                details="A JSON body with `audio_url`; or a form (`multipart/form-data`) with "
                "`data`, which is that object as text, and `audio_file`; or the "
                "recording itself as `application/octet-stream`, with `easyllm_id` in "
                "the query. A recording's own header says how it is to be read; samples "
                "without a header need `format` (pcm, mulaw, alaw or g722) and "
                "`sample_rate`.",
                handle=self._non_stream,
                body=NonStreamRequest,
                forms=(Body(FORM, NonStreamForm), Body(OCTETS)),
                parameters=(
                    Parameter(
                        "query",
                        "easyllm_id",
                        f"The service, where the body is {OCTETS}.",
                        {"type": "string"},
                    ),
                    Parameter(
                        "query", "format", "Of samples without a header.", {"enum": [*BARE_FORMATS]}
                    ),
                    Parameter(
                        "query", "sample_rate", "Of samples without a header.", {"type": "integer"}
                    ),
                ),
                answers={200: (Body(JSON, NonStreamAnswer),)},
                errors=SPEECH_ERRORS,
            ),
            Operation(
                method="POST",
                paths=OPENAI_PATHS,
                tag="transcription",
                summary="Transcribe a recording, in OpenAI's form",
                details="A form (`multipart/form-data`) with `file`, `model`, and if wished "
                "`response_format`, `language` and `timestamp_granularities[]`. All "
                "channels are heard together. With `stream` the forms json and text are "
                "answered by events, a sentence each.",
                handle=self._openai,
                forms=(Body(FORM, OpenAITranscriptionForm),),
                answers={
                    200: (
                        Body(JSON, OpenAITranscription),
                        Body(JSON, OpenAIVerboseTranscription),
                        Body(EVENTS, OpenAITranscriptDelta),
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
                asked = checked(NonStreamRequest, _query_fields(request))
                await receive_file(request, upload)
            else:
                asked = await read_body(request, NonStreamRequest)
            if not has_file:
                await self._fetch(asked.audio_url, upload, principal)
            recognizer = self._transcriber.recognizer(asked.easyllm_id)
            options = RecordingOptions(
                principal.key_id, self._max_ms, bare=asked.speech_recognition_param.bare
            )
            recognised = await self._transcriber.recognise(
                upload.path, recognizer, options, principal.account
            )
        answer = NonStreamAnswer(
            result=plain(recognised), audio_duration=recognised.length_ms / 1000
        )
        return web.json_response(text=answer.model_dump_json())

    async def _openai(self, request: web.Request) -> web.StreamResponse:
        async with self._receiving(request) as (principal, upload):
            if request.content_type != FORM:
                raise RemoteProtocolError(Status.MALFORMED, f"the body should be {FORM}")
            form = await receive_form(request, upload)
            asked = checked(OpenAITranscriptionRequest, _openai_fields(form))
            if not form.has_file:
                raise RemoteProtocolError(Status.INVALID_PARAMETER, "file: must be present")
            name = "default" if asked.model in OPENAI_MODELS else asked.model
            recognizer = self._transcriber.recognizer(name, "model")
            recognise = partial(
                self._transcriber.recognise,
                upload.path,
                recognizer,
                RecordingOptions(principal.key_id, self._max_ms, together=True),
                principal.account,
            )
            if not asked.streams:
                return _openai_answer(asked, await recognise())
            write_ms = self._backend.limits.write_ms
            events = _events(lambda on_sentence: recognise(on_sentence=on_sentence))
            return await answer_with_events(request, events, write_ms=write_ms, failed=_failure)

    @asynccontextmanager
    async def _receiving(self, request: web.Request) -> AsyncIterator[tuple[Principal, Upload]]:
        async with (
            self._backend.admitted(request, ApiEndpoint.TRANSCRIPTION) as principal,
            self._transcriber.recordings.receiving(principal.key_id) as upload,
        ):
            yield principal, upload

    async def _fetch(self, audio_url: str, upload: Upload, principal: Principal) -> None:
        url = check_url(audio_url, self._transcriber.settings.fetch)
        try:
            await self._transcriber.fetch(url, upload, principal.key_id)
        except FetchError as error:
            raise RemoteProtocolError(error.status, f"audio_url: {error.reason}") from error

    @property
    def _max_ms(self) -> int:
        return self._transcriber.settings.max_synchronous_ms


def _query_fields(request: web.Request) -> dict[str, object]:
    """Return the fields of a request whose body is only the recording."""
    param: dict[str, object] = {"format": request.query.get("format", "")}
    if rate := request.query.get("sample_rate", ""):
        param["sample_rate"] = int(rate) if rate.isdecimal() and len(rate) < 10 else rate
    easyllm_id = request.query.get("easyllm_id", "")
    return {"easyllm_id": easyllm_id, "speech_recognition_param": param}


def _openai_fields(form: Form) -> dict[str, object]:
    fields: dict[str, object] = {name: values[0] for name, values in form.fields.items()}
    for name in _LISTS:
        values = form.fields.get(f"{name}[]") or form.fields.get(name)
        if values:
            fields[name] = values
    return fields


async def _events(
    recognise: Callable[
        [Callable[[RecordingUtterance], None]], Coroutine[object, object, RecordingResult]
    ],
) -> AsyncGenerator[str, None]:
    """Yield each sentence when it is final, then the whole text.

    Closing it cancels the recognition. Raises ``ServiceFailedError``, and before the
    first event ``RemoteProtocolError``.
    """
    sentences: asyncio.Queue[RecordingUtterance | None] = asyncio.Queue()
    # No TaskGroup, which must not be held over a yield (PEP 789): the finally clause
    # below ends this task with the generator.
    recognising = asyncio.get_running_loop().create_task(recognise(sentences.put_nowait))
    recognising.add_done_callback(lambda _: sentences.put_nowait(None))
    text = ""
    try:
        while (spoken := await sentences.get()) is not None:
            longer = join([text, one_line(spoken)])
            yield OpenAITranscriptDelta(delta=longer[len(text) :]).model_dump_json()
            text = longer
        recognised = await recognising
    except RemoteProtocolError as error:
        if not text:
            raise
        raise ServiceFailedError(error.status, error.message) from error
    finally:
        recognising.cancel()
        await asyncio.gather(recognising, return_exceptions=True)
    usage = OpenAIDuration(seconds=recognised.length_ms / 1000)
    yield OpenAITranscriptDone(text=plain(recognised), usage=usage).model_dump_json()


def _failure(error: ServiceFailedError) -> str:
    return openai_error(error.status, error.message).model_dump_json()


def _openai_answer(asked: OpenAITranscriptionRequest, recognised: RecordingResult) -> web.Response:
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


def _verbose(
    asked: OpenAITranscriptionRequest, recognised: RecordingResult
) -> OpenAIVerboseTranscription:
    segments = [
        OpenAISegment(
            id=number,
            start=spoken.begin_ms / 1000,
            end=spoken.end_ms / 1000,
            text=spoken.transcript.text,
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
        language=_language_name(asked.language),
        duration=recognised.length_ms / 1000,
        text=plain(recognised),
        segments=segments if "segment" in wanted else None,
        words=words if "word" in wanted else None,
        usage=OpenAIDuration(seconds=recognised.length_ms / 1000),
    )


def _language_name(asked: str) -> str:
    """Return a language's English name, as OpenAI's service does; unknown codes are
    returned as they are.
    """
    code = asked.strip().lower()
    return _LANGUAGES.get(code.partition("-")[0], code) or "unknown"
