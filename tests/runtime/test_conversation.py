"""Whole turns in virtual time: real runtime, scripted services, a client in memory."""

import asyncio
import json
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any

import pytest

from tests.chained import ChainedHarness
from voicechat.dialects.base import Connection
from voicechat.dialects.speech_chat.rules import SpeechChat
from voicechat.errors import FailureKind, Fault
from voicechat.providers.interfaces import AudioChunk, VoiceOptions
from voicechat.runtime.audio_input import shifted
from voicechat.runtime.conversation import HELD_MS, LATE_IN_HAND_S, PARTIALS_APART_S
from voicechat.runtime.loop_lateness import LATE_S, VERY_LATE_S
from voicechat.runtime.reply_task import AHEAD_MS, PIECES_AT_ONCE
from voicechat.session.commands import Alive, Cancel, ClearInput, CommitTurn, Played
from voicechat.session.effects import TurnEnded
from voicechat.session.limits import SessionLimits
from voicechat.session.notices import (
    Done,
    Ended,
    Ending,
    Failed,
    LatencyMeasured,
    NothingSaid,
    Outcome,
    Recognised,
    ReplyAudio,
    ReplyAudioFinished,
    ReplyBegun,
    ReplyEnded,
    ReplyText,
    ReplyTextFinished,
    TurnCommitted,
    TurnCompleted,
    UserSaid,
)
from voicechat.session.types import (
    PIECE_MS,
    InputSettings,
    Settings,
    Transcript,
    VoiceSettings,
    Word,
)
from voicechat.testing.harness import ScriptedHarness
from voicechat.testing.scripted import (
    Failure,
    ScriptedModel,
    ScriptedRecognizer,
    ScriptedSynthesizer,
)

AUDIO_300_MS = bytes(300 * 32)
NEVER_ORDERED = {LatencyMeasured}


def kinds_of(stage: ScriptedHarness) -> list[type[Any]]:
    return [type(notice) for notice in stage.notices]


async def a_turn(stage: ScriptedHarness, number: int = 1) -> None:
    stage.send_audio(AUDIO_300_MS)
    stage.send(CommitTurn())
    await stage.notice(TurnCompleted, number)


async def test_a_turn_is_told_in_order() -> None:
    async with ScriptedHarness() as stage:
        stage.send_audio(AUDIO_300_MS)
        await stage.notice(Recognised)
        stage.send(CommitTurn())
        await stage.notice(TurnCompleted)
    kinds = [kind for kind, after in pairwise([*kinds_of(stage), None]) if kind != after]
    assert kinds[:5] == [Recognised, TurnCommitted, Recognised, UserSaid, ReplyBegun]
    assert [kind for kind in kinds if kind not in NEVER_ORDERED][-3:] == [
        ReplyAudioFinished,
        ReplyEnded,
        TurnCompleted,
    ]
    assert len(stage.of(ReplyTextFinished)) == 1
    assert "".join(told.text for told in stage.of(ReplyText)) == "Hello there. How are you?"
    assert stage.synthesizer.texts == ["Hello there.", "How are you?"]


async def test_the_second_turn_remembers_the_first() -> None:
    async with ScriptedHarness(recognizer=ScriptedRecognizer(texts=("one", "two"))) as stage:
        await a_turn(stage)
        await a_turn(stage, 2)
    asked = [(m["role"], m["content"]) for m in stage.model.requests[1].messages]
    assert asked == [("user", "one"), ("assistant", "Hello there. How are you?"), ("user", "two")]


async def test_the_first_audio_does_not_wait_for_the_second_sentence() -> None:
    model = ScriptedModel(replies=[["First sentence here. ", "Second."]], delta_ms=2_000)
    async with ScriptedHarness(model=model) as stage:
        stage.send_audio(AUDIO_300_MS)
        stage.send(CommitTurn())
        await stage.notice(ReplyAudio)
        assert len(stage.of(ReplyText)) == 1


