"""Recognition and synthesis services of the Home Assistant world: faster-whisper, Piper, and whatever speaks Wyoming.

Protocol: github.com/OHF-Voice/wyoming, with the ``wyoming`` package (``pip install 'voicechat[wyoming]'``).
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Annotated, TypeVar

from pydantic import Field
from wyoming.asr import Transcribe, TranscriptChunk, TranscriptStop
from wyoming.asr import Transcript as WholeTranscript
from wyoming.audio import AudioChunk as WyomingAudio
from wyoming.audio import AudioStart, AudioStop
from wyoming.event import Event
from wyoming.info import Describe, Info
from wyoming.tts import Synthesize, SynthesizeVoice

from voicechat.audio.segment import PAUSE_MS
from voicechat.errors import FailureKind, ProviderError
from voicechat.providers.audio_pieces import BYTES_PER_MS
from voicechat.providers.interfaces import PCM_RATE_HZ, AudioChunk, RecognitionOptions, VoiceOptions
from voicechat.providers.timed_words import timed_words
from voicechat.providers.utterances import Schedule, recognize_utterances
from voicechat.providers.wyoming_link import PROVIDER, WyomingLink, WyomingService
from voicechat.session.vocabulary import Transcript, Word

logger = logging.getLogger(__name__)

T = TypeVar("T")

PIECE_BYTES = 200 * BYTES_PER_MS
WIDTH_BYTES = 2
MAX_CHARACTERS = 100_000
"""Of an utterance's transcript."""
SPEAKER_MARK = "#"
"""``name#speaker``: one of the speakers of a voice that has several."""
UNNAMED = "default"
"""The voice of a service that names none."""


