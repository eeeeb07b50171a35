"""Every provider of ours passes the suite that is shipped for everybody's."""

import json

import pytest

from tests.providers.humming import silence, voice
from tests.providers.openai_service import saying, serving
from voicechat.audio.resample import RateConverter
from voicechat.providers import espeak, openai, pocketsphinx
from voicechat.providers.interfaces import VoiceOptions
from voicechat.testing.conformance import (
    check_chat_model,
    check_recognizer,
    check_synthesizer,
    leaving_nothing,
)

pytestmark = pytest.mark.real_time

DONE = b"data: [DONE]\n\n"


async def test_espeak() -> None:
    async with leaving_nothing():
        synthesizer = espeak.open_synthesizer()
        await synthesizer.start()
        await check_synthesizer(synthesizer)
        await synthesizer.aclose()


async def test_pocketsphinx() -> None:
    pcm = await speech("Go forward ten meters.")
    async with leaving_nothing():
        recognizer = pocketsphinx.open_recognizer(workers=1, streams_per_worker=2)
        await recognizer.start()
        await check_recognizer(recognizer, pcm, at_once=2)
        await recognizer.aclose()


async def test_openai_chat() -> None:
    events = [{"choices": [{"delta": {"content": text}}]} for text in ("Hello", " there", ".")]
    async with leaving_nothing(), serving() as service:
        service.answers = [
            saying(*(f"data: {json.dumps(event)}\n\n".encode() for event in events), DONE)
        ]
        model = openai.open_chat_model(model="m", base_url=service.base_url)
        await model.start()
        await check_chat_model(model)
        await model.aclose()


async def test_openai_speech() -> None:
    async with leaving_nothing(), serving() as service:
        service.answers = [saying(voice(500), voice(501)[:-1])]
        synthesizer = openai.open_synthesizer(model="m", base_url=service.base_url)
        await synthesizer.start()
        await check_synthesizer(synthesizer)
        await synthesizer.aclose()


async def test_openai_transcription() -> None:
    async with leaving_nothing(), serving() as service:
        service.answers = [saying(b'{"text": "one two three"}')]
        recognizer = openai.open_recognizer(model="m", base_url=service.base_url)
        await recognizer.start()
        await check_recognizer(recognizer, silence(300) + voice(1200) + silence(900) + voice(800))
        await recognizer.aclose()


async def speech(text: str) -> bytes:
    """Speak ``text`` as s16le mono 16 kHz."""
    synthesizer, converter = espeak.open_synthesizer(), RateConverter(16_000)
    pcm = b"".join(
        [
            converter.push_audio(chunk.pcm, chunk.rate_hz)
            async for chunk in synthesizer.synthesize(text, VoiceOptions())
        ]
    )
    await synthesizer.aclose()
    return pcm + converter.finish_stream()