async def test_the_next_sentence_is_synthesised_while_one_is_being_sent() -> None:
    """Two sentences of 1 s each that take 900 ms to synthesise: in parallel they take
    less than one after the other.
    """
    model = ScriptedModel(replies=[["One sentence here. ", "Another one here."]])
    synthesizer = ScriptedSynthesizer(first_ms=500, chunk_delay_ms=50)
    async with ScriptedHarness(model=model, synthesizer=synthesizer) as stage:
        stage.send_audio(AUDIO_300_MS)
        stage.send(CommitTurn())
        await stage.notice(ReplyAudioFinished)
        [begun_s] = stage.times_s(TurnCommitted)
        took_s = stage.socket.sent[-1].at_s - begun_s
    alone_s = 0.5 + 0.05 * 8
    assert took_s < 2 * alone_s * 0.8
    assert stage.synthesizer.texts == ["One sentence here.", "Another one here."]


@pytest.mark.parametrize("after_ms", [0, 1, 50, 120, 121, 160, 200, 219, 220, 221, 260, 400, 5_000])
async def test_a_cancel_at_any_moment_is_followed_by_nothing_of_the_reply(after_ms: int) -> None:
    stage = ScriptedHarness(
        recognizer=ScriptedRecognizer(final_ms=20),
        model=ScriptedModel(first_ms=100, delta_ms=40),
        synthesizer=ScriptedSynthesizer(first_ms=60, chunk_delay_ms=30),
    )
    async with stage:
        stage.send_audio(AUDIO_300_MS)
        stage.send(CommitTurn())
        await stage.notice(TurnCommitted)
        await asyncio.sleep(after_ms / 1000)
        stage.send(Cancel())
        await stage.notice(Done)
        await asyncio.sleep(10)
        kinds = kinds_of(stage)
        after = kinds[kinds.index(Done) + 1 :]
        if TurnCompleted in kinds[: kinds.index(Done)]:
            assert after == []  # the race was lost: the turn had ended already
        else:
            assert after == [TurnCompleted]
        await a_turn(stage, 2)
    assert kinds.count(TurnCompleted) == 1


async def test_an_interrupted_reply_is_remembered_up_to_what_was_heard() -> None:
    model = ScriptedModel(replies=[["One two three four five six seven eight nine ten."], ["Yes."]])
    async with ScriptedHarness(
        model=model, synthesizer=ScriptedSynthesizer(ms_per_character=100)
    ) as stage:
        stage.send_audio(AUDIO_300_MS)
        stage.send(CommitTurn())
        await stage.notice(ReplyAudio)
        await asyncio.sleep(2.5)  # of the 5 s that the sentence takes
        stage.send(Cancel())
        await stage.notice(TurnCompleted)
        await a_turn(stage, 2)
    heard = stage.model.requests[1].messages[1]["content"]
    assert heard == "One two three four five"


async def test_what_was_never_heard_is_not_remembered() -> None:
    model = ScriptedModel(replies=[["Never heard."], ["Yes."]])
    async with ScriptedHarness(
        model=model, synthesizer=ScriptedSynthesizer(first_ms=1_000)
    ) as stage:
        stage.send_audio(AUDIO_300_MS)
        stage.send(CommitTurn())
        await stage.notice(ReplyText)
        stage.send(Cancel())
        await stage.notice(TurnCompleted)
        await a_turn(stage, 2)
    assert [m["role"] for m in stage.model.requests[1].messages] == ["user", "user"]


async def test_a_cancel_while_the_completed_reply_still_plays_cuts_the_memory() -> None:
    model = ScriptedModel(replies=[["One two three four five six seven eight nine ten."], ["Yes."]])
    async with ScriptedHarness(
        model=model, synthesizer=ScriptedSynthesizer(ms_per_character=100)
    ) as stage:
        await a_turn(stage)
        await asyncio.sleep(2.5)
        stage.send(Cancel())
        await stage.notice(Done)
        await a_turn(stage, 2)
    assert stage.model.requests[1].messages[1]["content"] == "One two three four five"
    assert len(stage.of(TurnCompleted)) == 2


