"""The server as it runs, over a socket and in real time: recordings of people, the real
recogniser and detector.
"""

import asyncio
import json
import wave
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from aiohttp import web

from tests.providers.openai_service import saying
from tests.providers.openai_service import serving as serving_openai
from tests.voice.sounds import RATE_HZ
from voicechat.client import (
    CanceledMessage,
    ClientConversation,
    ReplyAudioMessage,
    ReplyFinishedMessage,
    ServerMessage,
    SpeechStoppedMessage,
    TranscriptMessage,
    TurnCompletedMessage,
    chat_settings,
    connect,
)
from voicechat.config import build_services, load_config
from voicechat.runtime.services import Services
from voicechat.server.serve import credentials, serving
from voicechat.testing.scripted import ScriptedModel, ScriptedSynthesizer

pytestmark = pytest.mark.real_time

BLOCK_BYTES = RATE_HZ * 2 // 10
LONG = ("This goes on for quite some time. " * 6,)


@asynccontextmanager
async def conversation(
    folder: Path, model: ScriptedModel | None = None, asr: dict[str, str] | None = None
) -> AsyncIterator[ClientConversation]:
    """With the recogniser that comes with the server, or that of ``asr``, and a long
    answer.
    """
    overrides: dict[str, dict[str, object]] = {"server": {"port": 0}}
    if asr:
        overrides["asr"] = {"default": asr}
    config = load_config(None, {"VOICECHAT_DATA_DIR": str(folder)}, overrides)
    own = build_services(config)
    model = model or ScriptedModel((LONG,))
    services = Services(own.recognizers, {"default": model}, {"default": ScriptedSynthesizer()})
    async with (
        serving(config, services, credentials(config), lambda _: None) as server,
        connect(server.url, key=server.key or "") as client,
    ):
        await client.update(
            chat_settings(
                input_format="pcm",
                sample_rate_hz=RATE_HZ,
                output_format="PCM_16000HZ_MONO_16BIT",
                turn_detection={},
                binary_audio=True,
            )
        )
        yield client


class Microphone:
    """Open all the time; says what it is given, in real time."""

    def __init__(self, client: ClientConversation) -> None:
        self._client = client
        self._waiting = b""

    def says(self, pcm: bytes) -> None:
        self._waiting += pcm

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        began_s, blocks = loop.time(), 0
        while True:
            block, self._waiting = self._waiting[:BLOCK_BYTES], self._waiting[BLOCK_BYTES:]
            await self._client.send_audio(block.ljust(BLOCK_BYTES, b"\0"))
            blocks += 1
            await asyncio.sleep(began_s + blocks * 0.1 - loop.time())


def recording(path: Path) -> bytes:
    with wave.open(str(path)) as file:
        pcm: bytes = file.readframes(file.getnframes())
    return pcm


@pytest.mark.long
async def test_a_person_interrupts_and_every_word_of_the_interruption_is_understood(
    recordings: Path, tmp_path: Path
) -> None:
    said = (recording(recordings / "something.wav"), recording(recordings / "goforward.wav"))
    messages: list[ServerMessage] = []
    async with conversation(tmp_path) as client, asyncio.timeout(120), asyncio.TaskGroup() as tasks:
        microphone = Microphone(client)
        sending = tasks.create_task(microphone.run())
        microphone.says(said[0])
        with suppress(StopAsyncIteration):
            while len(finals(messages)) < 2:
                messages.append(await anext(client))
                if isinstance(messages[-1], ReplyAudioMessage) and not any(
                    isinstance(m, ReplyAudioMessage) for m in messages[:-1]
                ):
                    microphone.says(bytes(RATE_HZ * 2) + said[1])
        sending.cancel()
    assert finals(messages) == ["go somewhere and do something", "go forward ten meters"]
    [canceled] = [
        number for number, message in enumerate(messages) if isinstance(message, CanceledMessage)
    ]
    assert messages[canceled] == CanceledMessage(0, "", "turn_detected")
    assert not any(
        isinstance(m, ReplyAudioMessage) and m.reply_id == "1" for m in messages[canceled:]
    )


NO_WORDS = ("[BLANK_AUDIO]", "(coughing)", "♪♪", ".", "（咳嗽）")


@pytest.mark.long
async def test_what_a_recogniser_writes_of_sounds_begins_no_turn_and_interrupts_nobody(
    recordings: Path, tmp_path: Path
) -> None:
    sound = recording(recordings / "goforward.wav")[: RATE_HZ * 3]
    cough = sound[RATE_HZ : RATE_HZ * 2]
    """Half a second: a voice that goes on for one second interrupts by itself."""
    said = "Tell me a story"
    text = NO_WORDS[0]

    async def answer(request: web.Request, response: web.StreamResponse) -> None:
        await saying(json.dumps({"text": text}).encode(), content_type="application/json")(
            request, response
        )

    model = ScriptedModel((LONG,))
    seen: list[ServerMessage] = []

    async def until(kind: type[ServerMessage], count: int = 1) -> None:
        while sum(isinstance(message, kind) for message in seen) < count:
            seen.append(await anext(client))

    async with serving_openai() as service, asyncio.timeout(120), asyncio.TaskGroup() as tasks:
        service.answers = [answer]
        asr = {"provider": "openai", "model": "whisper-1", "base_url": service.base_url}
        async with conversation(tmp_path, model, asr) as client:
            microphone = Microphone(client)
            sending = tasks.create_task(microphone.run())
            for number, text in enumerate(NO_WORDS):  # noqa: B007 - the service says it
                microphone.says(sound)
                await until(SpeechStoppedMessage, number + 1)
                await client.complete()
                await until(TurnCompletedMessage, number + 1)
            assert model.requests == []
            text = said
            microphone.says(sound)
            await until(ReplyAudioMessage)
            stopped = sum(isinstance(message, SpeechStoppedMessage) for message in seen)
            text = "(coughing)"
            microphone.says(cough)
            await until(SpeechStoppedMessage, stopped + 1)
            await until(ReplyFinishedMessage)
            sending.cancel()
    assert {request.messages[-1]["content"] for request in model.requests} == {said}
    assert not any(isinstance(message, CanceledMessage) for message in seen)
    assert finals(seen) == [said]


def finals(messages: list[ServerMessage]) -> list[str]:
    return [
        message.text
        for message in messages
        if isinstance(message, TranscriptMessage) and message.final
    ]
