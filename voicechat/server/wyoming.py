"""A TCP port that offers the server's recogniser and synthesiser to Home Assistant, as
services of the Wyoming protocol.

Both services stream: transcripts are sent sentence by sentence while audio still
arrives, and a text is spoken sentence by sentence while it still arrives. The protocol
has no keys: any client that reaches the port may use it.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any

from wyoming.asr import (
    Transcribe,
    TranscriptChunk,
    TranscriptStart,
    TranscriptStop,
)
from wyoming.asr import Transcript as WholeTranscript
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.error import Error
from wyoming.event import Event, Eventable, async_read_event, async_write_event
from wyoming.info import AsrModel, AsrProgram, Attribution, Describe, Info, TtsProgram, TtsVoice
from wyoming.ping import Ping, Pong
from wyoming.tts import (
    Synthesize,
    SynthesizeChunk,
    SynthesizeStart,
    SynthesizeStop,
    SynthesizeStopped,
    SynthesizeVoice,
)

import voicechat
from voicechat.audio.resample import RateConverter
from voicechat.audio.samples import SampleEncoding, SampleLayout, to_mono_s16
from voicechat.config.server_sections import WyomingConfig
from voicechat.errors import (
    AdmissionError,
    ConfigError,
    ProviderError,
    Status,
)
from voicechat.providers.interfaces import (
    PCM_RATE_HZ,
    ChatRequest,
    RecognitionOptions,
    ReplyFinished,
    ReplyPart,
    SpeechRecognizer,
    TextDelta,
)
from voicechat.providers.wyoming_link import BoundedReader
from voicechat.runtime.encoding import EncodingThreads
from voicechat.runtime.provider_deadlines import closing, next_item
from voicechat.runtime.services import Services
from voicechat.server.admission import Admission
from voicechat.server.auth import Principal
from voicechat.server.listener import why_not
from voicechat.server.rest.failures import ServiceFailedError
from voicechat.server.rest.fixed_text_model import MAX_TEXT_CHARACTERS, FixedTextModel
from voicechat.server.rest.spoken_reply import FIRST_REPLY, SpokenReply
from voicechat.session.effects import StartReply
from voicechat.session.limits import SessionLimits
from voicechat.session.notices import ReplyAudio
from voicechat.session.types import ChatSettings, VoiceSettings

IDLE_S = 60.0
"""Time limit between two events of a client. Home Assistant opens a connection for each
request.
"""
WAITING_PIECES = 64
"""Bound of the audio pieces waiting for the recogniser. Beyond it the client is not
read.
"""
MOST_CLIENTS = 128
"""Most connections of one process."""
MAX_CHANNELS = 8
RATE_HZ = 22_050
"""Sample rate of the speech that is sent."""
SPEECH_FORMAT = f"PCM_{RATE_HZ}HZ_MONO_16BIT"

_WIDTHS = {1: SampleEncoding.U8, 2: SampleEncoding.S16, 3: SampleEncoding.S24}
_ATTRIBUTION = Attribution(name="voicechat", url="")

_log = logging.getLogger(__name__)


class WyomingPort:
    """The port of one process of a server."""

    def __init__(
        self,
        config: WyomingConfig,
        services: Services,
        admission: Admission,
        limits: SessionLimits,
        *,
        several: bool,
    ) -> None:
        """``several``: other processes of the server open the same port.

        Raises ConfigError when a configured service does not exist.
        """
        for kind, name, there in (
            ("asr", config.asr, services.recognizers),
            ("tts", config.tts, services.synthesizers),
        ):
            if name not in there:
                raise ConfigError(f"wyoming.{kind}: there is no service {name!r}")
        self.config = config
        self.services = services
        self.admission = admission
        self.limits = limits
        self.recognizer: SpeechRecognizer = services.recognizers[config.asr]
        self.synthesizer = services.synthesizers[config.tts]
        self.threads = EncodingThreads()
        self._several = several
        self._clients: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[int]:
        """Serve while the context lasts; yields the port. Leaving drops the clients.

        Raises ConfigError when the port cannot be bound.
        """
        host, port = self.config.host, self.config.port or 0
        loop = asyncio.get_running_loop()
        try:
            server = await loop.create_server(
                self._protocol, host, port, reuse_port=True if self._several else None
            )
        except OSError as error:
            raise ConfigError(f"wyoming.port: {why_not(host, port, error)}") from error
        try:
            yield int(server.sockets[0].getsockname()[1])
        finally:
            server.close()
            for client in self._clients:
                client.cancel()
            if self._clients:
                await asyncio.wait(self._clients)
            self.threads.close()

    def _protocol(self) -> asyncio.StreamReaderProtocol:
        return asyncio.StreamReaderProtocol(BoundedReader(), self._connected)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._clients) >= MOST_CLIENTS:
            writer.transport.abort()
            return
        client = asyncio.get_running_loop().create_task(_Client(self, reader, writer).run())
        self._clients.add(client)
        client.add_done_callback(self._gone)

    def _gone(self, client: asyncio.Task[None]) -> None:
        self._clients.discard(client)
        if not client.cancelled() and client.exception() is not None:
            _log.error("a Wyoming client failed", exc_info=client.exception())

    def describe(self) -> Info:
        """Return the description of the offered services."""
        languages = list(self.config.languages)
        voices = list(self.synthesizer.voices) or ["default"]
        return Info(
            asr=[
                AsrProgram(
                    **_artifact("voicechat"),
                    models=[AsrModel(**_artifact(self.config.asr), languages=languages)],
                    supports_transcript_streaming=True,
                )
            ],
            tts=[
                TtsProgram(
                    **_artifact("voicechat"),
                    voices=[TtsVoice(**_artifact(name), languages=languages) for name in voices],
                    supports_synthesize_streaming=True,
                )
            ],
        )


def _artifact(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "attribution": _ATTRIBUTION,
        "installed": True,
        "description": name,
        "version": voicechat.__version__,
    }


class _ViolationError(Exception):
    """The client broke the protocol; its text says how."""


class _Recognition:
    """One request to the recogniser, while its audio arrives."""

    def __init__(self, client: "_Client") -> None:
        self._client = client
        self._pieces: asyncio.Queue[bytes | None] = asyncio.Queue(WAITING_PIECES)
        self._converter = RateConverter(PCM_RATE_HZ)
        self._heard_bytes = 0
        self._ended = False
        """Whether the end of the audio was taken from ``_pieces``."""
        self.task = asyncio.get_running_loop().create_task(self._run())

    async def add(self, chunk: AudioChunk) -> None:
        """Add audio. Waits while the recogniser is behind."""
        encoding = _WIDTHS.get(chunk.width)
        if encoding is None or not 1 <= chunk.channels <= MAX_CHANNELS:
            raise _ViolationError(
                f"audio of {chunk.channels} channels and {chunk.width} bytes is not understood"
            )
        layout = SampleLayout(encoding, chunk.channels)
        whole_bytes = len(chunk.audio) - len(chunk.audio) % layout.frame_bytes
        mono = to_mono_s16(chunk.audio[:whole_bytes], layout)
        try:
            pcm = self._converter.push_audio(mono, chunk.rate)
        except ValueError:
            raise _ViolationError(f"audio of {chunk.rate} Hz is not understood") from None
        self._heard_bytes += len(pcm)
        if self._heard_bytes > self._client.port.limits.turn_audio_ms * PCM_RATE_HZ * 2 // 1000:
            raise _ViolationError("the audio is too long")
        await self._pieces.put(pcm)

    async def finish(self) -> None:
        """End the audio, and wait until the transcripts have been sent."""
        await self._pieces.put(self._converter.finish_stream())
        await self._pieces.put(None)
        await self.task

    async def _run(self) -> None:
        send, said = self._client.send, ""
        try:
            async with self._client.port.admission.admitted(Principal("wyoming")):
                await send(TranscriptStart())
                async for sentence in self._sentences():
                    piece = f" {sentence}" if said else sentence
                    said += piece
                    await send(TranscriptChunk(text=piece))
        except (ProviderError, AdmissionError) as error:
            await self._client.fail("stt-failed", error)
        else:
            await send(WholeTranscript(text=said))
            await send(TranscriptStop())
        while not self._ended:  # ``add`` must not wait for a recogniser that has ended
            self._ended = await self._pieces.get() is None

    async def _sentences(self) -> AsyncGenerator[str, None]:
        results = self._client.port.recognizer.recognize(self._audio(), RecognitionOptions())
        async with closing(results):
            while (transcript := await next_item(results)) is not None:
                if transcript.final and transcript.text.strip():
                    yield transcript.text.strip()

    async def _audio(self) -> AsyncGenerator[bytes, None]:
        while (pcm := await self._pieces.get()) is not None:
            if pcm:
                yield pcm
        self._ended = True


class _ComingText:
    """A chat model whose reply is the text that a client sends, as it arrives."""

    def __init__(self) -> None:
        self._pieces: asyncio.Queue[str | None] = asyncio.Queue()
        """Bounded by the length limit of a text."""
        self._characters = 0

    def add(self, text: str) -> None:
        """Add text."""
        self._characters += len(text)
        if self._characters > MAX_TEXT_CHARACTERS:
            raise _ViolationError(f"the text has more than {MAX_TEXT_CHARACTERS} characters")
        if text:
            self._pieces.put_nowait(text)

    def finish(self) -> None:
        """End the text."""
        self._pieces.put_nowait(None)

    async def reply(self, request: ChatRequest) -> AsyncIterator[ReplyPart]:
        """Yield the text, whatever the request."""
        while (text := await self._pieces.get()) is not None:
            yield TextDelta(text)
        yield ReplyFinished()


class _Client:
    """One connection."""

    def __init__(
        self, port: WyomingPort, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.port = port
        self._reader = reader
        self._writer = writer
        self._writing = asyncio.Lock()
        self._recognition: _Recognition | None = None
        self._text: _ComingText | None = None
        self._speaking: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Serve until the client disconnects, is idle for too long or breaks the
        protocol.
        """
        try:
            while (event := await self._receive()) is not None:
                await self._handle(event)
        except _ViolationError as error:
            with suppress(OSError, TimeoutError):
                await self.send(Error(text=str(error), code="protocol"))
        except (OSError, TimeoutError, ProviderError):
            pass  # disconnected, idle, not reading, or no event
        finally:
            tasks = [] if self._speaking is None else [self._speaking]
            tasks += [] if self._recognition is None else [self._recognition.task]
            for task in tasks:
                task.cancel()
                await asyncio.wait([task])
                _ = task.cancelled() or task.exception()  # has ended the connection
            self._writer.transport.abort()

    async def send(self, event: Eventable) -> None:
        """Send an event. Raises OSError, and TimeoutError when the client does not
        read.
        """
        async with self._writing, asyncio.timeout(self.port.limits.write_ms / 1000):
            await async_write_event(event.event(), self._writer)

    async def fail(self, code: str, error: Exception) -> None:
        """Report that a service failed, with only the details that a client may see."""
        known = isinstance(error, AdmissionError | ServiceFailedError)
        text = str(error) if known else "the service failed"
        await self.send(Error(text=text, code=code))

    async def _receive(self) -> Event | None:
        """Receive the next event; None if the connection has ended or no event came in
        time.
        """
        try:
            async with asyncio.timeout(IDLE_S):
                return await async_read_event(self._reader)
        except (AttributeError, KeyError, TypeError, RecursionError, EOFError):
            return None

    async def _handle(self, event: Event) -> None:
        try:
            await self._understand(event)
        except (KeyError, TypeError, AttributeError, ValueError):
            raise _ViolationError(f"the data of {event.type[:40]!r} are incomplete") from None

    async def _understand(self, event: Event) -> None:
        kind = event.type
        if Describe.is_type(kind):
            await self.send(self.port.describe())
        elif Ping.is_type(kind):
            await self.send(Pong(text=Ping.from_event(event).text))
        elif Transcribe.is_type(kind) or AudioStart.is_type(kind):
            if self._recognition is None:
                self._recognition = _Recognition(self)
        elif AudioChunk.is_type(kind):
            if self._recognition is not None:
                await self._recognition.add(AudioChunk.from_event(event))
        elif AudioStop.is_type(kind):
            if self._recognition is not None:
                await self._recognition.finish()
                self._recognition = None
        elif SynthesizeStart.is_type(kind):
            self._begin_text(SynthesizeStart.from_event(event).voice)
        elif SynthesizeChunk.is_type(kind):
            if self._text is not None:
                self._text.add(SynthesizeChunk.from_event(event).text)
        elif SynthesizeStop.is_type(kind):
            await self._finish_text()
        elif Synthesize.is_type(kind) and self._text is None:
            asked = Synthesize.from_event(event)
            if len(asked.text) > MAX_TEXT_CHARACTERS:
                raise _ViolationError(f"the text has more than {MAX_TEXT_CHARACTERS} characters")
            await self._speak(FixedTextModel([asked.text]), asked.voice)

    def _begin_text(self, voice: SynthesizeVoice | None) -> None:
        if self._text is None:
            self._text = _ComingText()
            speaking = self._speak(self._text, voice)
            self._speaking = asyncio.get_running_loop().create_task(speaking)

    async def _finish_text(self) -> None:
        if self._text is not None and self._speaking is not None:
            self._text.finish()
            await self._speaking
            self._text = self._speaking = None
            await self.send(SynthesizeStopped())

    async def _speak(
        self, model: FixedTextModel | _ComingText, voice: SynthesizeVoice | None
    ) -> None:
        form = {"rate": RATE_HZ, "width": 2, "channels": 1}
        await self.send(AudioStart(**form))
        try:
            async with (
                self.port.admission.admitted(Principal("wyoming")),
                aclosing(self._reply(model, voice).messages()) as messages,
            ):
                async for message in messages:
                    if isinstance(message, ReplyAudio):
                        await self.send(AudioChunk(audio=message.payload, **form))
        except (AdmissionError, ServiceFailedError) as error:
            if isinstance(error, AdmissionError) or error.status is not Status.LLM_FAILED:
                await self.fail("tts-failed", error)
            # Otherwise the text has nothing to speak: send an empty answer.
        await self.send(AudioStop())

    def _reply(
        self, model: FixedTextModel | _ComingText, voice: SynthesizeVoice | None
    ) -> SpokenReply:
        wanted = voice.name if voice is not None and voice.name is not None else ""
        name = wanted if wanted in self.port.synthesizer.voices else ""
        start = StartReply(
            reply=FIRST_REPLY,
            messages=(),
            chat=ChatSettings(),
            voice=VoiceSettings(voice=name, format=SPEECH_FORMAT),
        )
        return SpokenReply(
            start,
            self.port.services.for_speech(model),
            self.port.synthesizer,
            threads=self.port.threads,
            limits=self.port.limits,
        )
