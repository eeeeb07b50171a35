import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from wyoming.asr import Transcribe, TranscriptChunk, TranscriptStart, TranscriptStop
from wyoming.asr import Transcript as WholeTranscript
from wyoming.audio import AudioChunk as WyomingAudio
from wyoming.audio import AudioStart, AudioStop
from wyoming.error import Error
from wyoming.event import Event, Eventable
from wyoming.info import (
    AsrModel,
    AsrProgram,
    Attribution,
    Describe,
    Info,
    TtsProgram,
    TtsVoice,
    TtsVoiceSpeaker,
)
from wyoming.ping import Ping
from wyoming.server import AsyncEventHandler, AsyncTcpServer
from wyoming.tts import Synthesize

from tests.providers.humming import silence, voice
from tests.providers.loopback import a_full_backlog, raw_service
from tests.unused_port import unused_port
from voicechat.errors import ConfigError, FailureKind, ProviderError
from voicechat.providers import wyoming as provider
from voicechat.providers.interfaces import AudioChunk, RecognitionOptions, VoiceOptions
from voicechat.providers.wyoming_recognition import WyomingRecognizer
from voicechat.providers.wyoming_speech import WyomingSynthesizer
from voicechat.session.types import Transcript
from voicechat.testing.conformance import (
    check_fails,
    check_probe_fails,
    check_recognizer,
    check_synthesizer,
    leaving_nothing,
)

pytestmark = pytest.mark.real_time

SPEECH = voice(1_000)
PAUSE = silence(1_000)
SOMEBODY = Attribution(name="somebody", url="https://example.org")


def artifact(name: str, *, installed: bool = True) -> dict[str, Any]:
    return {
        "name": name,
        "attribution": SOMEBODY,
        "installed": installed,
        "description": None,
        "version": None,
    }


INFO = Info(
    asr=[
        AsrProgram(**artifact("whisper"), models=[AsrModel(**artifact("tiny"), languages=["en"])])
    ],
    tts=[
        TtsProgram(
            **artifact("piper"),
            voices=[
                TtsVoice(**artifact("far", installed=False), languages=["en"]),
                TtsVoice(**artifact("amy"), languages=["en"]),
                TtsVoice(
                    **artifact("crowd"),
                    languages=["en"],
                    speakers=[TtsVoiceSpeaker("one"), TtsVoiceSpeaker("two")],
                ),
            ],
        )
    ],
)


