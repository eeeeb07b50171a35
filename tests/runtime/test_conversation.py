"""Whole turns in virtual time: real runtime, scripted services, a client in memory."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any

import pytest

from tests.runtime.stage import Stage
from voicechat.errors import FailureKind
from voicechat.providers.interfaces import AudioChunk, VoiceOptions
from voicechat.runtime.audio_input import shifted
from voicechat.runtime.conversation import HELD_MS
from voicechat.runtime.reply_task import AHEAD_MS, PIECES_AT_ONCE
from voicechat.session.effects import TurnEnded
from voicechat.session.limits import SessionLimits
from voicechat.session.notices import Outcome
from voicechat.session.vocabulary import PIECE_MS, Transcript, Word
from voicechat.testing.scripted import (
    Failure,
    ScriptedModel,
    ScriptedRecognizer,
    ScriptedSynthesizer,
)
from voicechat.testing.socket import Sent


async def a_turn(stage: Stage, number: int = 1) -> None:
    stage.speak()
    stage.say("input_audio_buffer.complete")
    await stage.until("conversation.chat.completed", number)


async def test_a_turn_is_told_in_the_documents_order() -> None:
    async with Stage().playing() as stage:
        stage.speak()
        await stage.until("asr")
        stage.say("input_audio_buffer.complete")
        await stage.until("conversation.chat.completed")
    kinds = [kind for kind, after in pairwise([*stage.kinds, ""]) if kind != after]
    assert kinds[:5] == ["chat.created", "asr", "input_audio_buffer.completed", "asr-final", "text"]
    assert kinds[-2:] == ["audio-end", "conversation.chat.completed"]
    assert stage.kinds.count("text-end") == 1
    text = "".join(m["choices"][0]["delta"]["content"] for m in stage.of("text"))
    assert text == "Hello there. How are you?"
    assert stage.synthesizer.texts == ["Hello there.", "How are you?"]


async def test_the_second_turn_remembers_the_first() -> None:
    async with Stage(recognizer=ScriptedRecognizer(texts=("one", "two"))).playing() as stage:
        await a_turn(stage)
        await a_turn(stage, 2)
    asked = [(m["role"], m["content"]) for m in stage.model.requests[1].messages]
    assert asked == [("user", "one"), ("assistant", "Hello there. How are you?"), ("user", "two")]


async def test_the_first_audio_does_not_wait_for_the_second_sentence() -> None:
    model = ScriptedModel(replies=[["First sentence here. ", "Second."]], delta_ms=2_000)
    async with Stage(model=model).playing() as stage:
        stage.speak()
        stage.say("input_audio_buffer.complete")
        await stage.until("audio")
        assert len(stage.of("text")) == 1


async def test_the_next_sentence_is_synthesised_while_one_is_being_sent() -> None:
    """Two sentences of 1 s each that take 900 ms to synthesise: in parallel they take
    less than one after the other.
    """
    model = ScriptedModel(replies=[["One sentence here. ", "Another one here."]])
    synthesizer = ScriptedSynthesizer(first_ms=500, chunk_delay_ms=50)
    async with Stage(model=model, synthesizer=synthesizer).playing() as stage:
        stage.speak()
        stage.say("input_audio_buffer.complete")
        await stage.until("audio-end")
        begun_s = next(
            s.at_s for s in stage.socket.sent if '"input_audio_buffer.completed"' in str(s.frame)
        )
        took_s = stage.socket.sent[-1].at_s - begun_s
    alone_s = 0.5 + 0.05 * 8
    assert took_s < 2 * alone_s * 0.8
    assert stage.synthesizer.texts == ["One sentence here.", "Another one here."]


@pytest.mark.parametrize("after_ms", [0, 1, 50, 120, 121, 160, 200, 219, 220, 221, 260, 400, 5_000])
async def test_a_cancel_at_any_moment_is_followed_by_nothing_of_the_reply(after_ms: int) -> None:
    stage = Stage(
        recognizer=ScriptedRecognizer(final_ms=20),
        model=ScriptedModel(first_ms=100, delta_ms=40),
        synthesizer=ScriptedSynthesizer(first_ms=60, chunk_delay_ms=30),
    )
    async with stage.playing():
        stage.speak()
        stage.say("input_audio_buffer.complete")
        await stage.until("input_audio_buffer.completed")
        await asyncio.sleep(after_ms / 1000)
        stage.say("conversation.chat.cancel")
        await stage.until("conversation.chat.canceled")
        await asyncio.sleep(10)
        kinds = stage.kinds
        after = kinds[kinds.index("conversation.chat.canceled") + 1 :]
        if "conversation.chat.completed" in kinds[: kinds.index("conversation.chat.canceled")]:
            assert after == []  # the race was lost: the turn had ended already
        else:
            assert after == ["conversation.chat.completed"]
        await a_turn(stage, 2)
    assert kinds.count("conversation.chat.completed") == 1


async def test_an_interrupted_reply_is_remembered_up_to_what_was_heard() -> None:
    model = ScriptedModel(replies=[["One two three four five six seven eight nine ten."], ["Yes."]])
    async with Stage(
        model=model, synthesizer=ScriptedSynthesizer(ms_per_character=100)
    ).playing() as stage:
        stage.speak()
        stage.say("input_audio_buffer.complete")
        await stage.until("audio")
        await asyncio.sleep(2.5)  # of the 5 s that the sentence takes
        stage.say("conversation.chat.cancel")
        await stage.until("conversation.chat.completed")
        await a_turn(stage, 2)
    heard = stage.model.requests[1].messages[1]["content"]
    assert heard == "One two three four five"


async def test_what_was_never_heard_is_not_remembered() -> None:
    model = ScriptedModel(replies=[["Never heard."], ["Yes."]])
    async with Stage(
        model=model, synthesizer=ScriptedSynthesizer(first_ms=1_000)
    ).playing() as stage:
        stage.speak()
        stage.say("input_audio_buffer.complete")
        await stage.until("text")
        stage.say("conversation.chat.cancel")
        await stage.until("conversation.chat.completed")
        await a_turn(stage, 2)
    assert [m["role"] for m in stage.model.requests[1].messages] == ["user", "user"]


async def test_a_cancel_while_the_completed_reply_still_plays_cuts_the_memory() -> None:
    model = ScriptedModel(replies=[["One two three four five six seven eight nine ten."], ["Yes."]])
    async with Stage(
        model=model, synthesizer=ScriptedSynthesizer(ms_per_character=100)
    ).playing() as stage:
        await a_turn(stage)
        await asyncio.sleep(2.5)
        stage.say("conversation.chat.cancel")
        await stage.until("conversation.chat.canceled")
        await a_turn(stage, 2)
    assert stage.model.requests[1].messages[1]["content"] == "One two three four five"
    assert stage.kinds.count("conversation.chat.completed") == 2


async def test_a_playback_report_replaces_the_estimate() -> None:
    model = ScriptedModel(replies=[["One two three four five six seven eight nine ten."], ["Yes."]])
    async with Stage(
        model=model, synthesizer=ScriptedSynthesizer(ms_per_character=100)
    ).playing() as stage:
        await a_turn(stage)
        await asyncio.sleep(4)
        stage.say("conversation.audio.played", reply=1, played_ms=1_000)
        stage.say("conversation.chat.cancel")
        await stage.until("conversation.chat.canceled")
        await a_turn(stage, 2)
    assert stage.model.requests[1].messages[1]["content"] == "One two"


async def test_paced_audio_leaves_at_most_the_lead_ahead_of_playback() -> None:
    model = ScriptedModel(replies=[["One two three four five six seven eight nine ten."]])
    stage = Stage(model=model, synthesizer=ScriptedSynthesizer(ms_per_character=100), lead_ms=500)
    async with stage.playing():
        await a_turn(stage)
    frames = [(s.at_s, len(base64.b64decode(m["audioFrame"])) / 32) for s, m in audio_of(stage)]
    begun_s, sent_ms = frames[0][0], 0.0
    for at_s, length_ms in frames:
        sent_ms += length_ms
        assert sent_ms - (at_s - begun_s) * 1000 <= 500 + 2
    assert sent_ms == pytest.approx(4_900, abs=10)
    assert (frames[-1][0] - begun_s) * 1000 == pytest.approx(sent_ms - 500, abs=110)


def audio_of(stage: Stage) -> list[tuple[Sent, dict[str, Any]]]:
    pairs = zip(stage.socket.sent, stage.messages, strict=True)
    return [(sent, message) for sent, message in pairs if message.get("audioFrame")]


@pytest.mark.parametrize(
    ("stage", "status"),
    [
        (Stage(model=ScriptedModel(failure=Failure(after=0))), 50202),
        (Stage(model=ScriptedModel(failure=Failure(after=1))), 50202),
        (Stage(model=ScriptedModel(failure=Failure(after=0, kind=None))), 50202),
        (Stage(model=ScriptedModel(failure=Failure(after=1, kind=None))), 50202),
        (Stage(synthesizer=ScriptedSynthesizer(failure=Failure(after=0))), 50203),
        (Stage(synthesizer=ScriptedSynthesizer(failure=Failure(after=2))), 50203),
        (Stage(synthesizer=ScriptedSynthesizer(failure=Failure(after=0, kind=None))), 50203),
        (Stage(synthesizer=ScriptedSynthesizer(failure=Failure(after=2, kind=None))), 50203),
        (Stage(synthesizer=ScriptedSynthesizer(silent=lambda text: True)), 50203),
        (Stage(recognizer=ScriptedRecognizer(failure=Failure(after=1, calls=9))), 50201),
        (Stage(recognizer=ScriptedRecognizer(final_ms=60_000)), 50201),
    ],
)
async def test_a_failing_service_ends_the_turn_and_not_the_session(
    stage: Stage, status: int
) -> None:
    stage.chained = True
    async with stage.playing():
        await a_turn(stage)
        await asyncio.sleep(1.5)
        assert stage.of("error")[-1]["status"] == status
        stage.model.failure = stage.synthesizer.failure = stage.recognizer.failure = Failure(
            calls=0
        )
        stage.recognizer.final_ms, stage.synthesizer.silent = 0, lambda text: False
        errors = len(stage.of("error"))
        await a_turn(stage, 2)
        assert len(stage.of("error")) == errors
        assert stage.kinds[-2:] == ["audio-end", "conversation.chat.completed"]


async def test_a_recogniser_that_dies_is_replaced_and_hears_the_same_audio_again() -> None:
    recognizer = ScriptedRecognizer(
        texts=("one two three",), failure=Failure(after=2, kind=FailureKind.CONNECTIVITY)
    )
    async with Stage(recognizer=recognizer).playing() as stage:
        stage.speak(900)
        stage.say("input_audio_buffer.complete")
        await stage.until("conversation.chat.completed")
    assert [e["status"] for e in stage.of("error")] == [50201]
    assert recognizer.heard_ms[1] == 900
    assert stage.model.requests[0].messages[-1]["content"] == "one two three"


async def test_nothing_understood_is_answered_by_completed_alone() -> None:
    async with Stage(recognizer=ScriptedRecognizer(texts=())).playing() as stage:
        await a_turn(stage)
        assert stage.kinds[-2:] == ["input_audio_buffer.completed", "conversation.chat.completed"]
    assert stage.model.requests == []
    assert [f.outcome for f in stage.facts if isinstance(f, TurnEnded)] == [Outcome.EMPTY]


async def test_a_client_that_does_not_read_is_cut_off_and_harms_nobody() -> None:
    stage = Stage(synthesizer=ScriptedSynthesizer(ms_per_character=5_000))
    async with stage.playing():
        stage.socket.stuck = asyncio.Event()
        stage.speak()
        stage.say("input_audio_buffer.complete")
        await asyncio.sleep(stage.limits.write_ms / 1000 + 2 * stage.limits.close_ms / 1000 + 1)
        assert stage.socket.aborted


async def test_a_slow_client_gets_its_error_and_1013() -> None:
    stage = Stage()
    async with stage.playing():
        stage.socket.stuck = asyncio.Event()
        stage.say("ping")
        await asyncio.sleep(stage.limits.write_ms / 1000 + 1)
        stage.socket.stuck.set()
        await asyncio.sleep(1)
        assert stage.socket.closed_with is not None
        assert stage.socket.closed_with[0] == 1013
        assert stage.of("error")[-1]["status"] == 40801


async def test_a_long_reply_waits_for_the_client_instead_of_filling_the_backlog() -> None:
    limits = SessionLimits(backlog_bytes=300_000, ahead_bytes=100_000)
    model = ScriptedModel(replies=[["word " * 30 + ". "] * 20])
    async with Stage(limits=limits, model=model).playing() as stage:
        stage.socket.stuck = asyncio.Event()
        stage.speak()
        stage.say("input_audio_buffer.complete")
        await asyncio.sleep(5)
        stage.socket.stuck.set()
        await stage.until("conversation.chat.completed")
        assert stage.of("error") == []


class Counted(ScriptedSynthesizer):
    """Knows how much it was asked for."""

    made_ms = 0

    async def synthesize(self, text: str, voice: VoiceOptions) -> AsyncIterator[AudioChunk]:
        async for chunk in super().synthesize(text, voice):
            self.made_ms += self.chunk_ms
            yield chunk


async def test_a_synthesiser_waits_while_much_of_its_audio_waits_for_its_time() -> None:
    voice = Counted(ms_per_character=1000)
    ahead_ms = 500 + HELD_MS + AHEAD_MS + 2 * PIECE_MS * PIECES_AT_ONCE
    async with Stage(
        lead_ms=500, model=ScriptedModel(replies=[["word " * 20]]), synthesizer=voice
    ).playing() as stage:
        stage.speak()
        stage.say("input_audio_buffer.complete")
        await asyncio.sleep(2)
        assert HELD_MS < voice.made_ms <= 2_000 + ahead_ms
        await asyncio.sleep(30)
        assert 32_000 < voice.made_ms <= 32_000 + ahead_ms
        await asyncio.sleep(75)
        assert stage.of("conversation.chat.completed")


async def test_a_silent_peer_is_noticed_and_a_live_one_is_not() -> None:
    async with Stage().playing() as stage:
        stage.say("ping")
        await asyncio.sleep(600)
        assert stage.socket.closed_with is None
        stage.socket.answers_pings = False
        await asyncio.sleep(stage.limits.idle_ms / 1000 + stage.limits.ping_ms / 1000)
        assert stage.socket.closed_with is not None
        assert stage.socket.closed_with[0] == 1000
        assert stage.of("error")[-1]["status"] == 40801


async def test_garbage_is_answered_and_the_session_goes_on() -> None:
    async with Stage().playing() as stage:
        for frame in [
            "",
            "null",
            "[]",
            "{",
            '{"event_type":7}',
            '{"event_type":"no.such"}',
            "\ud800",
            '"x"',
        ]:
            stage.socket.send_from_client(frame)
        await stage.until("error", 8)
        await a_turn(stage)
    assert {e["status"] for e in stage.of("error")} == {40001, 40002}


async def test_online_audio_of_a_running_reply_belongs_to_the_next_turn() -> None:
    recognizer = ScriptedRecognizer(texts=("one", "two"))
    synthesizer = ScriptedSynthesizer(chunk_delay_ms=100)
    async with Stage(recognizer=recognizer, synthesizer=synthesizer).playing() as stage:
        stage.speak()
        stage.say("input_audio_buffer.complete")
        await stage.until("audio")
        stage.speak(600)
        await stage.until("conversation.chat.completed")
        before = stage.kinds.index("conversation.chat.completed")
        assert "asr" not in stage.kinds[stage.kinds.index("text") : before]
        await stage.until("asr", 2)
        stage.say("input_audio_buffer.complete")
        await stage.until("conversation.chat.completed", 2)
    assert stage.model.requests[1].messages[-1]["content"] == "two"


async def test_refresh_forgets_audio_that_came_during_the_reply() -> None:
    recognizer = ScriptedRecognizer(texts=("one", "two"))
    synthesizer = ScriptedSynthesizer(chunk_delay_ms=100)
    async with Stage(recognizer=recognizer, synthesizer=synthesizer).playing() as stage:
        request = {
            "chat_completion_req": {},
            "speech_synthesis_req": {"synthesis_param": {"format": stage.output}},
        }
        update = {
            "create_transcription_task_req": {},
            "chat_completion_with_voice_output_req": request,
            "asr_mode": "refresh",
        }
        stage.say("chat.update", message=json.dumps(update))
        stage.speak()
        stage.say("input_audio_buffer.complete")
        await stage.until("audio")
        stage.speak(600)
        await stage.until("conversation.chat.completed")
        stage.speak(300)
        stage.say("input_audio_buffer.complete")
        await stage.until("conversation.chat.completed", 2)
    assert recognizer.heard_ms == [300, 300]
    begins = [m["begin_time"] for m in stage.of("asr-final")]
    assert begins == [0, 900], "audio that was dropped still took its time"


def test_a_transcript_that_is_moved_keeps_all_but_its_times() -> None:
    heard = Transcript("Yes.", 10, None, (Word("Yes", 10, 40, ".", fixed=True),))
    assert shifted(heard, 500) == Transcript(
        "Yes.", 510, None, (Word("Yes", 510, 540, ".", fixed=True),)
    )
    assert shifted(Transcript("Yes.", 10, 40), 500) == Transcript("Yes.", 510, 540)


async def test_audio_that_is_skipped_before_any_is_heard_settles_no_format() -> None:
    stage = Stage(model=ScriptedModel(delta_ms=300))
    async with stage.playing():
        recorded = {"format": "pcm", "sample_rate": 8000}
        voice: dict[str, object] = {"chat_completion_req": {}, "speech_synthesis_req": {}}
        message = {
            "create_transcription_task_req": {"speech_recognition_param": recorded},
            "asr_mode": "refresh",
        }
        stage.say("chat.update", message=message | {"chat_completion_with_voice_output_req": voice})
        assert (await stage.until("chat.updated"))["status"] == 0
        stage.say("conversation.message.create", role="user", content="hello")
        await stage.until("text")
        stage.speak()  # while the answer is made: it is skipped
        await stage.until("conversation.chat.completed")
        stage.speak()  # as long again, and twice as long at 8 kHz
        stage.say("input_audio_buffer.complete")
        await stage.until("conversation.chat.completed", 2)
    assert stage.recognizer.heard_ms[-1] == pytest.approx(
        600, abs=5
    )  # the resampler holds some of what was skipped