async def test_a_playback_report_replaces_the_estimate() -> None:
    model = ScriptedModel(replies=[["One two three four five six seven eight nine ten."], ["Yes."]])
    async with ScriptedHarness(
        model=model, synthesizer=ScriptedSynthesizer(ms_per_character=100)
    ) as stage:
        await a_turn(stage)
        await asyncio.sleep(4)
        stage.send(Played(reply=1, played_ms=1_000))
        stage.send(Cancel())
        await stage.notice(Done)
        await a_turn(stage, 2)
    assert stage.model.requests[1].messages[1]["content"] == "One two"


async def test_paced_audio_leaves_at_most_the_lead_ahead_of_playback() -> None:
    model = ScriptedModel(replies=[["One two three four five six seven eight nine ten."]])
    stage = ScriptedHarness(
        model=model,
        synthesizer=ScriptedSynthesizer(ms_per_character=100),
        settings=Settings(lead_ms=500),
    )
    async with stage:
        await a_turn(stage)
    frames = [
        (at_s, len(told.payload) / 32)
        for at_s, told in zip(stage.times_s(ReplyAudio), stage.of(ReplyAudio), strict=True)
    ]
    begun_s, sent_ms = frames[0][0], 0.0
    for at_s, length_ms in frames:
        sent_ms += length_ms
        assert sent_ms - (at_s - begun_s) * 1000 <= 500 + 2
    assert sent_ms == pytest.approx(4_900, abs=10)
    assert (frames[-1][0] - begun_s) * 1000 == pytest.approx(sent_ms - 500, abs=110)


@pytest.mark.parametrize(
    ("stage", "fault"),
    [
        (ChainedHarness(model=ScriptedModel(failure=Failure(after=0))), Fault.LLM_FAILED),
        (ChainedHarness(model=ScriptedModel(failure=Failure(after=1))), Fault.LLM_FAILED),
        (
            ChainedHarness(model=ScriptedModel(failure=Failure(after=0, kind=None))),
            Fault.LLM_FAILED,
        ),
        (
            ChainedHarness(model=ScriptedModel(failure=Failure(after=1, kind=None))),
            Fault.LLM_FAILED,
        ),
        (
            ChainedHarness(synthesizer=ScriptedSynthesizer(failure=Failure(after=0))),
            Fault.TTS_FAILED,
        ),
        (
            ChainedHarness(synthesizer=ScriptedSynthesizer(failure=Failure(after=2))),
            Fault.TTS_FAILED,
        ),
        (
            ChainedHarness(synthesizer=ScriptedSynthesizer(failure=Failure(after=0, kind=None))),
            Fault.TTS_FAILED,
        ),
        (
            ChainedHarness(synthesizer=ScriptedSynthesizer(failure=Failure(after=2, kind=None))),
            Fault.TTS_FAILED,
        ),
        (
            ChainedHarness(synthesizer=ScriptedSynthesizer(silent=lambda text: True)),
            Fault.TTS_FAILED,
        ),
        (
            ChainedHarness(recognizer=ScriptedRecognizer(failure=Failure(after=1, calls=9))),
            Fault.ASR_FAILED,
        ),
        (ChainedHarness(recognizer=ScriptedRecognizer(final_ms=60_000)), Fault.ASR_FAILED),
    ],
)
async def test_a_failing_service_ends_the_turn_and_not_the_session(
    stage: ChainedHarness, fault: Fault
) -> None:
    async with stage:
        await a_turn(stage)
        await asyncio.sleep(1.5)
        assert stage.of(Failed)[-1].fault is fault
        stage.model.failure = stage.synthesizer.failure = stage.recognizer.failure = Failure(
            calls=0
        )
        stage.recognizer.final_ms, stage.synthesizer.silent = 0, lambda text: False
        errors = len(stage.of(Failed))
        await a_turn(stage, 2)
        assert len(stage.of(Failed)) == errors
        assert stage.of(TurnCompleted)[-1].outcome is Outcome.SPOKEN


