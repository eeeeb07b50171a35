"""OpenAI's ``audio/speech`` with the same services, for its SDKs."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated

import pybase64
from aiohttp import hdrs, web

from voicechat.audio.formats import parse_output_format
from voicechat.errors import RemoteProtocolError
from voicechat.names import DEFAULT
from voicechat.schema.checked import Check, RequestModel, between, one_of
from voicechat.schema.json_text import write_json
from voicechat.server.auth import Principal
from voicechat.server.rest.backend import Backend
from voicechat.server.rest.bodies import read_body
from voicechat.server.rest.cancel_on_disconnect import ClientGoneError
from voicechat.server.rest.event_stream import CONTENT_TYPE as EVENTS
from voicechat.server.rest.event_stream import STREAMED, answer_with_events, cut_off, send_piece
from voicechat.server.rest.failures import ServiceFailedError, openai_failure
from voicechat.server.rest.fixed_text_model import speak_texts
from voicechat.server.rest.operation import SPEECH_ERRORS, Body, Operation, Shape
from voicechat.server.rest.schemas import SpeechDelta, SpeechDone
from voicechat.server.rest.speech import audio_of
from voicechat.server.rest.voice import known_voice
from voicechat.session.types import VoiceSettings
from voicechat.store.access import ApiEndpoint

SPEECH_PATHS = ("/v1/audio/speech", "/api/open-apis/v1/audio/speech")
MAX_INPUT_CHARACTERS = 4096
"""OpenAI's own limit."""
FORMATS = {
    "mp3": ("MP3_24000HZ_MONO_128KBPS", "audio/mpeg"),
    "opus": ("OGG_OPUS_24KHZ_MONO_32KBPS", "audio/ogg"),
    "wav": ("WAV_24000HZ_MONO_16BIT", "audio/wav"),
    "pcm": ("PCM_24000HZ_MONO_16BIT", "audio/pcm"),
}
"""24 kHz is the rate of OpenAI's service, and clients assume it for headerless
``pcm``.
"""
OPENAI_MODELS = ("tts-1", "tts-1-hd", "gpt-4o-mini-tts")
"""Model names of OpenAI's service, which select the default service."""


def _not_empty(text: str) -> str:
    if not text.strip():
        raise ValueError("there is nothing to say")
    if len(text) > MAX_INPUT_CHARACTERS:
        raise ValueError(f"{len(text)} characters are more than {MAX_INPUT_CHARACTERS}")
    return text


_TEXT = Check(_not_empty, {"minLength": 1, "maxLength": MAX_INPUT_CHARACTERS})


class OpenAISpeechRequest(RequestModel):
    """OpenAI's table; ``instructions`` and other keys are ignored."""

    model: str
    """A configured speech service, or one of OpenAI's names."""
    input: Annotated[str, _TEXT]
    """What to say."""
    voice: str = ""
    """One of the service's voices."""
    response_format: Annotated[str, one_of(*FORMATS)] = "mp3"
    """pcm is 24 kHz."""
    speed: Annotated[float, between(0.5, 2)] = 1
    """Times the usual speed."""
    stream_format: Annotated[str, one_of("audio", "sse")] = "audio"
    """sse: the audio comes in events."""


class OpenAISpeech:
    """The endpoint. An unknown voice is replaced by the service's first one."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def operations(self) -> list[Operation]:
        """List the endpoint."""
        return [
            Operation(
                method="POST",
                paths=SPEECH_PATHS,
                tag="speech",
                summary="Speak a text, in OpenAI's form",
                details="The audio is sent while it is made: as it is, or with `stream_format` "
                "sse in events.",
                handle=self._speak,
                body=OpenAISpeechRequest,
                answers={
                    200: (
                        *(Body(content_type) for _, content_type in FORMATS.values()),
                        Body(EVENTS, SpeechDelta),
                        Body(EVENTS, SpeechDone),
                    )
                },
                errors=SPEECH_ERRORS,
                shape=Shape.OPENAI,
            )
        ]

    async def _speak(self, request: web.Request) -> web.StreamResponse:
        async with self._backend.admitted(request, ApiEndpoint.SPEECH) as principal:
            asked = await read_body(request, OpenAISpeechRequest)
            if asked.stream_format == "sse":
                events = _events(self._audio(asked, principal))
                write_ms = self._backend.limits.write_ms
                return await answer_with_events(
                    request, events, write_ms=write_ms, failed=_failure_text
                )
            _, content_type = FORMATS[asked.response_format]
            response = web.StreamResponse(headers={hdrs.CONTENT_TYPE: content_type, **STREAMED})
            try:
                async with aclosing(self._audio(asked, principal)) as audio:
                    async for piece in audio:
                        await send_piece(request, response, piece, self._backend.limits.write_ms)
            except ServiceFailedError:
                if not response.prepared:
                    raise
                cut_off(request)
                raise ClientGoneError from None
            await response.write_eof()
            return response

    def _audio(
        self, asked: OpenAISpeechRequest, principal: Principal
    ) -> AsyncGenerator[bytes, None]:
        services = self._backend.services
        known = asked.model in services.synthesizer_names or asked.model not in OPENAI_MODELS
        synthesizer = self._backend.synthesizer("model", asked.model if known else DEFAULT)
        format_name, _ = FORMATS[asked.response_format]
        try:
            parse_output_format(format_name)
        except RemoteProtocolError as error:
            raise RemoteProtocolError(error.status, f"response_format: {error.message}") from error
        voice = VoiceSettings(
            model=asked.model,
            voice=known_voice(synthesizer, asked.voice, "voice" if asked.voice else ""),
            format=format_name,
            speech_rate=asked.speed,
        )
        return audio_of(speak_texts(self._backend, principal, [asked.input], synthesizer, voice))


async def _events(audio: AsyncGenerator[bytes, None]) -> AsyncGenerator[str, None]:
    async with aclosing(audio):
        async for piece in audio:
            yield write_json(
                {"type": "speech.audio.delta", "audio": pybase64.b64encode_as_string(piece)}
            )
    # Tokens are not counted, but OpenAI's SDKs require the field.
    usage = dict.fromkeys(("input_tokens", "output_tokens", "total_tokens"), 0)
    yield write_json({"type": "speech.audio.done", "usage": usage})


def _failure_text(failure: ServiceFailedError) -> str:
    return openai_failure(failure).model_dump_json()
