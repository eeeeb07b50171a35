"""Recognition by a Wyoming service: utterances are cut at pauses, and each is
recognised as a whole.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

from wyoming.asr import Transcribe, TranscriptChunk, TranscriptStop
from wyoming.asr import Transcript as WholeTranscript
from wyoming.audio import AudioChunk, AudioStart, AudioStop

from voicechat.errors import FailureKind, ProviderError
from voicechat.providers.interfaces import PCM_RATE_HZ, RecognitionOptions, RecognizerProvider
from voicechat.providers.lookahead_audio import BYTES_PER_MS
from voicechat.providers.timed_words import timed_words
from voicechat.providers.utterances import Recognized, Schedule, recognize_utterances
from voicechat.providers.wyoming_link import (
    PROVIDER,
    WyomingLink,
    WyomingService,
    describe,
    read_data,
    unless_away,
)
from voicechat.session.types import Transcript

PIECE_BYTES = 200 * BYTES_PER_MS
WIDTH_BYTES = 2
MAX_CHARACTERS = 100_000
"""Limit of an utterance's transcript."""


class WyomingRecognizer(RecognizerProvider):
    """A `SpeechRecognizer`: utterances are cut at pauses, and each is recognised as a
    whole.
    """

    def __init__(
        self, service: WyomingService, model: str, language: str, schedule: Schedule
    ) -> None:
        self._service = service
        self._request = Transcribe(name=model or None, language=language or None)
        self._schedule = schedule

    async def start(self) -> None:
        """Check what the service can do: REJECTED if it has no such model. It may come
        up later.
        """
        await unless_away(self._check())

    async def _check(self) -> None:
        info = await describe(self._service)
        models = [model.name for program in info.asr for model in program.models]
        if not info.asr:
            raise ProviderError(PROVIDER, FailureKind.REJECTED, "the service offers no recognition")
        if self._request.name is not None and self._request.name not in models:
            message = (
                f"model: there is no {self._request.name!r}; the service has {', '.join(models)}"
            )
            raise ProviderError(PROVIDER, FailureKind.REJECTED, message)

    async def probe(self) -> None:
        """Request the service's description, as in `start`. Raises `ProviderError` as
        `describe`.
        """
        await describe(self._service)

    async def aclose(self) -> None:
        """Close all connections; streams in progress fail."""
        self._service.close()

    async def recognize(
        self, audio: AsyncIterator[bytes], options: RecognitionOptions
    ) -> AsyncGenerator[Transcript, None]:
        """Recognise one stream. Connects only when there is speech.

        Raises `ProviderError`: TIMEOUT (connecting, no answer in time, audio not
        accepted), CONNECTIVITY (refused, closed), BROKEN (protocol error, the service's
        own error). Exceptions of ``audio`` are passed on. Cancelling drops the
        connection. Times of words are estimates within their utterance: services give
        none.
        """
        async with aclosing(
            recognize_utterances(audio, self._decode, self._schedule, hypotheses=options.hypotheses)
        ) as transcripts:
            async for transcript in transcripts:
                yield transcript

    async def _decode(self, pcm: bytes, _complete: bool) -> Recognized:
        link = await self._service.connect()
        try:
            form = {"rate": PCM_RATE_HZ, "width": WIDTH_BYTES, "channels": 1}
            await link.send(self._request)
            await link.send(AudioStart(**form))
            for start in range(0, len(pcm), PIECE_BYTES):
                await link.send(AudioChunk(audio=pcm[start : start + PIECE_BYTES], **form))
                await asyncio.sleep(0)  # 30 s of audio takes 10 ms; let other sessions run
            await link.send(AudioStop())
            text = await _transcript(link)
            return Recognized(timed_words(text, [], len(pcm) // BYTES_PER_MS))
        finally:
            self._service.release(link)


async def _transcript(link: WyomingLink) -> str:
    """Read the answer: a whole transcript, or chunks, which a whole one may follow."""
    chunks = ""
    while len(chunks) < MAX_CHARACTERS:
        event = await link.receive_answer(WholeTranscript, TranscriptChunk, TranscriptStop)
        if WholeTranscript.is_type(event.type):
            return _text(read_data(WholeTranscript.from_event, event).text)
        if TranscriptStop.is_type(event.type):
            return chunks
        chunks += _text(read_data(TranscriptChunk.from_event, event).text)
    raise ProviderError(PROVIDER, FailureKind.BROKEN, "a transcript without an end")


def _text(text: object) -> str:
    if not isinstance(text, str):
        raise ProviderError(PROVIDER, FailureKind.BROKEN, "the transcript is no text")
    return text
