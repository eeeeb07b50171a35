"""Whole hands-free conversations: the real voice detection, a room with a loudspeaker,
scripted words.
"""

import numpy as np
import pytest

from tests.hands_free.stage import Echo, Stage
from tests.voice.sounds import OBJECTION, RATE_HZ, REPLY, Samples, loudness, noise, silence, speak
from voicechat.client import (
    CanceledMessage,
    CompletedMessage,
    CreatedMessage,
    ReplyAudioMessage,
    SpeechStartedMessage,
    SpeechStoppedMessage,
    TranscriptMessage,
    TurnCompletedMessage,
    UpdatedMessage,
)
from voicechat.session.effects import PreemptiveReplyEnded
from voicechat.session.types import TurnDetection
from voicechat.testing.scripted import ScriptedModel, ScriptedRecognizer
from voicechat.voice.silero import FRAME_MS

QUESTION = "what is the weather like today"
DETECTION_MS = 64 + 32
"""From the onset to its detection (two frames), and the frame in which it lies."""


def a_long_reply(**more: object) -> Stage:
    fields = {
        "model": ScriptedModel(replies=((REPLY,),)),
        "recognizer": ScriptedRecognizer(texts=(QUESTION, "and tomorrow")),
        **more,
    }
    return Stage(**fields)  # type: ignore[arg-type]


