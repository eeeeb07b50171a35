from voicechat.session.effects import TurnEnded
from voicechat.session.notices import Outcome
from voicechat.session.turn_times import ReplyTimes, TurnTimes


def test_a_turn_is_measured_from_its_decision_and_not_from_the_silence_before() -> None:
    times = TurnTimes(spoken_ms=1_000, decided_ms=1_600, understood_ms=1_650)
    reply = ReplyTimes(first_text_ms=1_900, first_sentence_ms=2_000, first_audio_ms=2_200)
    assert times.ended(Outcome.SPOKEN, reply) == TurnEnded(Outcome.SPOKEN, 50, 300, 600)


def test_what_was_not_reached_has_no_time() -> None:
    assert TurnTimes(0, 600).ended(Outcome.CANCELED, ReplyTimes()) == TurnEnded(
        Outcome.CANCELED, None, None, None
    )