class Service:
    """A service made of the package's own server; remembers what it was asked."""

    def __init__(self) -> None:
        self.uri = ""
        self.info = INFO
        self.transcribed: list[tuple[Transcribe, AudioStart, bytes]] = []
        self.synthesized: list[Synthesize] = []
        self.connections = 0
        self.gone = asyncio.Event()
        self.streams = False
        self.answer: Callable[[Handler], Awaitable[None]] | None = None
        """Takes the place of an answer to a complete request."""
        self.describe: Callable[[Handler], Awaitable[None]] | None = None
        """Takes the place of a description."""

    def handler(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> "Handler":
        self.connections += 1
        return Handler(self, reader, writer)


class Handler(AsyncEventHandler):
    def __init__(
        self, service: Service, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        super().__init__(reader, writer)
        self._service = service
        self._transcribe: Transcribe | None = None
        self._form: AudioStart | None = None
        self._audio = b""

    async def run(self) -> None:
        try:
            await super().run()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client went away
        finally:
            self._service.gone.set()

    async def say(self, *events: Eventable) -> None:
        for event in events:
            await self.write_event(event.event())

    async def handle_event(self, event: Event) -> bool:
        service = self._service
        if Describe.is_type(event.type):
            await (service.describe or Handler.tell)(self)
        elif Transcribe.is_type(event.type):
            self._transcribe = Transcribe.from_event(event)
        elif AudioStart.is_type(event.type):
            self._form = AudioStart.from_event(event)
        elif WyomingAudio.is_type(event.type):
            self._audio += WyomingAudio.from_event(event).audio
        elif AudioStop.is_type(event.type):
            assert self._transcribe is not None
            assert self._form is not None
            service.transcribed.append((self._transcribe, self._form, self._audio))
            await (service.answer or Handler.transcribe)(self)
            return False  # as faster-whisper's does
        elif Synthesize.is_type(event.type):
            service.synthesized.append(Synthesize.from_event(event))
            await (service.answer or Handler.speak)(self)
        return True

    async def tell(self) -> None:
        await self.say(self._service.info)

    async def transcribe(self) -> None:
        text = f"I heard {len(self._audio) // 32} milliseconds."
        if self._service.streams:
            await self.say(TranscriptStart(), *(TranscriptChunk(part) for part in ("I ", "heard.")))
            await self.say(TranscriptStop())
        else:
            await self.say(Ping(), WholeTranscript(text))

    async def speak(self) -> None:
        text = self._service.synthesized[-1].text
        pcm = spoken(text)
        form = {"rate": 22050, "width": 2, "channels": 1}
        await self.say(AudioStart(**form))
        for start in range(0, len(pcm), 333):  # an odd number: samples are cut in two
            await self.say(WyomingAudio(audio=pcm[start : start + 333], **form))
        await self.say(AudioStop())


def spoken(text: str) -> bytes:
    return b"".join((ord(char) % 9000 + 1).to_bytes(2, "little") * 200 for char in text)


@asynccontextmanager
async def serving() -> AsyncIterator[tuple[Service, WyomingRecognizer, WyomingSynthesizer]]:
    async with leaving_nothing(), asyncio.timeout(120):
        service, port = Service(), unused_port()
        service.uri = f"tcp://127.0.0.1:{port}"
        server = AsyncTcpServer("127.0.0.1", port)
        await server.start(service.handler)
        recognizer = provider.open_recognizer(uri=service.uri, read_timeout_ms=60_000)
        synthesizer = provider.open_synthesizer(uri=service.uri, read_timeout_ms=60_000)
        try:
            yield service, recognizer, synthesizer
        finally:
            await recognizer.aclose()
            await synthesizer.aclose()
            await server.stop()


async def audio(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


def recognising(recognizer: WyomingRecognizer, *pieces: bytes) -> AsyncIterator[Transcript]:
    return recognizer.recognize(audio(*pieces), RecognitionOptions())


async def recognise(recognizer: WyomingRecognizer, *pieces: bytes) -> list[Transcript]:
    return [transcript async for transcript in recognising(recognizer, *pieces)]


def speaking(synthesizer: WyomingSynthesizer, text: str = "hello") -> AsyncIterator[AudioChunk]:
    return synthesizer.synthesize(text, VoiceOptions())


async def speak(synthesizer: WyomingSynthesizer, text: str, voice: str = "") -> bytes:
    chunks = [chunk async for chunk in synthesizer.synthesize(text, VoiceOptions(voice=voice))]
    assert {chunk.rate_hz for chunk in chunks} <= {22050}
    assert all(len(chunk.pcm) % 2 == 0 for chunk in chunks)
    return b"".join(chunk.pcm for chunk in chunks)


async def test_each_utterance_is_recognised_as_a_whole() -> None:
    async with serving() as (service, _, _synthesizer):
        recognizer = provider.open_recognizer(uri=service.uri, model="tiny", language="en")
        await recognizer.start()
        transcripts = await recognise(recognizer, PAUSE, SPEECH, PAUSE, SPEECH, PAUSE)
        assert [transcript.final for transcript in transcripts] == [True, True]
        for transcript, begin_ms in zip(transcripts, (1_000, 3_000), strict=True):
            assert transcript.end_ms is not None
            assert abs(transcript.begin_ms - begin_ms) <= 300
            assert transcript.begin_ms + 1_000 <= transcript.end_ms <= begin_ms + 2_000
        for (transcribe, form, pcm), transcript in zip(
            service.transcribed, transcripts, strict=True
        ):
            assert (transcribe.name, transcribe.language) == ("tiny", "en")
            assert (form.rate, form.width, form.channels) == (16000, 2, 1)
            assert transcript.text == f"I heard {len(pcm) // 32} milliseconds."
            assert pcm in PAUSE + SPEECH + PAUSE + SPEECH + PAUSE
        await recognizer.aclose()


async def test_an_answer_in_chunks() -> None:
    async with serving() as (service, recognizer, _):
        service.streams = True
        assert [transcript.text for transcript in await recognise(recognizer, SPEECH)] == [
            "I heard."
        ]


async def test_partial_results_if_they_are_wished() -> None:
    async with serving() as (service, _, _synthesizer):
        recognizer = provider.open_recognizer(uri=service.uri, partial_every_ms=200)
        heard = asyncio.Event()

        async def answer(handler: Handler) -> None:
            await handler.say(WholeTranscript("always the same"))

        async def microphone() -> AsyncIterator[bytes]:
            speech = voice(20_000)
            for start in range(0, len(speech), 6_400):
                yield speech[start : start + 6_400]
                if heard.is_set():
                    break
                await asyncio.sleep(0.11)
            yield PAUSE

        service.answer = answer
        transcripts = recognizer.recognize(microphone(), RecognitionOptions())
        first = await anext(transcripts)
        assert not first.final
        heard.set()
        assert [transcript async for transcript in transcripts][-1].text == "always the same"
        await recognizer.aclose()


async def test_nothing_connects_to_nothing() -> None:
    async with serving() as (service, recognizer, synthesizer):
        assert await recognise(recognizer) == []
        assert await recognise(recognizer, b"", PAUSE) == []
        assert await speak(synthesizer, " …!") == b""
        assert service.connections == 0


async def test_nothing_understood_is_nothing() -> None:
    async def answer(handler: Handler) -> None:
        await handler.say(WholeTranscript(" "))

    async with serving() as (service, recognizer, _):
        service.answer = answer
        assert await recognise(recognizer, SPEECH) == []


async def test_the_services_voices() -> None:
    async with serving() as (service, _, synthesizer):
        await synthesizer.start()
        # "far" would have to be downloaded.
        assert synthesizer.voices == ("amy", "crowd", "crowd#one", "crowd#two")
        assert await speak(synthesizer, "hello", "crowd#two") == spoken("hello")
        assert service.connections == 2
        asked = service.synthesized[-1].voice
        assert asked is not None
        assert (asked.name, asked.speaker) == ("crowd", "two")
        await check_fails(
            synthesizer.synthesize("x", VoiceOptions(voice="far")), FailureKind.REJECTED
        )
        configured = provider.open_synthesizer(uri=service.uri, voice="far")
        await configured.start()
        assert configured.voices == ("far", "amy", "crowd", "crowd#one", "crowd#two")


async def test_a_service_without_names_speaks_with_its_only_voice() -> None:
    async with serving() as (service, _, synthesizer):
        service.info = Info(tts=[TtsProgram(**artifact("small"), voices=[])])
        await synthesizer.start()
        assert synthesizer.voices == ("default",)
        assert await speak(synthesizer, "hello") == spoken("hello")
        assert service.synthesized[-1].voice is None


async def test_a_service_that_comes_up_late_is_asked_then() -> None:
    service, port = Service(), unused_port()
    uri = f"tcp://127.0.0.1:{port}"
    recognizer, synthesizer = provider.open_recognizer(uri=uri), provider.open_synthesizer(uri=uri)
    await recognizer.start()
    await synthesizer.start()
    assert list(synthesizer.voices) == ["default"]
    server = AsyncTcpServer("127.0.0.1", port)
    await server.start(service.handler)
    assert await speak(synthesizer, "hello") == spoken("hello")
    assert synthesizer.voices[0] == "amy"
    await server.stop()


async def test_what_the_service_has_not_got_stops_the_start() -> None:
    async with serving() as (service, recognizer, synthesizer):
        with pytest.raises(ProviderError, match="model: there is no 'huge'; the service has tiny"):
            await provider.open_recognizer(uri=service.uri, model="huge").start()
        with pytest.raises(
            ProviderError, match="voice: there is no 'bob'; the service has amy, crowd, crowd#one"
        ):
            await provider.open_synthesizer(uri=service.uri, voice="bob").start()
        service.info = Info()
        for starting, offer in (
            (recognizer.start, "recognition"),
            (synthesizer.start, "synthesis"),
        ):
            with pytest.raises(ProviderError, match=f"the service offers no {offer}") as caught:
                await starting()
            assert caught.value.kind is FailureKind.REJECTED


# --- failures -------------------------------------------------------------------------


async def hang(handler: Handler) -> None:
    await handler.reader.read()


async def reset(handler: Handler) -> None:
    handler.writer.transport.abort()


def writes(data: bytes, *, then_hang: bool = True) -> Callable[[Handler], Awaitable[None]]:
    async def write(handler: Handler) -> None:
        handler.writer.write(data)
        await handler.writer.drain()
        await (hang if then_hang else reset_after_sending)(handler)

    return write


async def reset_after_sending(handler: Handler) -> None:
    handler.writer.close()


def says(event: Eventable) -> Callable[[Handler], Awaitable[None]]:
    async def say(handler: Handler) -> None:
        await handler.say(event)
        await hang(handler)

    return say


async def chatters(handler: Handler) -> None:
    while True:
        await handler.say(Ping())
        await asyncio.sleep(0)


def header(**fields: object) -> bytes:
    return json.dumps(fields).encode() + b"\n"


BROKEN = {
    "no JSON": b"nonsense\n",
    "a list": b"[]\n",
    "no type": b"{}\n",
    "no UTF-8": b"\xff\xfe\n",
    "data that are no JSON": header(type="audio-chunk", data_length=3) + b"xyz",
    "data that are a list": header(type="transcript", data_length=2)
    + b"[]"
    + header(type="audio-chunk", data_length=2)
    + b"[]",
    "data that are missing": header(type="transcript") + header(type="audio-chunk"),
    "a text that is a number": header(type="transcript", data={"text": 5})
    + header(type="audio-chunk", data={"rate": 1}),
    "a length that is a text": header(type="transcript", data_length="many"),
    "too much": header(type="audio-chunk", payload_length=2**40),
    "a line without an end": b"x" * 9_000_000,
    "an error": header(**Error("secret words", code="oops").event().to_dict()),
}


@pytest.mark.parametrize("name", BROKEN)
async def test_what_is_no_answer(name: str) -> None:
    async with serving() as (service, recognizer, synthesizer):
        service.answer = writes(BROKEN[name])
        for items in (recognising(recognizer, SPEECH), speaking(synthesizer)):
            assert "secret" not in str(await check_fails(items, FailureKind.BROKEN))


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (hang, FailureKind.TIMEOUT),
        (reset, FailureKind.CONNECTIVITY),
        (reset_after_sending, FailureKind.CONNECTIVITY),
        (writes(b'{"type": "transc', then_hang=False), FailureKind.CONNECTIVITY),
        (
            writes(header(type="transcript", data_length=9) + b"{", then_hang=False),
            FailureKind.CONNECTIVITY,
        ),
        (chatters, FailureKind.BROKEN),
    ],
)
async def test_answers_that_do_not_come(
    answer: Callable[[Handler], Awaitable[None]], kind: FailureKind
) -> None:
    async with serving() as (service, _, _synthesizer):
        read_timeout_ms = 500 if kind is FailureKind.TIMEOUT else 60_000
        recognizer = provider.open_recognizer(uri=service.uri, read_timeout_ms=read_timeout_ms)
        synthesizer = provider.open_synthesizer(uri=service.uri, read_timeout_ms=read_timeout_ms)
        service.answer = answer
        await check_fails(recognising(recognizer, SPEECH), kind)
        await check_fails(speaking(synthesizer), kind)


async def test_a_synthesis_that_breaks_off() -> None:
    async def half(handler: Handler) -> None:
        await handler.say(WyomingAudio(audio=b"\x01\x02", rate=22050, width=2, channels=1))
        await reset(handler)

    async with serving() as (service, _, synthesizer):
        service.answer = half
        chunks = speaking(synthesizer)
        await check_fails(chunks, FailureKind.CONNECTIVITY)


@pytest.mark.parametrize(
    "form", [{"width": 4}, {"channels": 2}, {"rate": 16000}, {"rate": 1}, {"rate": None}]
)
async def test_audio_of_another_kind(form: dict[str, Any]) -> None:
    usual: dict[str, Any] = {"rate": 22050, "width": 2, "channels": 1}

    async def answer(handler: Handler) -> None:
        await handler.say(*(WyomingAudio(audio=bytes(8), **each) for each in (usual, usual | form)))
        await hang(handler)

    async with serving() as (service, _, synthesizer):
        service.answer = answer
        await check_fails(speaking(synthesizer), FailureKind.BROKEN)


async def test_nobody_listens_or_nobody_accepts() -> None:
    uri = f"tcp://127.0.0.1:{unused_port()}"
    await check_fails(
        recognising(provider.open_recognizer(uri=uri), SPEECH), FailureKind.CONNECTIVITY
    )
    await check_fails(speaking(provider.open_synthesizer(uri=uri)), FailureKind.CONNECTIVITY)
    with a_full_backlog() as port:
        synthesizer = provider.open_synthesizer(uri=f"tcp://127.0.0.1:{port}", connect_ms=100)
        await check_fails(speaking(synthesizer), FailureKind.TIMEOUT)


async def test_a_service_that_takes_no_audio() -> None:
    async def nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        await asyncio.Event().wait()

    async with leaving_nothing(), raw_service(nothing) as port:
        recognizer = provider.open_recognizer(uri=f"tcp://127.0.0.1:{port}", read_timeout_ms=100)
        await check_fails(recognising(recognizer, voice(20_000)), FailureKind.TIMEOUT)


async def test_what_the_audio_raises_passes_through() -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield SPEECH
        raise ZeroDivisionError

    async with serving() as (_, recognizer, _synthesizer):
        with pytest.raises(ZeroDivisionError):
            [
                transcript
                async for transcript in recognizer.recognize(broken(), RecognitionOptions())
            ]


async def test_cancelling_closes_the_connection_at_once() -> None:
    async with serving() as (service, _, synthesizer):
        service.answer = says(WyomingAudio(audio=bytes(100), rate=22050, width=2, channels=1))
        chunks = speaking(synthesizer)
        await anext(chunks)
        await chunks.aclose()  # type: ignore[attr-defined]
        await service.gone.wait()


async def test_closing_fails_what_is_in_progress_and_what_comes() -> None:
    async with serving() as (service, recognizer, synthesizer):
        service.answer = says(WyomingAudio(audio=bytes(100), rate=22050, width=2, channels=1))
        chunks = speaking(synthesizer)
        await anext(chunks)
        await synthesizer.aclose()
        await check_fails(chunks, FailureKind.CONNECTIVITY)
        await check_fails(speaking(synthesizer), FailureKind.CONNECTIVITY)
        await recognizer.aclose()
        await check_fails(recognising(recognizer, SPEECH), FailureKind.CONNECTIVITY)


async def test_half_a_character_is_rejected() -> None:
    async with serving() as (_, _recognizer, synthesizer):
        await check_fails(speaking(synthesizer, "half \ud83d"), FailureKind.REJECTED)


async def test_a_probe_is_answered_by_a_description() -> None:
    async with serving() as (service, recognizer, synthesizer):
        for provided in (recognizer, synthesizer):
            await provided.probe()
        service.describe = reset
        for provided in (recognizer, synthesizer):
            await check_probe_fails(provided, FailureKind.CONNECTIVITY)
        service.describe = hang
        for patient in (
            provider.open_recognizer(uri=service.uri, read_timeout_ms=100),
            provider.open_synthesizer(uri=service.uri, read_timeout_ms=100),
        ):
            await check_probe_fails(patient, FailureKind.TIMEOUT)
        service.describe = writes(b"no event\n")
        await check_probe_fails(recognizer, FailureKind.BROKEN)


async def test_they_keep_the_contract() -> None:
    async with serving() as (_, recognizer, synthesizer):
        await recognizer.start()
        await synthesizer.start()
        await check_recognizer(recognizer, SPEECH + PAUSE + SPEECH)
        await check_synthesizer(synthesizer)


@pytest.mark.parametrize(
    "uri", ["127.0.0.1:10300", "tcp://host", "tcp://host:many", "unix:///x", "tcp://:5"]
)
def test_an_unusable_address_stops_the_start(uri: str) -> None:
    with pytest.raises(ConfigError, match=r"uri: .* is not of the form tcp://host:port"):
        provider.open_recognizer(uri=uri)