async def test_a_recogniser_that_dies_is_replaced_and_hears_the_same_audio_again() -> None:
    recognizer = ScriptedRecognizer(
        texts=("one two three",), failure=Failure(after=2, kind=FailureKind.CONNECTIVITY)
    )
    async with ScriptedHarness(recognizer=recognizer) as stage:
        stage.send_audio(bytes(900 * 32))
        stage.send(CommitTurn())
        await stage.notice(TurnCompleted)
    assert [told.fault for told in stage.of(Failed)] == [Fault.ASR_FAILED]
    assert recognizer.heard_ms[1] == 900
    assert stage.model.requests[0].messages[-1]["content"] == "one two three"


async def test_nothing_understood_is_answered_by_completed_alone() -> None:
    async with ScriptedHarness(recognizer=ScriptedRecognizer(texts=())) as stage:
        await a_turn(stage)
        assert kinds_of(stage)[-3:] == [TurnCommitted, NothingSaid, TurnCompleted]
    assert stage.model.requests == []
    assert [f.outcome for f in stage.facts if isinstance(f, TurnEnded)] == [Outcome.EMPTY]


async def test_a_client_that_does_not_read_is_cut_off_and_harms_nobody() -> None:
    stage = ScriptedHarness(synthesizer=ScriptedSynthesizer(ms_per_character=5_000))
    async with stage:
        stage.socket.stuck = asyncio.Event()
        stage.send_audio(AUDIO_300_MS)
        stage.send(CommitTurn())
        await asyncio.sleep(stage.limits.write_ms / 1000 + 2 * stage.limits.close_ms / 1000 + 1)
        assert stage.socket.aborted


async def test_a_slow_client_is_told_why_it_is_given_up() -> None:
    stage = ScriptedHarness()
    async with stage:
        stage.socket.stuck = asyncio.Event()
        stage.send(ClearInput())
        await asyncio.sleep(stage.limits.write_ms / 1000 + 1)
        stage.socket.stuck.set()
        await asyncio.sleep(1)
        assert stage.socket.closed_with is not None
        assert stage.of(Ended)[-1].ending is Ending.NOT_READING


async def test_a_long_reply_waits_for_the_client_instead_of_filling_the_backlog() -> None:
    limits = SessionLimits(backlog_bytes=300_000, ahead_bytes=100_000)
    model = ScriptedModel(replies=[["word " * 30 + ". "] * 20])
    async with ScriptedHarness(limits=limits, model=model) as stage:
        stage.socket.stuck = asyncio.Event()
        stage.send_audio(AUDIO_300_MS)
        stage.send(CommitTurn())
        await asyncio.sleep(5)
        stage.socket.stuck.set()
        await stage.notice(TurnCompleted)
        assert stage.of(Failed) == []


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
    async with ScriptedHarness(
        settings=Settings(lead_ms=500),
        model=ScriptedModel(replies=[["word " * 20]]),
        synthesizer=voice,
    ) as stage:
        stage.send_audio(AUDIO_300_MS)
        stage.send(CommitTurn())
        await asyncio.sleep(2)
        assert HELD_MS < voice.made_ms <= 2_000 + ahead_ms
        await asyncio.sleep(30)
        assert 32_000 < voice.made_ms <= 32_000 + ahead_ms
        await asyncio.sleep(75)
        assert stage.of(TurnCompleted)


async def test_a_silent_peer_is_noticed_and_a_live_one_is_not() -> None:
    async with ScriptedHarness() as stage:
        stage.send(Alive())
        await asyncio.sleep(600)
        assert stage.socket.closed_with is None
        stage.socket.answers_pings = False
        await asyncio.sleep(stage.limits.idle_ms / 1000 + stage.limits.ping_ms / 1000)
        assert stage.socket.closed_with is not None
        assert stage.of(Ended)[-1].ending is Ending.ABSENT


async def test_garbage_is_answered_and_the_session_goes_on() -> None:
    """Through a protocol's dialect: a client that speaks in commands has no garbage."""
    garbage = ["", "null", "[]", "{", '{"event_type":7}', '{"event_type":"no"}', "\ud800", '"x"']
    async with ScriptedHarness(dialect=SpeechChat(Connection(session_id="s"))) as stage:
        for frame in garbage:
            stage.send_frame(frame)
        stage.send_audio(AUDIO_300_MS)
        stage.send_frame('{"event_type":"input_audio_buffer.complete"}')
        await stage.until(lambda: '"conversation.chat.completed"' in str(stage.frames[-1]))
    messages = [json.loads(frame) for frame in stage.frames]
    errors = [message["status"] for message in messages if message.get("event_type") == "error"]
    assert len(errors) == len(garbage)
    assert set(errors) == {40001, 40002}


