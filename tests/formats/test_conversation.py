"""A whole conversation in compressed audio, both ways."""

import asyncio
import base64
import json
import os
from collections.abc import AsyncIterator

import pytest

from tests.formats.material import container_of, decoded, encoded, encoded_from
from voicechat.audio.formats import InputContainer
from voicechat.audio.wav import wav_header
from voicechat.dialects.base import Connection
from voicechat.dialects.speech_chat.rules import SpeechChat
from voicechat.processes.forked import ForkServer
from voicechat.providers.interfaces import RecognitionOptions
from voicechat.runtime.conversation import Conversation, SessionProviders
from voicechat.runtime.decoding import open_decoding
from voicechat.runtime.encoding import EncodingThreads
from voicechat.session.limits import SessionLimits
from voicechat.session.session import Session
from voicechat.session.vocabulary import Transcript
from voicechat.testing.scripted import ScriptedModel, ScriptedRecognizer, ScriptedSynthesizer
from voicechat.testing.socket import MemorySocket

pytestmark = [
    pytest.mark.real_time,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a system that can fork"),
]

REPLY = "Hello there."


@pytest.fixture
async def decoding() -> AsyncIterator[ForkServer]:
    server = open_decoding()
    yield server
    await server.aclose()


async def hold(
    recognizer: ScriptedRecognizer, decoding: ForkServer, settings: dict[str, object], audio: bytes
) -> MemorySocket:
    """Speak one turn with ``audio``, declared by ``settings``, and wait until it is
    answered.
    """
    socket, threads = MemorySocket(), EncodingThreads()
    cast = SessionProviders(
        recognizer=recognizer,
        models=lambda _: ScriptedModel([[REPLY]]),
        synthesizer=ScriptedSynthesizer(),
        threads=threads,
        decoding=decoding,
    )
    limits = SessionLimits()
    dialect = SpeechChat(Connection(session_id="s"))
    conversation = Conversation(
        Session(limits=limits), dialect, socket, cast, limits=limits, observe=lambda fact: None
    )
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        running = group.create_task(conversation.run())
        socket.send_from_client(update(settings, "OGG_OPUS_24KHZ_MONO_32KBPS"))
        for at in range(0, len(audio), 700):
            socket.send_from_client(audio[at : at + 700])
        socket.send_from_client(json.dumps({"event_type": "input_audio_buffer.complete"}))
        while not any('"conversation.chat.completed"' in str(s.frame) for s in socket.sent):  # noqa: ASYNC110
            await asyncio.sleep(0.002)
        socket.disconnect()
        await running
    threads.close()
    return socket


@pytest.mark.parametrize("name", ["opus", "webm", "amr-nb", "aac", "flac", "speex", "mp3", "g722"])
async def test_a_client_speaks_one_format_and_hears_another(
    name: str, decoding: ForkServer
) -> None:
    recognizer = ScriptedRecognizer(["hello"])
    socket = await hold(recognizer, decoding, {"format": container_of(name).value}, encoded(name))
    assert recognizer.heard_ms == [len(decoded(container_of(name), encoded(name))) // 32]
    spoken = decoded(InputContainer.OPUS, audio_in(socket))
    # The silence after the sentence, which pushes it out of the encoder, is heard as
    # well.
    assert len(spoken) / 32 == pytest.approx(len(REPLY) * 50 + 30, abs=10)


class RateRecognizer(ScriptedRecognizer):
    """Notes the rate that it is told."""

    told_hz: int = 0

    async def recognize(
        self, audio: AsyncIterator[bytes], options: RecognitionOptions
    ) -> AsyncIterator[Transcript]:
        self.told_hz = options.source_rate_hz
        async for transcript in super().recognize(audio, options):
            yield transcript


A_SECOND = bytes(32_000)


@pytest.mark.parametrize(
    ("settings", "audio", "rate_hz"),
    [
        ({"format": "wav", "sample_rate": 16000}, wav_header(8000, None) + A_SECOND, 8000),
        ({"format": "wav", "sample_rate": 8000}, wav_header(44100, None) + A_SECOND, 44100),
        ({"format": "wav", "sample_rate": 8000}, A_SECOND, 8000),
        ({"format": "pcm", "sample_rate": 8000}, A_SECOND, 8000),
        ({"format": "pcm", "sample_rate": 16000}, A_SECOND, 16000),
        ({"format": "amr", "sample_rate": 16000}, encoded("amr-nb"), 8000),
        ({"format": "mp3", "sample_rate": 8000}, encoded("mp3"), 16000),
        ({"format": "opus", "sample_rate": 16000}, encoded_from("opus", 8000), 8000),
        ({"format": "webm", "sample_rate": 16000}, encoded("webm"), 48000),
    ],
)
async def test_the_recogniser_is_told_the_rate_that_the_audio_names(
    settings: dict[str, object], audio: bytes, rate_hz: int, decoding: ForkServer
) -> None:
    recognizer = RateRecognizer(["hello"])
    await hold(recognizer, decoding, settings, audio)
    assert recognizer.told_hz == rate_hz


def update(settings: dict[str, object], output: str) -> str:
    message = {
        "create_transcription_task_req": {"speech_recognition_param": settings},
        "chat_completion_with_voice_output_req": {
            "chat_completion_req": {},
            "speech_synthesis_req": {"synthesis_param": {"format": output}},
        },
    }
    return json.dumps({"event_type": "chat.update", "message": message})


def audio_in(socket: MemorySocket) -> bytes:
    messages = [json.loads(sent.frame) for sent in socket.sent]
    return b"".join(
        base64.b64decode(message["audioFrame"]) for message in messages if message.get("audioFrame")
    )
