import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.providers.openai_service import Answer, Endless, Service, cut_off, saying, serving
from voicechat.audio.wav import wav_header
from voicechat.errors import ConfigError, FailureKind, ProviderError
from voicechat.providers.interfaces import AudioChunk, VoiceOptions
from voicechat.providers.openai import open_synthesizer
from voicechat.providers.openai_speech import VOICES, OpenAISynthesizer, SpokenSamples
from voicechat.providers.registry import find_factory

PCM = b"".join(struct.pack("<h", value) for value in range(1, 301))


@asynccontextmanager
async def speaking(answer: Answer, **options: object) -> AsyncIterator[tuple[Service, OpenAISynthesizer]]:
    async with serving() as service:
        service.answers = [answer]
        synthesizer = find_factory("tts", "openai")(model="m", base_url=service.base_url, api_key="secret", **options)
        assert isinstance(synthesizer, OpenAISynthesizer)
        try:
            yield service, synthesizer
        finally:
            await synthesizer.aclose()


async def speak(
    synthesizer: OpenAISynthesizer, text: str = "你好", voice: VoiceOptions | None = None
) -> list[AudioChunk]:
    return [chunk async for chunk in synthesizer.synthesize(text, voice or VoiceOptions())]


async def failure(synthesizer: OpenAISynthesizer, text: str = "hello", voice: str = "") -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await speak(synthesizer, text, VoiceOptions(voice=voice))
    return caught.value


def joined(chunks: list[AudioChunk]) -> bytes:
    assert all(len(chunk.pcm) % 2 == 0 for chunk in chunks)
    return b"".join(chunk.pcm for chunk in chunks)


@pytest.mark.real_time
async def test_a_sentence_with_its_request() -> None:
    async with speaking(saying(PCM), instructions="calmly") as (service, synthesizer):
        chunks = await speak(synthesizer)
        assert joined(chunks) == PCM
        assert {chunk.rate_hz for chunk in chunks} == {24_000}
        assert [asked.body for asked in service.asked] == [
            {"model": "m", "response_format": "pcm", "instructions": "calmly", "input": "你好", "voice": VOICES[0]}
        ]
        assert service.asked[0].authorization == "Bearer secret"


@pytest.mark.real_time
async def test_samples_that_are_cut_anywhere_are_put_together() -> None:
    pieces = [PCM[:1], PCM[1:4], PCM[4:201], PCM[201:]]
    async with speaking(saying(*pieces, pause_s=0.01)) as (_, synthesizer):
        assert joined(await speak(synthesizer)) == PCM


@pytest.mark.real_time
async def test_sound_is_given_out_before_all_is_made() -> None:
    async with speaking(saying(PCM, PCM, pause_s=60)) as (_, synthesizer):
        chunks = synthesizer.synthesize("hello", VoiceOptions())
        assert (await anext(chunks)).pcm == PCM
        await chunks.aclose()


@pytest.mark.real_time
async def test_cancelling_closes_the_connection_at_once() -> None:
    endless = Endless(PCM)
    async with speaking(endless) as (_, synthesizer):
        chunks = synthesizer.synthesize("hello", VoiceOptions())
        await anext(chunks)
        await chunks.aclose()
        await endless.gone.wait()


@pytest.mark.real_time
async def test_connections_are_warm_and_used_again() -> None:
    async with speaking(saying(PCM)) as (service, synthesizer):
        await synthesizer.start()
        for _ in range(3):
            await speak(synthesizer)
        assert service.warmed_up == len(service.peers) == 1


@pytest.mark.real_time
@pytest.mark.parametrize("text", ["", " \n", "...", "。！", "——"])
async def test_nothing_speakable_is_not_sent(text: str) -> None:
    async with speaking(saying(PCM)) as (service, synthesizer):
        assert await speak(synthesizer, text) == []
        assert service.asked == []


@pytest.mark.real_time
async def test_a_voice_and_a_speed_are_asked_for() -> None:
    async with speaking(saying(PCM), voices=["anna", "ben"]) as (service, synthesizer):
        assert synthesizer.voices == ("anna", "ben")
        await speak(synthesizer, voice=VoiceOptions(voice="ben", speech_rate=1.5, model="cosyvoice-v1"))
        await speak(synthesizer)
        assert [(asked.body["voice"], asked.body.get("speed")) for asked in service.asked] == [
            ("ben", 1.5),
            ("anna", None),
        ]
        assert {asked.body["model"] for asked in service.asked} == {"m"}


@pytest.mark.real_time
async def test_what_cannot_be_asked_is_rejected_without_asking() -> None:
    async with speaking(saying(PCM)) as (service, synthesizer):
        assert (await failure(synthesizer, voice="nobody")).kind is FailureKind.REJECTED
        assert (await failure(synthesizer, "one \ud83d two")).kind is FailureKind.REJECTED
        assert service.asked == []


