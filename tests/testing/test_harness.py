"""The conversation harness does what it says, so that tests can rely on it."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from voicechat.dialects.base import Connection
from voicechat.dialects.speech_chat.rules import SpeechChat
from voicechat.providers.interfaces import AudioChunk, ChatRequest, ReplyPart, VoiceOptions
from voicechat.session.commands import Cancel, CommitTurn
from voicechat.session.events import Opened
from voicechat.session.notices import (
    Ended,
    Ending,
    Outcome,
    Recognised,
    ReplyAudio,
    ReplyEnded,
    ReplyText,
    TurnCompleted,
)
from voicechat.testing.harness import FRAME_BYTES, ConversationHarness
from voicechat.testing.scripted import ScriptedModel, ScriptedRecognizer, ScriptedSynthesizer


async def test_a_spoken_turn_is_held_in_commands_and_notices() -> None:
    recognizer = ScriptedRecognizer(texts=("one two",))
    async with ConversationHarness(recognizer=recognizer) as harness:
        harness.send_audio(bytes(6 * FRAME_BYTES))
        harness.send(CommitTurn())
        completed = await harness.notice(TurnCompleted)
    assert completed.outcome is Outcome.SPOKEN
    assert recognizer.heard_ms == [600]
    assert harness.of(Recognised)[-1].transcript.text == "one two"
    assert "".join(told.text for told in harness.of(ReplyText)) == "Hello there. How are you?"
    assert harness.of(ReplyAudio)
    assert len(harness.frames) == len(harness.notices)


async def test_notices_are_those_that_left() -> None:
    synthesizer = ScriptedSynthesizer(chunk_delay_ms=50)
    async with ConversationHarness(synthesizer=synthesizer) as harness:
        harness.send(CommitTurn("hello"))
        await harness.notice(ReplyAudio)
        harness.socket.stuck = asyncio.Event()
        await asyncio.sleep(0.5)
        sent = len(harness.of(ReplyAudio))
        harness.send(Cancel())
        await asyncio.sleep(0.1)
        harness.socket.stuck.set()
        await harness.notice(TurnCompleted)
    assert len(harness.of(ReplyAudio)) <= sent + 1, "one frame may be under way"


async def test_text_that_is_no_command_ends_the_session() -> None:
    async with ConversationHarness() as harness:
        harness.send_frame("hello")
        ended = await harness.notice(Ended)
    assert ended.ending is Ending.VIOLATION


async def test_a_wait_is_bounded_and_tells_what_came_last() -> None:
    async with ConversationHarness() as harness:
        harness.send(CommitTurn("hello"))
        await harness.notice(TurnCompleted)
        with pytest.raises(TimeoutError, match="TurnCompleted"):
            await harness.notice(TurnCompleted, 2)


async def test_a_task_that_outlives_its_conversation_fails_the_test() -> None:
    class Leaking(ScriptedModel):
        async def reply(self, request: ChatRequest) -> AsyncIterator[ReplyPart]:
            forgotten.append(asyncio.get_running_loop().create_task(asyncio.sleep(1_000)))
            async for part in super().reply(request):
                yield part

    async def take_a_turn() -> None:
        async with ConversationHarness(model=Leaking()) as harness:
            harness.send(CommitTurn("hello"))
            await harness.notice(TurnCompleted)

    forgotten: list[asyncio.Task[None]] = []
    with pytest.raises(AssertionError, match="outlive"):
        await take_a_turn()
    forgotten[0].cancel()


async def test_a_provider_of_ones_own_serves_the_conversation() -> None:
    class Beeping:
        voices = ("beep",)

        async def synthesize(self, text: str, voice: VoiceOptions) -> AsyncIterator[AudioChunk]:
            yield AudioChunk(b"\x00\x10" * 1600, 16_000)

    async with ConversationHarness(synthesizer=Beeping()) as harness:
        harness.send(CommitTurn("hello"))
        ended = await harness.notice(ReplyEnded)
    assert ended.outcome is Outcome.SPOKEN


async def test_events_can_be_posted_without_running_the_conversation() -> None:
    harness = ConversationHarness()
    harness.conversation.post(Opened())
    assert harness.conversation is harness.conversation
    assert harness.frames == []


async def test_a_dialect_of_a_protocol_takes_frames_and_no_commands() -> None:
    dialect = SpeechChat(Connection(session_id="s"))
    async with ConversationHarness(dialect=dialect) as harness:
        with pytest.raises(TypeError, match="SpeechChat takes no commands"):
            harness.send(Cancel())
        harness.send_frame('{"event_type":"ping"}')
        await harness.until(lambda: '"pong"' in str(harness.frames[-1:]))
    assert harness.notices == []


async def test_a_harness_is_entered_once() -> None:
    async with ConversationHarness() as harness:
        pass
    with pytest.raises(RuntimeError, match="make another"):
        await harness.__aenter__()


async def test_a_stream_that_outlives_its_conversation_fails_the_test() -> None:
    model = ScriptedModel()
    harness = ConversationHarness(model=model)

    async def leave_a_stream_open() -> None:
        async with harness:
            model.open += 1

    with pytest.raises(AssertionError, match="1 streams outlive"):
        await leave_a_stream_open()
