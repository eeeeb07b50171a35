"""Home Assistant's own client code against the Wyoming port."""

import asyncio
import wave
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from wyoming.asr import Transcribe, Transcript, TranscriptStop
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.client import AsyncTcpClient
from wyoming.error import Error
from wyoming.event import Event, Eventable
from wyoming.info import Describe, Info
from wyoming.ping import Ping, Pong
from wyoming.tts import (
    Synthesize,
    SynthesizeChunk,
    SynthesizeStart,
    SynthesizeStop,
    SynthesizeStopped,
    SynthesizeVoice,
)

from voicechat.config.server_sections import WyomingConfig
from voicechat.errors import ConfigError
from voicechat.runtime.services import Services
from voicechat.server.admission import Admission
from voicechat.server.wyoming import RATE_HZ, WyomingPort
from voicechat.session.limits import SessionLimits
from voicechat.testing.scripted import (
    Failure,
    ScriptedModel,
    ScriptedRecognizer,
    ScriptedSynthesizer,
)

pytestmark = pytest.mark.real_time

FORM = {"rate": 16_000, "width": 2, "channels": 1}


class Port:
    """The port, and what stands behind it."""

    def __init__(self, max_sessions: int = 4, limits: SessionLimits | None = None) -> None:
        self.recognizer = ScriptedRecognizer(texts=("turn on the light",), word_ms=50)
        self.synthesizer = ScriptedSynthesizer(ms_per_character=10)
        self.admission = Admission(max_sessions)
        services = Services(
            {"default": self.recognizer},
            {"default": ScriptedModel()},
            {"default": self.synthesizer},
        )
        self.port = WyomingPort(
            WyomingConfig(port=0),
            services,
            self.admission,
            limits or SessionLimits(),
            several=False,
        )

    @asynccontextmanager
    async def client(self) -> AsyncIterator[AsyncTcpClient]:
        async with (
            self.port.listening() as number,
            AsyncTcpClient("127.0.0.1", number) as client,
            asyncio.timeout(120),
        ):
            yield client
        assert self.recognizer.open == self.synthesizer.open == 0
        assert self.admission.sessions == 0


async def said(client: AsyncTcpClient, *events: Eventable) -> None:
    for event in events:
        await client.write_event(event.event())


async def until(client: AsyncTcpClient, last: type[Eventable]) -> list[Event]:
    told: list[Event] = []
    while not told or not last.is_type(told[-1].type):
        event = await client.read_event()
        assert event is not None
        told.append(event)
    return told


def kinds(events: list[Event]) -> list[str]:
    return list(dict.fromkeys(event.type for event in events))


def audio(events: list[Event]) -> bytes:
    return b"".join(AudioChunk.from_event(e).audio for e in events if AudioChunk.is_type(e.type))


async def test_both_services_are_described() -> None:
    async with Port().client() as client:
        await said(client, Ping(text="a"), Describe())
        pong, described = await until(client, Info)
    assert Pong.from_event(pong).text == "a"
    info = Info.from_event(described)
    (asr,), (tts,) = info.asr, info.tts
    assert asr.supports_transcript_streaming
    assert tts.supports_synthesize_streaming
    assert asr.models[0].languages == ["en", "zh"]
    assert [voice.name for voice in tts.voices] == ["scripted"]


