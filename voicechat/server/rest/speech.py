"""Text to voice: as events, or as the audio itself."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated

from aiohttp import hdrs, web

from voicechat.audio.formats import Container, parse_output_format
from voicechat.audio.wav import HEADER_BYTES, wav_header
from voicechat.schema.checked import Check, Items, RequestModel
from voicechat.schema.json_text import write_json
from voicechat.server.auth import Principal
from voicechat.server.rest.backend import Backend
from voicechat.server.rest.bodies import read_body
from voicechat.server.rest.cancel_on_disconnect import ClientGoneError
from voicechat.server.rest.event_stream import CONTENT_TYPE as EVENTS
from voicechat.server.rest.event_stream import STREAMED, answer_with_events, cut_off, send_piece
from voicechat.server.rest.failures import ServiceFailedError
from voicechat.server.rest.fixed_text_model import check_texts, nothing_to_speak, speak_texts
from voicechat.server.rest.operation import SPEECH_ERRORS, Body, Operation
from voicechat.server.rest.schemas import SpeechEvent
from voicechat.server.rest.voice import SynthesisParam
from voicechat.server.rest.voice_output import reply_writer
from voicechat.session.notices import Notice, ReplyAudio, ReplyAudioFinished
from voicechat.session.types import VoiceSettings
from voicechat.store.access import ApiEndpoint

_FOLDER = "/api/open-apis/projects/{project}/easyllms/voice"
STREAM_PATH = f"{_FOLDER}/synthesize-audio-stream"
WHOLE_PATH = f"{_FOLDER}/synthesize-audio"
HELD_BYTES = 4 * 1024 * 1024
"""A response up to this size, some minutes of compressed speech, is held until its
length is known.
"""
SLICE_BYTES = 64 * 1024
"""Bytes per write to the network."""

MAX_TEXTS = 20_000
"""Most texts of a request: the same as the limit of their characters."""
AUDIO_TYPES = ("audio/mpeg", "audio/wav", "audio/L16", "audio/ogg")


class SpeechRequest(RequestModel):
    """The document's table."""

    easyllm_id: str
    """A configured speech service."""
    text: Annotated[list[str], Items(1, MAX_TEXTS, "texts"), Check(check_texts, {})]
    """What to say, 20 000 characters in all at most."""
    synthesis_param: SynthesisParam


