import asyncio
import base64
import io
import itertools
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import av
import numpy as np
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
async def speaking(
    answer: Answer, **options: object
) -> AsyncIterator[tuple[Service, OpenAISynthesizer]]:
    async with serving() as service:
        service.answers = [answer]
        synthesizer = find_factory("tts", "openai")(
            model="m", base_url=service.base_url, api_key="secret", **options
        )
        assert isinstance(synthesizer, OpenAISynthesizer)
        try:
            yield service, synthesizer
        finally:
            await synthesizer.aclose()


async def speak(
    synthesizer: OpenAISynthesizer, text: str = "你好", voice: VoiceOptions | None = None
) -> list[AudioChunk]:
    return [chunk async for chunk in synthesizer.synthesize(text, voice or VoiceOptions())]


async def failure(
    synthesizer: OpenAISynthesizer, text: str = "hello", voice: str = ""
) -> ProviderError:
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
            {
                "model": "m",
                "response_format": "pcm",
                "instructions": "calmly",
                "input": "你好",
                "voice": VOICES[0],
            }
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
        await speak(
            synthesizer, voice=VoiceOptions(voice="ben", speech_rate=1.5, model="cosyvoice-v1")
        )
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
        (
            saying(b'{"error": {"type": "server_error"}}', content_type="application/json"),
            FailureKind.CONNECTIVITY,
        ),
        (saying(b'{"audio": "UklGRg=="}', content_type="application/json"), FailureKind.BROKEN),
        (saying(b'{"error": {"code": "invalid_voice"}}', status=400), FailureKind.REJECTED),
        (saying(b"ID3\x04" + bytes(100)), FailureKind.BROKEN),
        (saying(b"\xff\xf3\x84\xc4" + bytes(100), content_type="audio/mpeg"), FailureKind.BROKEN),
        (saying(PCM, content_type="audio/aac"), FailureKind.BROKEN),
        (saying(PCM, content_type="text/html"), FailureKind.BROKEN),
        (cut_off(PCM), FailureKind.CONNECTIVITY),
    ],
)
async def test_answers_that_are_no_speech(answer: Answer, kind: FailureKind) -> None:
    async with speaking(answer) as (_, synthesizer):
        assert (await failure(synthesizer)).kind is kind


@pytest.mark.real_time
async def test_a_wav_answer_says_its_own_rate() -> None:
    async with speaking(saying(wav_header(22_050, None) + PCM), response_format="wav") as (
        service,
        synthesizer,
    ):
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
    ("key", "value"),
    [("voices", []), ("voices", [""]), ("rate_hz", 100), ("response_format", "mp3")],
)
def test_wrong_settings_are_named(key: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"^{key}"):
        find_factory("tts", "openai")(model="m", **{key: value})


# --- the body, cut anywhere -----------------------------------------------------------


OCTETS = "application/octet-stream"


def read(body: bytes, cuts: list[int], content_type: str = OCTETS) -> tuple[bytes, int]:
    samples, pcm, position = SpokenSamples(24_000, content_type), b"", 0
    for size in cuts:
        pcm += samples.push_bytes(body[position : position + size])
        position += size
    return pcm + samples.push_bytes(body[position:]) + samples.finish_audio(), samples.rate_hz


CUTS = st.lists(st.integers(1, 60), max_size=30)
TAGS = b"LIST\x04\x00\x00\x00INFO"
STEREO_8_BIT = b"RIFF\xff\xff\xff\xffWAVEfmt " + struct.pack(
    "<IHHIIHH", 16, 1, 2, 8000, 16000, 2, 8
)


@given(CUTS)
def test_the_cut_does_not_matter(cuts: list[int]) -> None:
    assert read(PCM, cuts) == (PCM, 24_000)
    assert read(PCM + b"\x01", cuts) == (PCM, 24_000)
    assert read(wav_header(16_000, len(PCM)) + PCM + TAGS, cuts) == (PCM, 16_000)
    assert read(wav_header(16_000, 0) + PCM, cuts) == (PCM, 16_000)
    eight_bits = STEREO_8_BIT + b"data\xff\xff\xff\xff" + bytes([128, 130, 0, 0, 200])
    assert read(eight_bits, cuts) == (struct.pack("<hh", 256, -32768), 8_000)


START = st.sampled_from(
    [b"", b"\xff\xf3", b"\xff\xf1", b"ID3", b"RIFF", b"<html", b"OggS", b"\xff\xfb\x90\x64"]
)


@given(START, st.binary(max_size=200), CUTS, st.sampled_from([OCTETS, "audio/mpeg"]))
def test_any_bytes_are_samples_or_broken_whatever_the_cut(
    start: bytes, rest: bytes, cuts: list[int], content_type: str
) -> None:
    def outcome(cuts: list[int]) -> object:
        try:
            return read(start + rest, cuts, content_type)
        except ProviderError as error:
            return error.kind

    assert outcome(cuts) == outcome([])