@pytest.mark.parametrize(("rate", "width", "channels"), [(16_000, 2, 1), (48_000, 2, 2)])
async def test_speech_is_transcribed(rate: int, width: int, channels: int) -> None:
    port = Port()
    form = {"rate": rate, "width": width, "channels": channels}
    async with port.client() as client:
        await said(client, Transcribe(language="en"), AudioStart(**form))
        for _ in range(10):
            await said(client, AudioChunk(audio=bytes(rate // 10 * width * channels), **form))
        await said(client, AudioStop())
        told = await until(client, TranscriptStop)
    order = ["transcript-start", "transcript-chunk", "transcript", "transcript-stop"]
    assert [event.type for event in told] == order
    assert Transcript.from_event(told[2]).text == "turn on the light"
    assert abs(port.recognizer.heard_ms[0] - 1_000) <= 5


async def test_a_text_is_spoken() -> None:
    port = Port()
    async with port.client() as client:
        await said(client, Synthesize(text="Hello. **There**!", voice=SynthesizeVoice(name="x")))
        told = await until(client, AudioStop)
    assert kinds(told) == ["audio-start", "audio-chunk", "audio-stop"]
    assert AudioStart.from_event(told[0]).rate == RATE_HZ
    assert len(audio(told)) == pytest.approx(2 * RATE_HZ * 0.13, rel=0.05)
    assert port.synthesizer.texts == ["Hello.", "There!"]


async def test_a_text_that_comes_in_pieces_is_spoken_while_it_comes() -> None:
    port = Port()
    async with port.client() as client:
        await said(client, SynthesizeStart(), SynthesizeChunk(text="The first one. The sec"))
        first = await until(client, AudioChunk)
        assert kinds(first) == ["audio-start", "audio-chunk"]
        await said(client, SynthesizeChunk(text="ond."), Synthesize(text="All again."))
        await said(client, SynthesizeStop())
        told = await until(client, SynthesizeStopped)
    assert kinds(told)[-2:] == ["audio-stop", "synthesize-stopped"]
    assert port.synthesizer.texts == ["The first one.", "The second."]


async def test_one_connection_may_ask_again_and_again() -> None:
    async with Port().client() as client:
        for _ in range(2):
            await said(client, Synthesize(text="Hello."))
            assert audio(await until(client, AudioStop))
            await said(client, AudioStart(**FORM), AudioChunk(audio=bytes(32_000), **FORM))
            await said(client, AudioStop())
            await until(client, TranscriptStop)


async def test_failures_are_told_and_the_connection_goes_on() -> None:
    port = Port()
    port.recognizer.failure = Failure()
    port.synthesizer.failure = Failure()
    async with port.client() as client:
        await said(client, AudioStart(**FORM), AudioChunk(audio=bytes(32_000), **FORM))
        failed = await until(client, Error)
        assert Error.from_event(failed[-1]).code == "stt-failed"
        for _ in range(100):  # nobody takes it any more
            await said(client, AudioChunk(audio=bytes(3_200), **FORM))
        await said(client, AudioStop(), Synthesize(text="Hello."))
        told = await until(client, AudioStop)
        assert [Error.from_event(e).code for e in told if Error.is_type(e.type)] == ["tts-failed"]
        await said(client, Ping())
        await until(client, Pong)


async def test_a_full_server_refuses() -> None:
    async with Port(max_sessions=0).client() as client:
        await said(client, AudioStart(**FORM))
        assert "sessions already" in Error.from_event((await until(client, Error))[-1]).text


@pytest.mark.parametrize(
    "wrong",
    [
        AudioChunk(audio=b"12", rate=16_000, width=7, channels=1),
        AudioChunk(audio=b"12", rate=1, width=2, channels=1),
        AudioChunk(audio=b"12", rate=16_000, width=2, channels=99),
        Synthesize(text="x" * 20_001),
    ],
    ids=["width", "rate", "channels", "a long text"],
)
async def test_what_is_not_understood_ends_the_connection(wrong: Eventable) -> None:
    async with Port().client() as client:
        await said(client, AudioStart(**FORM), wrong)
        assert Error.from_event((await until(client, Error))[-1]).code == "protocol"
        assert await client.read_event() is None


async def test_audio_without_an_end_is_stopped() -> None:
    async with Port(limits=SessionLimits(turn_audio_ms=500)).client() as client:
        await said(client, AudioStart(**FORM), AudioChunk(audio=bytes(32_000), **FORM))
        assert "too long" in Error.from_event((await until(client, Error))[-1]).text


@pytest.mark.parametrize(
    "garbage",
    [b"nonsense\n", b"[1]\n", b'{"type":"describe","data_length":999999999}\n', b"\xff" * 99],
)
async def test_garbage_ends_the_connection(garbage: bytes) -> None:
    port = Port()
    async with port.port.listening() as number, asyncio.timeout(120):
        reader, writer = await asyncio.open_connection("127.0.0.1", number)
        writer.write(garbage)
        writer.write_eof()
        assert await reader.read() == b""
        writer.close()


async def test_a_client_that_goes_leaves_nothing() -> None:
    port = Port()
    async with port.client() as client:
        await said(client, AudioStart(**FORM), AudioChunk(audio=bytes(3_200), **FORM))
        await said(client, SynthesizeStart(), SynthesizeChunk(text="Half a sent"))
        await until(client, AudioStart)


async def test_a_service_that_does_not_exist_is_named() -> None:
    with pytest.raises(ConfigError, match=r"wyoming\.asr: there is no service 'x'"):
        WyomingPort(
            WyomingConfig(port=0, asr="x"),
            Services({}, {}, {}),
            Admission(1),
            SessionLimits(),
            several=False,
        )


@pytest.mark.long
async def test_a_recording_is_transcribed_and_read_aloud(recordings: Path, tmp_path: Path) -> None:
    """With the embedded models, through the command line's server."""
    from voicechat.config import build_services, load_config
    from voicechat.server.serve import credentials, serving

    environ = {"VOICECHAT_DATA_DIR": str(tmp_path)}
    config = load_config(None, environ, {"server": {"port": 0}, "wyoming": {"port": 0}})
    services = build_services(config)
    async with serving(config, services, credentials(config), lambda _: None) as server:
        with wave.open(str(recordings / "goforward.wav")) as file:
            pcm = file.readframes(file.getnframes())
        async with (
            AsyncTcpClient("127.0.0.1", server.ports["wyoming"]) as client,
            asyncio.timeout(120),
        ):
            await said(client, Transcribe(), AudioStart(**FORM))
            for start in range(0, len(pcm), 2_048):
                await said(client, AudioChunk(audio=pcm[start : start + 2_048], **FORM))
            await said(client, AudioStop())
            told = await until(client, TranscriptStop)
            words = Transcript.from_event(told[-2]).text
            await said(client, Synthesize(text=words))
            speech = audio(await until(client, AudioStop))
    assert "go forward ten" in words
    assert len(speech) > RATE_HZ