class Speech:
    """The endpoints of text to voice."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def operations(self) -> list[Operation]:
        """List the endpoints."""
        return [
            Operation(
                method="POST",
                paths=(STREAM_PATH,),
                tag="speech",
                summary="Speak a text, streamed",
                details="Server-sent events with base64 audio in `audioFrame`; the last one has "
                '`"status":"finish"`.',
                handle=self._stream,
                body=SpeechRequest,
                answers={200: (Body(EVENTS, SpeechEvent),)},
                errors=SPEECH_ERRORS,
            ),
            Operation(
                method="POST",
                paths=(WHOLE_PATH,),
                tag="speech",
                summary="Speak a text",
                details="The answer is the audio itself.",
                handle=self._whole,
                body=SpeechRequest,
                answers={200: tuple(Body(content_type) for content_type in AUDIO_TYPES)},
                errors=SPEECH_ERRORS,
            ),
        ]

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        async with self._backend.admitted(request, ApiEndpoint.SPEECH) as principal:
            asked = await read_body(request, SpeechRequest)
            events = _events(self._speak(asked, principal), asked.easyllm_id)
            write_ms = self._backend.limits.write_ms
            return await answer_with_events(
                request, events, write_ms=write_ms, failed=_failure_text
            )

    async def _whole(self, request: web.Request) -> web.StreamResponse:
        async with self._backend.admitted(request, ApiEndpoint.SPEECH) as principal:
            asked = await read_body(request, SpeechRequest)
            name = asked.synthesis_param.format
            pieces = audio_of(self._speak(asked, principal))
            write_ms = self._backend.limits.write_ms
            return await answer_with_audio(request, pieces, name, write_ms=write_ms)

    def _speak(self, asked: SpeechRequest, principal: Principal) -> AsyncGenerator[Notice, None]:
        synthesizer = self._backend.synthesizer("easyllm_id", asked.easyllm_id)
        voice: VoiceSettings = asked.synthesis_param.settings(synthesizer, "synthesis_param")
        return speak_texts(self._backend, principal, asked.text, synthesizer, voice)


async def answer_with_audio(
    request: web.Request, pieces: AsyncGenerator[bytes, None], format_name: str, *, write_ms: int
) -> web.StreamResponse:
    """Send audio as the body of the response.

    Audio of up to ``HELD_BYTES`` is held until it is complete; the response then has a
    length, a WAV header has its true sizes, and a failure has its HTTP status. Longer
    audio is streamed, and a failure then aborts the connection. Raises
    ``ClientGoneError`` when the client disconnects or does not read for ``write_ms``.
    ``pieces`` is always closed.
    """
    headers = {hdrs.CONTENT_TYPE: content_type(format_name), **STREAMED}
    response = web.StreamResponse(headers=headers)
    held = bytearray()
    async with aclosing(pieces):
        try:
            async for piece in pieces:
                held += piece
                if len(held) > HELD_BYTES or response.prepared:
                    await _send_in_slices(request, response, held, write_ms)
                    held.clear()
        except ServiceFailedError:
            if not response.prepared:
                raise
            cut_off(request)
            raise ClientGoneError from None
    if not response.prepared:
        held = with_wav_sizes(held, format_name)
        response.content_length = len(held)
    await _send_in_slices(request, response, held, write_ms)
    await response.write_eof()
    return response


async def _send_in_slices(
    request: web.Request, response: web.StreamResponse, audio: bytearray, write_ms: int
) -> None:
    """Send in slices small enough that a slow client that reads is never cut off."""
    for begin in range(0, len(audio), SLICE_BYTES):
        await send_piece(request, response, bytes(audio[begin : begin + SLICE_BYTES]), write_ms)


async def audio_of(messages: AsyncGenerator[Notice, None]) -> AsyncGenerator[bytes, None]:
    """Yield the audio of a reply. Raises ``RemoteProtocolError`` when nothing of the
    text could be spoken.
    """
    silent = True
    async with aclosing(messages):
        async for message in messages:
            if isinstance(message, ReplyAudio):
                silent = False
                yield message.payload
    if silent:
        raise nothing_to_speak()


def content_type(format_name: str) -> str:
    """Return the media type of an output format, as the document names it: PCM is
    ``audio/L16``, but little-endian.
    """
    wanted = parse_output_format(format_name)
    if wanted.container is Container.PCM:
        return f"audio/L16; rate={wanted.rate_hz}; channels=1"
    return wanted.content_type


def with_wav_sizes(audio: bytearray, format_name: str) -> bytearray:
    """Write the true sizes into a WAV header; other formats are returned as they
    are.
    """
    wanted = parse_output_format(format_name)
    if wanted.container is not Container.WAV:
        return audio
    audio[:HEADER_BYTES] = wav_header(wanted.rate_hz, len(audio) - HEADER_BYTES)
    return audio


async def _events(
    messages: AsyncGenerator[Notice, None], service: str
) -> AsyncGenerator[str, None]:
    writer = reply_writer(service)
    async with aclosing(messages):
        async for message in messages:
            if isinstance(message, (ReplyAudio, ReplyAudioFinished)):
                yield str(writer.write(message))


def _failure_text(failure: ServiceFailedError) -> str:
    """Return the event of a failure in the contract's form; ``audioFrame`` is there for
    clients that read it unconditionally.
    """
    return write_json(
        {"status": int(failure.status), "message": failure.message, "audioFrame": None}
    )