async def test_online_audio_of_a_running_reply_belongs_to_the_next_turn() -> None:
    recognizer = ScriptedRecognizer(texts=("one", "two"))
    synthesizer = ScriptedSynthesizer(chunk_delay_ms=100)
    async with ScriptedHarness(recognizer=recognizer, synthesizer=synthesizer) as stage:
        stage.send_audio(AUDIO_300_MS)
        stage.send(CommitTurn())
        await stage.notice(ReplyAudio)
        stage.send_audio(bytes(600 * 32))
        await stage.notice(TurnCompleted)
        kinds = kinds_of(stage)
        before = kinds[: kinds.index(TurnCompleted)]
        assert Recognised not in before[before.index(ReplyText) :]
        await stage.notice(Recognised, before.count(Recognised) + 1)
        stage.send(CommitTurn())
        await stage.notice(TurnCompleted, 2)
    assert stage.model.requests[1].messages[-1]["content"] == "two"


async def test_half_duplex_forgets_audio_that_came_during_the_reply() -> None:
    recognizer = ScriptedRecognizer(texts=("one", "two"))
    synthesizer = ScriptedSynthesizer(chunk_delay_ms=100)
    half_duplex = Settings(half_duplex=True)
    async with ScriptedHarness(
        recognizer=recognizer, synthesizer=synthesizer, settings=half_duplex
    ) as stage:
        stage.send_audio(AUDIO_300_MS)
        stage.send(CommitTurn())
        await stage.notice(ReplyAudio)
        stage.send_audio(bytes(600 * 32))
        await stage.notice(TurnCompleted)
        stage.send_audio(bytes(300 * 32))
        stage.send(CommitTurn())
        await stage.notice(TurnCompleted, 2)
    assert recognizer.heard_ms == [300, 300]
    finals = [told.transcript for told in stage.of(Recognised) if told.transcript.end_ms]
    begins = [transcript.begin_ms for transcript in finals]
    assert begins == [0, 900], "audio that was dropped still took its time"


def test_a_transcript_that_is_moved_keeps_all_but_its_times() -> None:
    heard = Transcript("Yes.", 10, None, (Word("Yes", 10, 40, ".", fixed=True),))
    assert shifted(heard, 500) == Transcript(
        "Yes.", 510, None, (Word("Yes", 510, 540, ".", fixed=True),)
    )
    assert shifted(Transcript("Yes.", 10, 40), 500) == Transcript("Yes.", 510, 540)


async def test_audio_that_is_skipped_before_any_is_heard_settles_no_format() -> None:
    settings = Settings(input=InputSettings(sample_rate_hz=8000), half_duplex=True)
    stage = ScriptedHarness(model=ScriptedModel(delta_ms=300), settings=settings)
    async with stage:
        stage.send(CommitTurn("hello"))
        await stage.notice(ReplyText)
        stage.send_audio(AUDIO_300_MS)  # while the answer is made: it is skipped
        await stage.notice(TurnCompleted)
        stage.send_audio(AUDIO_300_MS)  # as long again, and twice as long at 8 kHz
        stage.send(CommitTurn())
        await stage.notice(TurnCompleted, 2)
    assert stage.recognizer.heard_ms[-1] == pytest.approx(
        600, abs=5
    )  # the resampler holds some of what was skipped


def late(stage: ScriptedHarness, lag_s: float) -> None:
    """Let the event loop be as late as that from now on."""
    for _ in range(20):
        stage.reads.lateness.add_lag(0.0, lag_s)


