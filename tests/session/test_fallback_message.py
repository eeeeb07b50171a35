"""The chat model fails before anything was said: the error is told, an apology is
spoken, the turn ends.
"""

import pytest

from tests.session.test_session import AUDIO, audio, replying_messages, told
from voicechat.errors import Fault
from voicechat.session import commands as cmd
from voicechat.session import effects as ef
from voicechat.session import events as ev
from voicechat.session import notices as nt
from voicechat.session.fallback_message import FallbackMessage
from voicechat.session.session import Session
from voicechat.session.states import State
from voicechat.session.types import Transcript

FAILED = ev.ReplyFailed(1, Fault.LLM_FAILED, "the chat model failed: timeout")
APOLOGY = FallbackMessage(zh="抱歉。", en="Sorry.")


def failed(
    apology: FallbackMessage | None = APOLOGY, text: str = "go on"
) -> tuple[Session, list[ef.Effect]]:
    session = Session(fallback_message=apology)
    session.receive(AUDIO, 0)
    session.receive(ev.Transcribed(1, Transcript(text, 0, 100)), 0)
    session.receive(cmd.CommitTurn(), 0)
    session.receive(ev.RecognitionEnded(1), 0)
    return session, session.receive(FAILED, 10)


def outcomes(effects: list[ef.Effect]) -> list[nt.Outcome]:
    return [
        effect.metric.outcome
        for effect in effects
        if isinstance(effect, ef.RecordMetric) and isinstance(effect.metric, ef.TurnEnded)
    ]


@pytest.mark.parametrize(
    ("text", "apology"), [("go on", "Sorry."), ("请继续", "抱歉。"), ("用 Python 写", "抱歉。")]
)
def test_the_error_is_told_and_then_the_apology_spoken_in_the_users_language(
    text: str, apology: str
) -> None:
    session, effects = failed(text=text)
    assert effects == [
        ef.Send(nt.Failed(Fault.LLM_FAILED, "the chat model failed: timeout")),
        ef.Speak(1, 0, apology),
        ef.FinishSpeech(1),
    ]
    assert session.state is State.REPLYING


def test_the_apology_is_the_replys_audio_and_comes_before_completed_and_is_not_remembered() -> None:
    session, _ = failed()
    session.receive(audio(1, 400), 20)
    session.receive(ev.SentenceSynthesized(1, 0), 20)
    effects = session.receive(ev.SpeechEnded(1), 20)
    assert told(effects) == [
        nt.ReplyAudioFinished(1, ("Sorry.",)),
        nt.ReplyEnded(1, nt.Outcome.FAILED),
        nt.TurnCompleted(nt.Outcome.FAILED),
    ]
    assert outcomes(effects) == [nt.Outcome.FAILED]
    session.receive(ev.AudioSent(1, 400), 20)
    assert [message["role"] for message in replying_messages(session, 2, 1_000)] == ["user", "user"]


def test_what_was_already_told_of_the_text_is_not_remembered_either() -> None:
    session = Session(fallback_message=APOLOGY)
    session.receive(cmd.CommitTurn("hello"), 0)
    session.receive(ev.ReplyTextArrived(1, "Well, I"), 0)
    session.receive(FAILED, 10)
    session.receive(audio(1, 400), 20)
    session.receive(ev.SentenceSynthesized(1, 0), 20)
    session.receive(ev.SpeechEnded(1), 20)
    assert [message["role"] for message in replying_messages(session, 1, 1_000)] == ["user", "user"]


def test_when_the_voice_fails_too_the_turn_ends_and_the_error_is_told_once() -> None:
    session, _ = failed()
    effects = session.receive(
        ev.ReplyFailed(1, Fault.TTS_FAILED, "speech synthesis failed: timeout"), 20
    )
    assert [type(notice) for notice in told(effects)] == [
        nt.ReplyCut,
        nt.ReplyEnded,
        nt.TurnCompleted,
    ]
    assert ef.StopReply(1) in effects
    assert outcomes(effects) == [nt.Outcome.FAILED]


def test_an_apology_can_be_interrupted() -> None:
    session, _ = failed()
    session.receive(audio(1, 400), 20)
    effects = session.receive(cmd.Cancel(), 30)
    assert ef.StopReply(1) in effects
    assert told(effects)[-2:] == [nt.Done(None), nt.TurnCompleted(nt.Outcome.CANCELED)]


@pytest.mark.parametrize("apology", [None, FallbackMessage(en="", zh="抱歉。")])
def test_without_an_apology_the_turn_ends_at_once(apology: FallbackMessage | None) -> None:
    session, effects = failed(apology)
    assert [type(message) for message in told(effects)][-2:] == [nt.Failed, nt.TurnCompleted]
    assert ef.StopReply(1) in effects
    assert session.state is State.LISTENING


def test_when_something_has_been_said_the_turn_ends_at_once() -> None:
    session = Session(fallback_message=APOLOGY)
    session.receive(cmd.CommitTurn("hello"), 0)
    session.receive(ev.ReplyTextArrived(1, "Hello there. "), 0)
    effects = session.receive(FAILED, 10)
    assert [type(message) for message in told(effects)][-2:] == [nt.Failed, nt.TurnCompleted]


def test_for_the_voices_own_failure_nobody_apologises() -> None:
    session = Session(fallback_message=APOLOGY)
    session.receive(cmd.CommitTurn("hello"), 0)
    effects = session.receive(
        ev.ReplyFailed(1, Fault.TTS_FAILED, "speech synthesis failed: broken"), 10
    )
    assert [type(message) for message in told(effects)][-2:] == [nt.Failed, nt.TurnCompleted]
