"""A whole conversation in compressed audio, both ways."""

import asyncio
import base64
import json
import os
from collections.abc import AsyncIterator

import pytest

from tests.formats.material import container_of, decoded, encoded
from voicechat.audio.formats import InputContainer
from voicechat.processes.forked import ForkServer
from voicechat.runtime.conversation import Cast, Conversation
from voicechat.runtime.decoding import open_decoding
from voicechat.runtime.encoding import EncodingThreads
from voicechat.session.limits import SessionLimits
from voicechat.session.session import Session
from voicechat.testing.scripted import ScriptedModel, ScriptedRecognizer, ScriptedSynthesizer
from voicechat.testing.socket import MemorySocket
from voicechat.wire import speech_chat
from voicechat.wire.dialect import Greeting

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


@pytest.mark.parametrize("name", ["opus", "webm", "amr-nb", "aac", "flac", "speex", "mp3", "g722"])
async def test_a_client_speaks_one_format_and_hears_another(name: str, decoding: ForkServer) -> None:
    recognizer, socket, threads = ScriptedRecognizer(["hello"]), MemorySocket(), EncodingThreads()
    cast = Cast(
        recognizer=recognizer,
        models=lambda _: ScriptedModel([[REPLY]]),
        synthesizer=ScriptedSynthesizer(),
        threads=threads,
        decoding=decoding,
    )
    limits = SessionLimits()
    dialect = speech_chat.open_dialect(Greeting(session_id="s"))
    conversation = Conversation(Session(limits=limits), dialect, socket, cast, limits=limits, observe=lambda fact: None)
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        running = group.create_task(conversation.run())
        socket.say(update(container_of(name), "OGG_OPUS_24KHZ_MONO_32KBPS"))
        for at in range(0, len(encoded(name)), 700):
            socket.say(encoded(name)[at : at + 700])
        socket.say(json.dumps({"event_type": "input_audio_buffer.complete"}))
        while not any('"conversation.chat.completed"' in str(s.frame) for s in socket.sent):  # noqa: ASYNC110
            await asyncio.sleep(0.002)
        socket.vanish()
        await running
    threads.close()
    assert recognizer.heard_ms == [len(decoded(container_of(name), encoded(name))) // 32]
    spoken = decoded(InputContainer.OPUS, audio_in(socket))
    # The silence after the sentence, which pushes it out of the encoder, is heard as well.
    assert len(spoken) / 32 == pytest.approx(len(REPLY) * 50 + 30, abs=10)


def update(container: InputContainer, output: str) -> str:
    message = {
        "create_transcription_task_req": {"speech_recognition_param": {"format": container.value}},
        "chat_completion_with_voice_output_req": {
            "chat_completion_req": {},
            "speech_synthesis_req": {"synthesis_param": {"format": output}},
        },
    }
    return json.dumps({"event_type": "chat.update", "message": message})


def audio_in(socket: MemorySocket) -> bytes:
    messages = [json.loads(sent.frame) for sent in socket.sent]
    return b"".join(base64.b64decode(message["audioFrame"]) for message in messages if message.get("audioFrame"))