@pytest.mark.real_time
@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (saying(b'{"error": {"type": "server_error"}}', content_type="application/json"), FailureKind.CONNECTIVITY),
        (saying(b'{"audio": "UklGRg=="}', content_type="application/json"), FailureKind.BROKEN),
        (saying(b'{"error": {"code": "invalid_voice"}}', status=400), FailureKind.REJECTED),
        (saying(b"ID3\x04" + bytes(100)), FailureKind.BROKEN),
        (saying(b"\xff\xf3\x84\xc4" + bytes(100), content_type="audio/mpeg"), FailureKind.BROKEN),
        (cut_off(PCM), FailureKind.CONNECTIVITY),
    ],
)
async def test_answers_that_are_no_speech(answer: Answer, kind: FailureKind) -> None:
    async with speaking(answer) as (_, synthesizer):
        assert (await failure(synthesizer)).kind is kind


@pytest.mark.real_time
async def test_a_wav_answer_says_its_own_rate() -> None:
    async with speaking(saying(wav_header(22_050, None) + PCM), response_format="wav") as (service, synthesizer):
        chunks = await speak(synthesizer)
        assert joined(chunks) == PCM
        assert {chunk.rate_hz for chunk in chunks} == {22_050}
        assert service.asked[0].body["response_format"] == "wav"


def test_which_prosody_is_the_endpoints() -> None:
    synthesizer = open_synthesizer(model="m")
    assert synthesizer.shapes_prosody(0.5, 1)
    assert synthesizer.shapes_prosody(2, 1)
    assert not synthesizer.shapes_prosody(1.5, 1.1)
    assert not synthesizer.shapes_prosody(0.2, 1)
    assert not open_synthesizer(model="m", obeys_speed=False).shapes_prosody(1.5, 1)


@pytest.mark.parametrize(
    ("key", "value"), [("voices", []), ("voices", [""]), ("rate_hz", 100), ("response_format", "mp3")]
)
def test_wrong_settings_are_named(key: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"^{key}"):
        find_factory("tts", "openai")(model="m", **{key: value})


# --- the body, cut anywhere ------------------------------------------------------------------------------------


def read(body: bytes, cuts: list[int], *, mpeg: bool = False) -> tuple[bytes, int]:
    samples, pcm, position = SpokenSamples(24_000, mpeg=mpeg), b"", 0
    for size in cuts:
        pcm += samples.push(body[position : position + size])
        position += size
    return pcm + samples.push(body[position:]) + samples.finish(), samples.rate_hz


CUTS = st.lists(st.integers(1, 60), max_size=30)
TAGS = b"LIST\x04\x00\x00\x00INFO"
STEREO_8_BIT = b"RIFF\xff\xff\xff\xffWAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 2, 8000, 16000, 2, 8)


@given(CUTS)
def test_the_cut_does_not_matter(cuts: list[int]) -> None:
    assert read(PCM, cuts) == (PCM, 24_000)
    assert read(PCM + b"\x01", cuts) == (PCM, 24_000)
    assert read(wav_header(16_000, len(PCM)) + PCM + TAGS, cuts) == (PCM, 16_000)
    assert read(wav_header(16_000, 0) + PCM, cuts) == (PCM, 16_000)
    eight_bits = STEREO_8_BIT + b"data\xff\xff\xff\xff" + bytes([128, 130, 0, 0, 200])
    assert read(eight_bits, cuts) == (struct.pack("<hh", 256, -32768), 8_000)


@given(st.binary(max_size=80), CUTS, st.booleans())
def test_any_bytes_are_samples_or_broken_whatever_the_cut(body: bytes, cuts: list[int], mpeg: bool) -> None:
    def outcome(cuts: list[int]) -> object:
        try:
            return read(body, cuts, mpeg=mpeg)
        except ProviderError as error:
            return error.kind

    assert outcome(cuts) == outcome([])


@pytest.mark.parametrize("body", [b"ID3", b"OggS", b"fLaC"])
def test_compressed_audio_is_refused(body: bytes) -> None:
    for cuts in ([], [1] * 3):
        with pytest.raises(ProviderError, match="compressed audio") as caught:
            read(body + bytes(20), cuts)
        assert caught.value.kind is FailureKind.BROKEN


def test_very_short_speech_is_speech() -> None:
    for body in (b"RI", b"RIFF", b"ID", b"\x01\x00"):
        assert read(body, [1])[0] == body


def test_loud_samples_are_no_mpeg_unless_the_server_says_so() -> None:
    loud = b"\xff\xf3" * 20
    assert read(loud, []) == (loud, 24_000)
    with pytest.raises(ProviderError):
        read(loud, [1], mpeg=True)


def test_a_wav_header_that_cannot_be_used_is_broken() -> None:
    with pytest.raises(ProviderError, match="0x0055") as caught:
        read(b"RIFF\xff\xff\xff\xffWAVEfmt " + struct.pack("<IHHIIHH", 16, 0x55, 1, 8000, 8000, 1, 0) + b"data", [])
    assert caught.value.kind is FailureKind.BROKEN


async def test_closing_before_the_first_chunk_asks_nobody() -> None:
    chunks = open_synthesizer(model="m").synthesize("hello", VoiceOptions())
    await chunks.aclose()
    assert asyncio.all_tasks() == {asyncio.current_task()}
