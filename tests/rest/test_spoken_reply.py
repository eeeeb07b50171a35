"""A spoken reply in virtual time: its deadlines, its bound on unsent audio, and that it
leaves nothing behind.
"""

import asyncio
from contextlib import aclosing

import pytest

from tests.chained import chained_model, chained_voice
from voicechat.errors import Status
from voicechat.providers.interfaces import ChatModel
from voicechat.runtime.encoding import EncodingThreads
from voicechat.server.rest.failures import ServiceFailedError
from voicechat.server.rest.spoken_reply import FIRST_REPLY, SpokenReply
from voicechat.session.effects import StartReply
from voicechat.session.limits import SessionLimits
from voicechat.session.notices import (
    Notice,
    ReplyAudio,
    ReplyAudioFinished,
    ReplyText,
    ReplyTextFinished,
)
from voicechat.session.types import ChatSettings, VoiceSettings
from voicechat.testing.scripted import Failure, ScriptedModel, ScriptedSynthesizer

PCM = VoiceSettings(format="PCM_16000HZ_MONO_16BIT")


def spoken(
    model: ChatModel, synthesizer: ScriptedSynthesizer, limits: SessionLimits | None = None
) -> SpokenReply:
    start = StartReply(
        reply=FIRST_REPLY,
        messages=({"role": "user", "content": "x"},),
        chat=ChatSettings(),
        voice=PCM,
    )
    limits = limits or SessionLimits()
    voice = chained_voice(synthesizer, limits)
    return SpokenReply(
        start, chained_model(model, limits), voice, threads=EncodingThreads(), limits=limits
    )


async def all_of(reply: SpokenReply) -> list[Notice]:
    async with aclosing(reply.messages()) as messages:
        return [message async for message in messages]


async def test_text_then_speech_then_the_end_and_no_task_is_left() -> None:
    before = asyncio.all_tasks()
    synthesizer = ScriptedSynthesizer()
    messages = await all_of(spoken(ScriptedModel(), synthesizer))
    text = [message.text for message in messages if isinstance(message, ReplyText)]
    assert "".join(text) == "Hello there. How are you?"
    assert synthesizer.texts == ["Hello there.", "How are you?"]
    ends_ms = [message.end_ms for message in messages if isinstance(message, ReplyAudio)]
    assert ends_ms == sorted(ends_ms)
    assert sum(isinstance(message, ReplyTextFinished) for message in messages) == 1
    assert isinstance(messages[-1], ReplyAudioFinished)
    assert asyncio.all_tasks() == before


async def test_text_that_waits_for_the_end_of_its_sentence_is_spoken_as_it_stands() -> None:
    loop = asyncio.get_running_loop()
    model = ScriptedModel(replies=[["I am looking that up for you ", "now."]], delta_ms=8_000)
    synthesizer = ScriptedSynthesizer()
    began_s = loop.time()
    async with aclosing(spoken(model, synthesizer).messages()) as messages:
        async for message in messages:
            if isinstance(message, ReplyAudio):
                break
    limits = SessionLimits()
    assert loop.time() - began_s == pytest.approx(limits.speakable_wait_ms / 1000, abs=0.1)
    assert synthesizer.texts == ["I am looking that up for you"]


@pytest.mark.parametrize(
    ("model", "synthesizer", "status"),
    [
        (ScriptedModel(failure=Failure(kind=None)), ScriptedSynthesizer(), Status.LLM_FAILED),
        (ScriptedModel(failure=Failure()), ScriptedSynthesizer(), Status.LLM_FAILED),
        (ScriptedModel(), ScriptedSynthesizer(failure=Failure(kind=None)), Status.TTS_FAILED),
        (ScriptedModel(), ScriptedSynthesizer(silent=lambda _: True), Status.TTS_FAILED),
    ],
)
async def test_a_service_that_fails_or_hangs_ends_the_reply_in_time(
    model: ScriptedModel, synthesizer: ScriptedSynthesizer, status: Status
) -> None:
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    with pytest.raises(ServiceFailedError) as failed:
        await all_of(spoken(model, synthesizer))
    assert failed.value.status is status
    assert loop.time() - began_s < 16
    assert (model.open, synthesizer.open) == (0, 0)


async def test_a_slow_reader_makes_the_synthesiser_wait() -> None:
    limits = SessionLimits(ahead_bytes=64_000)
    model = ScriptedModel(replies=[["Sentence number one, with many words in it. " * 40]])
    synthesizer = ScriptedSynthesizer(ms_per_character=100)
    reply = spoken(model, synthesizer, limits)
    async with aclosing(reply.messages()) as messages:
        await anext(messages)
        await asyncio.sleep(60)
        waiting_bytes = reply.unsent_bytes
        spoken_before = len(synthesizer.texts)
        assert limits.ahead_bytes <= waiting_bytes < limits.ahead_bytes + 10_000
        async for _ in messages:
            assert reply.unsent_bytes < limits.ahead_bytes + 10_000
    assert spoken_before < 5 < 40 <= len(synthesizer.texts)


async def test_closing_it_early_cancels_both_services_and_leaves_no_task() -> None:
    before = asyncio.all_tasks()
    model = ScriptedModel(replies=[["Hello there. "] * 50], delta_ms=100)
    synthesizer = ScriptedSynthesizer(chunk_delay_ms=50)
    async with aclosing(spoken(model, synthesizer).messages()) as messages:
        async for message in messages:
            if isinstance(message, ReplyAudio):
                break
        assert (model.open, synthesizer.open > 0) == (1, True)
    assert (model.open, synthesizer.open) == (0, 0)
    assert asyncio.all_tasks() == before