@pytest.mark.parametrize(
    ("lag_s", "partials"),
    [(0.0, ["a", "a b", "a b c", "a b c d"]), (LATE_S, ["a", "a b c"]), (VERY_LATE_S, [])],
)
async def test_partial_transcripts_give_way_while_the_loop_is_late(
    lag_s: float, partials: list[str]
) -> None:
    recognizer = ScriptedRecognizer(("a b c d",), word_ms=300)
    async with ScriptedHarness(recognizer=recognizer) as stage:
        await asyncio.sleep(PARTIALS_APART_S)
        late(stage, 1.1 * lag_s)
        for _ in range(12):
            stage.send_audio(bytes(100 * 32))
            await asyncio.sleep(0.1)
        stage.send(CommitTurn())
        await stage.notice(TurnCompleted)
        heard = [notice.transcript for notice in stage.of(Recognised)]
        assert [transcript.text for transcript in heard] == [*partials, "a b c d"]
        assert heard[-1].final


async def test_while_the_loop_is_late_a_reply_is_spoken_little_ahead_of_its_playback() -> None:
    """What the listener needs only later is not made now; nothing of it is missing."""
    synthesizer = ScriptedSynthesizer(ms_per_character=100)
    model = ScriptedModel([["A sentence that takes a long time to say, longer than that. "]])
    async with ScriptedHarness(model=model, synthesizer=synthesizer) as stage:
        late(stage, VERY_LATE_S)
        await a_turn(stage)
        sent = list(zip(stage.times_s(ReplyAudio), stage.of(ReplyAudio), strict=True))
        first_s = sent[0][0]
        ahead_ms = [audio.end_ms - (at_s - first_s) * 1000 for at_s, audio in sent]
        step_ms = PIECES_AT_ONCE * PIECE_MS
        assert max(ahead_ms) <= LATE_IN_HAND_S * 1000 + step_ms
        assert min(ahead_ms) >= 0, "the listener never waits"
        assert sent[-1][1].end_ms >= 5_500


@pytest.mark.parametrize("lag_s", [0.0, VERY_LATE_S])
async def test_while_the_loop_is_late_a_reply_has_fewer_and_longer_pieces(lag_s: float) -> None:
    model = ScriptedModel([["A sentence that takes a long time to say, longer than that. "]])
    async with ScriptedHarness(
        model=model, synthesizer=ScriptedSynthesizer(ms_per_character=100)
    ) as stage:
        late(stage, lag_s)
        await a_turn(stage)
        ends_ms = [audio.end_ms for audio in stage.of(ReplyAudio)]
        lengths_ms = [end - begin for begin, end in pairwise([0, *ends_ms])]
        assert sum(lengths_ms) >= 5_500, "nothing is missing"
        assert max(lengths_ms) == (PIECES_AT_ONCE if lag_s else 1) * PIECE_MS


async def test_packets_that_a_client_counts_are_not_joined_while_the_loop_is_late() -> None:
    voice = VoiceSettings(format="MU_LAW_8000HZ_20MS", piece_ms=100)
    async with ScriptedHarness(
        settings=Settings(voice=voice), synthesizer=ScriptedSynthesizer(ms_per_character=100)
    ) as stage:
        late(stage, VERY_LATE_S)
        await a_turn(stage)
        packets = [audio.packets for audio in stage.of(ReplyAudio)]
        assert max(map(len, packets)) == 5
        assert {len(packet) for piece in packets for packet in piece} == {160}


async def test_a_reply_goes_on_as_usual_once_the_loop_is_on_time_again() -> None:
    model = ScriptedModel([["A sentence that takes a long time to say, longer than that. "]])
    synthesizer = ScriptedSynthesizer(ms_per_character=100)
    async with ScriptedHarness(model=model, synthesizer=synthesizer) as stage:
        late(stage, VERY_LATE_S)
        stage.send(CommitTurn("hello"))
        await stage.notice(ReplyAudio, 3)
        for second in range(1, 10):
            stage.reads.lateness.add_lag(second * 1.5, 0.0)
        assert not stage.reads.late
        before = len(stage.of(ReplyAudio))
        await stage.notice(TurnCompleted)
        ends_ms = [audio.end_ms for audio in stage.of(ReplyAudio)][before:]
        assert {end - begin for begin, end in pairwise(ends_ms[1:-2])} == {PIECE_MS}