def encoded(container: str, codec: str, rate_hz: int = 48_000) -> bytes:
    """Half a second of a tone."""
    file = io.BytesIO()
    time_s = np.arange(rate_hz // 2) / rate_hz
    tone = (np.sin(2 * np.pi * 440 * time_s) * 8000).astype(np.int16)
    with av.open(file, "w", format=container) as output:
        stream = output.add_stream(codec, rate=rate_hz, layout="mono")
        assert isinstance(stream, av.AudioStream)
        frame = av.AudioFrame.from_ndarray(tone[None, :], format="s16", layout="mono")
        frame.rate = rate_hz
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            output.mux(packet)
    return file.getvalue()


FORMATS = [
    ("mp3", "mp3"),
    ("adts", "aac"),
    ("webm", "libopus"),
    ("mp4", "aac"),
    ("ogg", "libopus"),
    ("flac", "flac"),
]


@pytest.mark.parametrize(
    ("container", "codec"),
    [
        *FORMATS,
        ("aiff", "pcm_s16be"),
        ("caf", "pcm_s16be"),
        ("mpegts", "aac"),
        ("mp2", "mp2"),
        ("ac3", "ac3"),
        ("eac3", "eac3"),
        ("latm", "aac"),
    ],
)
def test_compressed_audio_is_refused_whatever_its_label(container: str, codec: str) -> None:
    body = encoded(container, codec)
    # MPEG audio and AAC without a tag begin like loud samples.
    bare = body[body.index(b"\xff\xfb") :] if container == "mp3" else body
    for answer, cuts in itertools.product((body, bare), ([], [1] * 40, [700] * 20)):
        with pytest.raises(ProviderError, match="compressed audio") as caught:
            read(answer, cuts)
        assert caught.value.kind is FailureKind.BROKEN


@pytest.mark.parametrize(
    "label",
    ["audio/mpeg", "audio/aac", "audio/webm", "audio/mp4", "audio/ogg", "video/mp4", "text/plain"],
)
def test_what_is_labelled_as_anything_but_samples_is_refused(label: str) -> None:
    for cuts in ([], [1] * 80):
        with pytest.raises(ProviderError, match=label):
            read(PCM, cuts, label)
    assert read(wav_header(16_000, len(PCM)) + PCM, [], label) == (PCM, 16_000)


@pytest.mark.parametrize(
    "label", ["audio/pcm", "audio/L16", "audio/wav", "audio/x-wav", "binary/octet-stream"]
)
def test_samples_have_many_names(label: str) -> None:
    assert read(PCM, [], label) == (PCM, 24_000)


@pytest.mark.parametrize(
    "page",
    [
        "<!DOCTYPE html><html><body>Bad gateway, please come back later</body></html>",
        '{"detail": "' + "x" * 60,
        base64.b64encode(b"RIFF" + bytes(range(100))).decode(),
    ],
)
def test_a_page_is_no_speech(page: str) -> None:
    with pytest.raises(ProviderError, match="a text"):
        read(page.encode(), [])


@pytest.mark.parametrize("body", [b"ID3", b"OggS", b"fLaC"])
def test_a_beginning_is_enough(body: bytes) -> None:
    for cuts in ([], [1] * 3):
        with pytest.raises(ProviderError, match="compressed audio") as caught:
            read(body + bytes(20), cuts)
        assert caught.value.kind is FailureKind.BROKEN


def test_very_short_speech_is_speech() -> None:
    for body in (b"RI", b"RIFF", b"ID", b"\x01\x00"):
        assert read(body, [1])[0] == body


def test_loud_samples_are_no_mpeg() -> None:
    for loud in (
        b"\xff\xf3" * 20,
        b"\xff\xf3" * 4_000,
        b"\xff\xfb\x90\x64" * 2_000,
        b"\xff\xff" * 3_000,
    ):
        assert read(loud, []) == read(loud, [1] * 9) == (loud, 24_000)


def test_a_wav_header_that_cannot_be_used_is_broken() -> None:
    with pytest.raises(ProviderError, match="0x0055") as caught:
        read(
            b"RIFF\xff\xff\xff\xffWAVEfmt "
            + struct.pack("<IHHIIHH", 16, 0x55, 1, 8000, 8000, 1, 0)
            + b"data",
            [],
        )
    assert caught.value.kind is FailureKind.BROKEN


async def test_closing_before_the_first_chunk_asks_nobody() -> None:
    chunks = open_synthesizer(model="m").synthesize("hello", VoiceOptions())
    await chunks.aclose()
    assert asyncio.all_tasks() == {asyncio.current_task()}
