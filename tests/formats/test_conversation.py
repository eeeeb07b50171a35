"""A whole conversation in compressed audio, both ways."""

import os
from collections.abc import AsyncIterator

import pytest

from tests.formats.material import container_of, decoded, encoded, encoded_from
from voicechat.audio.formats import InputContainer
from voicechat.audio.wav import wav_header
from voicechat.processes.forked import ForkServer
from voicechat.providers.interfaces import RecognitionOptions
from voicechat.runtime.decoding import open_decoding
from voicechat.session.commands import CommitTurn
from voicechat.session.notices import ReplyAudio, TurnCompleted
from voicechat.session.types import InputSettings, Settings, Transcript, VoiceSettings
from voicechat.testing.harness import ConversationHarness
from voicechat.testing.scripted import ScriptedModel, ScriptedRecognizer

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
    recognizer: ScriptedRecognizer, decoding: ForkServer, recorded: InputSettings, audio: bytes
) -> ConversationHarness:
    """Speak one turn with ``audio``, declared by ``recorded``, and wait until it is
    answered.
    """
    harness = ConversationHarness(
        recognizer=recognizer,
        model=ScriptedModel([[REPLY]]),
        decoding=decoding,
        settings=Settings(input=recorded, voice=VoiceSettings(format="OGG_OPUS_24KHZ_MONO_32KBPS")),
        close_s=10,
    )
    async with harness:
        for at in range(0, len(audio), 700):
            harness.send_frame(audio[at : at + 700])
        harness.send(CommitTurn())
        await harness.notice(TurnCompleted)
    return harness


@pytest.mark.parametrize("name", ["opus", "webm", "amr-nb", "aac", "flac", "speex", "mp3", "g722"])
async def test_a_client_speaks_one_format_and_hears_another(
    name: str, decoding: ForkServer
) -> None:
    recognizer = ScriptedRecognizer(["hello"])
    recorded = InputSettings(format=container_of(name).value)
    harness = await hold(recognizer, decoding, recorded, encoded(name))
    assert recognizer.heard_ms == [len(decoded(container_of(name), encoded(name))) // 32]
    spoken = decoded(InputContainer.OPUS, b"".join(told.payload for told in harness.of(ReplyAudio)))
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
    ("recorded", "audio", "rate_hz"),
    [
        (
            InputSettings(format="wav", sample_rate_hz=16000),
            wav_header(8000, None) + A_SECOND,
            8000,
        ),
        (
            InputSettings(format="wav", sample_rate_hz=8000),
            wav_header(44100, None) + A_SECOND,
            44100,
        ),
        (InputSettings(format="wav", sample_rate_hz=8000), A_SECOND, 8000),
        (InputSettings(format="pcm", sample_rate_hz=8000), A_SECOND, 8000),
        (InputSettings(format="pcm", sample_rate_hz=16000), A_SECOND, 16000),
        (InputSettings(format="amr", sample_rate_hz=16000), encoded("amr-nb"), 8000),
        (InputSettings(format="mp3", sample_rate_hz=8000), encoded("mp3"), 16000),
        (InputSettings(format="opus", sample_rate_hz=16000), encoded_from("opus", 8000), 8000),
        (InputSettings(format="webm", sample_rate_hz=16000), encoded("webm"), 48000),
    ],
)
async def test_the_recogniser_is_told_the_rate_that_the_audio_names(
    recorded: InputSettings, audio: bytes, rate_hz: int, decoding: ForkServer
) -> None:
    recognizer = RateRecognizer(["hello"])
    await hold(recognizer, decoding, recorded, audio)
    assert recognizer.told_hz == rate_hz