def a_cough(seed: int = 0) -> Samples:
    """A burst that decays within 250 ms, as loud as speech."""
    times_s = np.arange(RATE_HZ // 4) / RATE_HZ
    burst: Samples = (
        np.random.default_rng(seed).standard_normal(len(times_s)) * np.exp(-times_s / 0.06) * 9000
    )
    return burst


def asked(stage: Stage) -> list[list[str]]:
    """What the model was asked: the contents of the messages, per request."""
    assert isinstance(stage.model, ScriptedModel)
    return [
        [str(message["content"]) for message in request.messages]
        for request in stage.model.requests
    ]


async def test_two_turns_without_a_button() -> None:
    stage = Stage(recognizer=ScriptedRecognizer(texts=("first question", "second question")))
    async with stage.playing():
        for number in (1, 2):
            end_ms = stage.says(speak(QUESTION), stage.mic_ms + 500)
            completed_ms = await stage.until(CompletedMessage, number)
            assert 200 <= completed_ms - end_ms <= 700, "the turn ends by itself, after a pause"
            await stage.until(TurnCompletedMessage, number)
            await stage.at(stage.mic_ms + 2_500)
    assert [message.reason for message in stage.of(CompletedMessage)] == ["turn_detected"] * 2
    assert [messages[-1] for messages in asked(stage)] == ["first question", "second question"]
    assert stage.times(CanceledMessage) == []


async def test_speech_in_mid_reply_stops_it_and_becomes_the_next_turn() -> None:
    stage = a_long_reply()
    async with stage.playing():
        stage.says(speak(QUESTION), 500)
        onset_ms = await stage.until(ReplyAudioMessage) + 3_000
        stage.says(speak("no, and tomorrow"), onset_ms)
        canceled_ms = await stage.until(CanceledMessage)
        sent = len(stage.of(ReplyAudioMessage))
        assert canceled_ms - onset_ms <= 200 + DETECTION_MS + 20, "and a block of the sound card"
        await stage.until(CompletedMessage, 2)
        # Of the interrupted reply nothing more; of the next one perhaps (2 if that was
        # begun early and kept, else 3).
        assert {message.reply_id for message in stage.of(ReplyAudioMessage)[sent:]} in (
            set(),
            {"2"},
            {"3"},
        )
        await stage.until(TurnCompletedMessage, 2)
        await stage.at(stage.mic_ms + 500)
    question, answer, more = asked(stage)[1]
    assert (question, more) == (QUESTION, "and tomorrow")
    assert REPLY.startswith(answer)
    assert 0 < len(answer) < len(REPLY) / 2, "the model remembers what was heard"


async def test_the_recogniser_hears_the_interrupting_speech_from_its_first_syllable() -> None:
    recognizer = ScriptedRecognizer(texts=(QUESTION, "no"))
    stage = a_long_reply(recognizer=recognizer)
    async with stage.playing():
        stage.says(speak(QUESTION), 500)
        onset_ms = await stage.until(ReplyAudioMessage) + 3_000
        end_ms = stage.says(speak("no, and tomorrow"), onset_ms)
        completed_ms = await stage.until(CompletedMessage, 2)
        heard_ms = recognizer.heard_ms[1]
        assert heard_ms >= completed_ms - onset_ms + 200, "and 200 ms of what came before"
        assert completed_ms > end_ms


@pytest.mark.parametrize(
    "sound", [a_cough(), noise(400, -20), noise(2_000, -35), np.sign(noise(5, -3)) * 20_000]
)
async def test_a_noise_does_not_interrupt(sound: Samples) -> None:
    stage = a_long_reply()
    async with stage.playing():
        stage.says(speak(QUESTION), 500)
        stage.says(sound, await stage.until(ReplyAudioMessage) + 2_000)
        await stage.at(stage.mic_ms + 5_000)
    assert stage.times(CanceledMessage) == []
    assert len([message for message in stage.of(TranscriptMessage) if message.final]) == 1


@pytest.mark.parametrize("level_db", [-10, -15, -25])
@pytest.mark.parametrize("delay_ms", [50, 150, 250])
async def test_the_echo_of_the_reply_neither_interrupts_nor_enters_the_transcript(
    level_db: int, delay_ms: int
) -> None:
    stage = a_long_reply(echo=Echo(level_db, delay_ms))
    async with stage.playing():
        end_ms = stage.says(speak(QUESTION), 500)
        await stage.until(ReplyAudioMessage)
        await stage.at(stage.mic_ms + 11_000)
        assert stage.heard_ms > 7_500, "the reply was heard to its end"
    assert stage.times(CanceledMessage) == []
    assert [
        started_ms for started_ms in stage.times(SpeechStartedMessage) if started_ms > end_ms
    ] == []
    assert all(QUESTION.startswith(message.text) for message in stage.of(TranscriptMessage))
    assert len([message for message in stage.of(TranscriptMessage) if message.final]) == 1


async def test_frames_that_the_network_delivers_unevenly_do_not_hide_the_echo() -> None:
    stage = a_long_reply(echo=Echo(-15, 150), uplink_jitter_ms=60)
    async with stage.playing():
        stage.says(speak(QUESTION), 500)
        await stage.until(ReplyAudioMessage)
        await stage.at(stage.mic_ms + 9_000)
    assert stage.times(CanceledMessage) == []


@pytest.mark.parametrize("level_db", [-10, -25])
@pytest.mark.parametrize("delay_ms", [50, 250])
@pytest.mark.parametrize("after_ms", [300, 3_000])
async def test_the_user_who_talks_over_the_echo_interrupts(
    level_db: int, delay_ms: int, after_ms: int
) -> None:
    stage = a_long_reply(echo=Echo(level_db, delay_ms))
    objection = speak(OBJECTION)
    async with stage.playing():
        stage.says(speak(QUESTION), 500)
        onset_ms = await stage.until(ReplyAudioMessage) + after_ms
        stage.says(objection * loudness(speak(REPLY)) / loudness(objection), onset_ms)
        canceled_ms = await stage.until(CanceledMessage)
    assert onset_ms < canceled_ms < onset_ms + 900


@pytest.mark.parametrize("after_ms", [100, 400, 900, 1_600])
@pytest.mark.parametrize("min_ms", [128, 200, 500])
async def test_without_an_echo_the_first_reply_is_interrupted_as_soon_as_any_other(
    after_ms: int, min_ms: int
) -> None:
    """Whether it echoes is found out within the time that speech must last anyway."""
    stage = a_long_reply(detection=TurnDetection(min_interruption_ms=min_ms))
    async with stage.playing():
        stage.says(speak(QUESTION), 500)
        begins_ms = await stage.until(ReplyAudioMessage) + after_ms
        stage.says(speak("tell me about tomorrow instead"), begins_ms)
        canceled_ms = await stage.until(CanceledMessage)
    onset_ms = stage.of(SpeechStartedMessage)[-1].audio_start_ms + stage.detection.prefix_padding_ms
    assert begins_ms - FRAME_MS <= onset_ms <= begins_ms + 300, "it begins softly"
    assert canceled_ms - onset_ms <= min_ms + 64


@pytest.mark.parametrize("late_ms", [37, 110])
async def test_the_echo_of_a_reply_that_is_played_later_than_the_one_before_is_known(
    late_ms: int,
) -> None:
    stage = a_long_reply(echo=Echo(-15, 100), model=ScriptedModel(replies=((REPLY,), (REPLY,))))
    async with stage.playing():
        stage.says(speak(QUESTION), 500)
        await stage.until(ReplyAudioMessage)
        await stage.at(stage.mic_ms + 10_500)
        stage.jitter_ms = (late_ms, late_ms)
        end_ms = stage.says(speak(QUESTION), stage.mic_ms + 100)
        await stage.until(CompletedMessage, 2)
        await stage.at(end_ms + 10_500)
        assert stage.heard_ms > 7_500, "the second reply too was heard to its end"
    assert stage.times(CanceledMessage) == []
    assert [
        started_ms for started_ms in stage.times(SpeechStartedMessage) if started_ms > end_ms
    ] == []


async def test_after_a_cancel_what_the_loudspeaker_still_says_is_no_speech() -> None:
    stage = a_long_reply(echo=Echo(-10, 250))
    async with stage.playing():
        stage.says(speak(QUESTION), 500)
        onset_ms = await stage.until(ReplyAudioMessage) + 3_000
        end_ms = stage.says(speak("stop"), onset_ms)
        await stage.until(CanceledMessage)
        await stage.at(end_ms + 3_000)
    assert (
        len(
            [
                started_ms
                for started_ms in stage.times(SpeechStartedMessage)
                if started_ms > end_ms + 150
            ]
        )
        == 0
    )


async def test_a_reply_begun_early_saves_time_and_is_told_only_at_the_end_of_the_turn() -> None:
    stage = a_long_reply(model=ScriptedModel(replies=((REPLY,),), first_ms=100))
    async with stage.playing():
        stage.says(speak(QUESTION), 500)
        first_audio_ms = await stage.until(ReplyAudioMessage)
    assert first_audio_ms >= stage.times(CompletedMessage)[0]
    assert [fact.used for fact in stage.facts if isinstance(fact, PreemptiveReplyEnded)] == [True]


async def test_silence_is_nobodys_turn() -> None:
    stage = Stage()
    async with stage.playing():
        stage.says(silence(1_000), 0)
        await stage.at(10_000)
    assert [type(message) for _, message in stage.messages] == [CreatedMessage, UpdatedMessage]


async def test_a_user_who_mutes_right_after_the_last_word_is_answered() -> None:
    stage = Stage(recognizer=ScriptedRecognizer(texts=("first question", "second question")))
    async with stage.playing():
        question = speak(QUESTION)
        end_ms = 500 + int(np.flatnonzero(np.abs(question) > 1_000)[-1]) * 1000 // RATE_HZ
        stage.says(question, 500)
        stage.muted_at_ms = end_ms // 20 * 20
        replied_ms = await stage.until(ReplyAudioMessage)
        assert replied_ms - end_ms <= 3_000
        assert len(stage.times(SpeechStoppedMessage)) == 1
        await stage.until(TurnCompletedMessage)
        stage.muted_at_ms = None
        stage.says(speak(QUESTION), stage.mic_ms + 3_000)
        await stage.until(TurnCompletedMessage, 2)
    assert [messages[-1] for messages in asked(stage)] == ["first question", "second question"]


async def test_a_user_who_interrupts_and_mutes_is_answered() -> None:
    stage = a_long_reply(interrupt_by_voice=False)
    async with stage.playing():
        stage.says(speak(QUESTION), 500)
        objection = speak(OBJECTION)
        at_ms = await stage.until(ReplyAudioMessage) + 3_000
        stage.says(objection, at_ms)
        stage.muted_at_ms = at_ms + 1_500
        await stage.until(CanceledMessage)
        await stage.until(TurnCompletedMessage, 2)
    assert asked(stage)[1][-1] == "and tomorrow"


@pytest.mark.parametrize("hum", ["mm-hm", "it you"])
async def test_where_words_are_waited_for_a_hum_lets_the_reply_be_heard(hum: str) -> None:
    recognizer = ScriptedRecognizer(texts=(QUESTION, hum, hum))
    stage = a_long_reply(interrupt_by_voice=False, recognizer=recognizer)
    cough = np.tile(a_cough(), 2)[: RATE_HZ * 3 // 10]
    async with stage.playing():
        stage.says(speak(QUESTION), 500)
        began_ms = await stage.until(ReplyAudioMessage)
        stage.says(cough, began_ms + 1_500)
        stage.says(speak("mm hmm"), began_ms + 3_500)
        await stage.at(began_ms + 11_000)
        assert stage.heard_ms > 7_500, "the reply was heard to its end"
    assert stage.times(CanceledMessage) == []


@pytest.mark.parametrize("by_voice", [False, True])
async def test_where_a_word_is_asked_for_a_hum_is_waited_for_as_long_as_whisper_takes(
    by_voice: bool,
) -> None:
    whisper_like = ScriptedRecognizer(
        texts=(QUESTION, "mm-hm", "mm-hm"), word_ms=60_000, final_ms=1_000
    )
    stage = a_long_reply(
        recognizer=whisper_like,
        interrupt_by_voice=by_voice,
        detection=TurnDetection(min_interruption_words=1),
    )
    hum = np.tile(speak("mm hmm"), 2)[: RATE_HZ * 7 // 10]
    async with stage.playing():
        stage.says(speak(QUESTION), 500)
        began_ms = await stage.until(ReplyAudioMessage)
        stage.says(hum, began_ms + 3_000)
        await stage.at(began_ms + 11_000)
        assert stage.heard_ms > 7_500, "the reply was heard to its end"
        assert len(stage.times(SpeechStartedMessage)) == 2, "the hum was heard"
    assert stage.times(CanceledMessage) == []