class WyomingRecognizer:
    """A `SpeechRecognizer`: utterances are cut at pauses, and each is recognised as a whole."""

    def __init__(self, service: WyomingService, model: str, language: str, schedule: Schedule) -> None:
        self._service = service
        self._request = Transcribe(name=model or None, language=language or None)
        self._schedule = schedule

    async def start(self) -> None:
        """Ask what the service can do: REJECTED when it cannot recognise with the model. It may come up later."""
        await _unless_away(self._check())

    async def _check(self) -> None:
        info = await _describe(self._service)
        models = [model.name for program in info.asr for model in program.models]
        if not info.asr:
            raise ProviderError(PROVIDER, FailureKind.REJECTED, "the service offers no recognition")
        if self._request.name is not None and self._request.name not in models:
            message = f"model: there is no {self._request.name!r}; the service has {', '.join(models)}"
            raise ProviderError(PROVIDER, FailureKind.REJECTED, message)

    async def aclose(self) -> None:
        """Close all connections; streams in progress fail."""
        self._service.close()

    async def recognize(
        self, audio: AsyncIterator[bytes], options: RecognitionOptions
    ) -> AsyncGenerator[Transcript, None]:
        """Recognise one stream; see `SpeechRecognizer`. Without speech nothing is connected.

        Raises `ProviderError`: TIMEOUT (connecting, no answer in time, audio not taken), CONNECTIVITY (refused,
        closed), BROKEN (no such protocol, the service's own error). What ``audio`` raises passes through. Cancelling
        drops the connection. The times of words are estimates within their utterance: services give none.
        """
        async with aclosing(recognize_utterances(audio, self._decode, self._schedule)) as transcripts:
            async for transcript in transcripts:
                yield transcript

    async def _decode(self, pcm: bytes, _complete: bool) -> Sequence[Word]:
        link = await self._service.connect()
        try:
            form = {"rate": PCM_RATE_HZ, "width": WIDTH_BYTES, "channels": 1}
            await link.send(self._request)
            await link.send(AudioStart(**form))
            for start in range(0, len(pcm), PIECE_BYTES):
                await link.send(WyomingAudio(audio=pcm[start : start + PIECE_BYTES], **form))
                await asyncio.sleep(0)  # half a minute takes 10 ms, in which others want their turn
            await link.send(AudioStop())
            return timed_words(await _transcript(link), [], len(pcm) // BYTES_PER_MS)
        finally:
            self._service.release(link)


class WyomingSynthesizer:
    """A `SpeechSynthesizer`; each sentence is a request of its own."""

    def __init__(self, service: WyomingService, voice: str) -> None:
        self._service = service
        self._voice = voice
        self._voices: tuple[str, ...] = (voice or UNNAMED,)
        self._asked = False

    @property
    def voices(self) -> tuple[str, ...]:
        """Names a client may ask for, known after `start`. The first is the default."""
        return self._voices

    async def start(self) -> None:
        """Ask for the service's voices: REJECTED when it has not the one that is configured.

        A service may come up later: it is asked before the first sentence then.
        """
        await _unless_away(self._learn_voices())

    async def _learn_voices(self) -> None:
        info = await _describe(self._service)
        if not info.tts:
            raise ProviderError(PROVIDER, FailureKind.REJECTED, "the service offers no synthesis")
        listed = [voice for program in info.tts for voice in program.voices]
        known: list[str] = []
        for voice in sorted(listed, key=lambda voice: not voice.installed):
            speakers = [f"{voice.name}{SPEAKER_MARK}{speaker.name}" for speaker in voice.speakers or ()]
            known += [voice.name, *(speakers if len(speakers) > 1 else ())]
        if self._voice and known and self._voice not in known:
            message = f"voice: there is no {self._voice!r}; the service has {', '.join(known[:20])}"
            raise ProviderError(PROVIDER, FailureKind.REJECTED, message)
        # A client is not to make the service download what it has not got.
        installed = {voice.name for voice in listed if voice.installed}
        offered = [name for name in known if name.partition(SPEAKER_MARK)[0] in installed]
        default = self._voice or (offered[0] if offered else UNNAMED)
        self._voices = (default, *dict.fromkeys(name for name in offered if name != default))
        self._asked = True

    async def aclose(self) -> None:
        """Close all connections; sentences in progress fail."""
        self._service.close()

    async def synthesize(self, text: str, voice: VoiceOptions) -> AsyncGenerator[AudioChunk, None]:
        """Speak; see `SpeechSynthesizer`. Text without a letter or digit gives no chunk and connects to nothing.

        Raises `ProviderError` as `WyomingRecognizer.recognize` does, REJECTED for an unknown voice. Cancelling drops
        the connection.
        """
        if not any(char.isalnum() for char in text):
            return
        if not self._asked:
            await self._learn_voices()
        name = voice.voice or self._voices[0]
        if name not in self._voices:
            raise ProviderError(PROVIDER, FailureKind.REJECTED, f"no voice {name!r}")
        link = await self._service.connect()
        try:
            await link.send(Synthesize(text=text, voice=_wyoming_voice(name)))
            odd_byte, rate_hz = b"", 0
            while not AudioStop.is_type((event := await link.answer(WyomingAudio, AudioStop)).type):
                chunk = _read(WyomingAudio.from_event, event)
                if (chunk.width, chunk.channels) != (WIDTH_BYTES, 1) or chunk.rate != (rate_hz or chunk.rate):
                    raise ProviderError(PROVIDER, FailureKind.BROKEN, "the audio is not of one kind, 16-bit and mono")
                rate_hz = chunk.rate
                pcm = odd_byte + chunk.audio
                whole_bytes = len(pcm) & ~1
                odd_byte = pcm[whole_bytes:]
                if whole_bytes:
                    yield AudioChunk(pcm[:whole_bytes], rate_hz)
        finally:
            self._service.release(link)


async def _unless_away(asking: Awaitable[None]) -> None:
    """Let a service be away that may come up; ``voicechat doctor`` says what is wrong with it."""
    try:
        await asking
    except ProviderError as error:
        if not error.retryable:
            raise
        logger.warning("%s", error)


async def _describe(service: WyomingService) -> Info:
    link = await service.connect()
    try:
        await link.send(Describe())
        return _read(Info.from_event, await link.answer(Info))
    finally:
        service.release(link)


async def _transcript(link: WyomingLink) -> str:
    """Read the answer: whole, or in chunks and perhaps also whole."""
    chunks = ""
    while len(chunks) < MAX_CHARACTERS:
        event = await link.answer(WholeTranscript, TranscriptChunk, TranscriptStop)
        if WholeTranscript.is_type(event.type):
            return _text(_read(WholeTranscript.from_event, event).text)
        if TranscriptStop.is_type(event.type):
            return chunks
        chunks += _text(_read(TranscriptChunk.from_event, event).text)
    raise ProviderError(PROVIDER, FailureKind.BROKEN, "a transcript without an end")


def _read(read: Callable[[Event], T], event: Event) -> T:
    """Read an event's data, which may be of any form. Raises `ProviderError` (BROKEN)."""
    try:
        return read(event)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ProviderError(PROVIDER, FailureKind.BROKEN, f"the data of {event.type[:40]!r} are incomplete") from error


def _text(text: object) -> str:
    if not isinstance(text, str):
        raise ProviderError(PROVIDER, FailureKind.BROKEN, "the transcript is no text")
    return text


def _wyoming_voice(name: str) -> SynthesizeVoice | None:
    if name == UNNAMED:
        return None
    voice, _, speaker = name.partition(SPEAKER_MARK)
    return SynthesizeVoice(name=voice, speaker=speaker or None)


def open_recognizer(
    *,
    uri: str = "tcp://127.0.0.1:10300",
    model: str = "",
    language: str = "",
    pause_ms: Annotated[int, Field(ge=100, le=10_000)] = PAUSE_MS,
    partial_every_ms: Annotated[int, Field(ge=0, le=60_000)] = 0,
    connect_ms: Annotated[int, Field(ge=1)] = 3_000,
    silence_ms: Annotated[int, Field(ge=1)] = 15_000,
) -> WyomingRecognizer:
    """Configure the recogniser.

    ``model``, ``language``: as the service names them; empty: its own choice. ``pause_ms``: silence that ends an
    utterance. ``partial_every_ms``: an utterance that goes on is recognised again so often, for partial results; 0:
    never, since a pass is not free. ``connect_ms``: limit for the TCP connection. ``silence_ms``: limit for an answer.
    Raises `ConfigError` for an unusable address.
    """
    service = WyomingService(uri, connect_s=connect_ms / 1000, silence_s=silence_ms / 1000)
    schedule = Schedule(pause_ms=pause_ms, partial_every_ms=partial_every_ms)
    return WyomingRecognizer(service, model, language, schedule)


def open_synthesizer(
    *,
    uri: str = "tcp://127.0.0.1:10200",
    voice: str = "",
    connect_ms: Annotated[int, Field(ge=1)] = 3_000,
    silence_ms: Annotated[int, Field(ge=1)] = 15_000,
) -> WyomingSynthesizer:
    """Configure the synthesiser.

    ``voice``: the default; empty: the first that the service has installed. ``connect_ms``, ``silence_ms`` as for
    `open_recognizer`. Raises `ConfigError` for an unusable address.
    """
    service = WyomingService(uri, connect_s=connect_ms / 1000, silence_s=silence_ms / 1000)
    return WyomingSynthesizer(service, voice)
