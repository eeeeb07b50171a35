from hypothesis import given
from hypothesis import strategies as st

from voicechat.session.turn_end import TurnEnd
from voicechat.session.turn_policy import AdaptiveSilence, FixedSilence


def said(turn: TurnEnd, from_ms: int, to_ms: int, text: str) -> None:
    """Speech whose words are known when it ends."""
    turn.speech_started(from_ms)
    turn.transcribed(text)
    turn.speech_stopped(to_ms)


def test_silence_after_speech_ends_the_turn() -> None:
    turn = TurnEnd(FixedSilence(500))
    assert turn.deadline_ms() is None
    turn.speech_started(100)
    assert turn.deadline_ms() is None
    turn.speech_stopped(900)
    assert turn.deadline_ms() == 1_400


def test_the_words_move_the_deadline_when_they_come() -> None:
    turn = TurnEnd(AdaptiveSilence(silence_ms=500))
    turn.speech_started(0)
    turn.speech_stopped(1_000)
    turn.transcribed("i was there and")
    assert turn.deadline_ms() == 2_500
    turn.transcribed("i was there and.")
    turn.transcribed("I was there in London.")
    assert turn.deadline_ms() == 1_300


def test_speech_that_goes_on_keeps_the_turn_open_and_teaches_the_pause() -> None:
    turn = TurnEnd(FixedSilence(500))
    said(turn, 0, 1_000, "one")
    turn.speech_started(1_300)
    turn.transcribed("one two")
    assert turn.deadline_ms() is None
    turn.speech_stopped(1_800)
    assert turn.deadline_ms() == 2_300
    assert turn.pauses_ms == (300,)


def test_a_pause_that_the_words_announced_teaches_nothing() -> None:
    turn = TurnEnd(FixedSilence(2_000))
    said(turn, 0, 1_000, "i was there and")
    said(turn, 2_200, 3_000, "i was there and saw it")
    assert turn.pauses_ms == ()


def test_a_cough_after_the_words_does_not_start_the_wait_again() -> None:
    turn = TurnEnd(FixedSilence(500))
    said(turn, 0, 1_000, "that is all")
    turn.speech_started(1_200)
    turn.speech_stopped(1_400)
    assert turn.deadline_ms() == 1_750
    assert turn.pauses_ms == ()


def test_a_late_word_makes_the_cough_speech() -> None:
    turn = TurnEnd(FixedSilence(500))
    said(turn, 0, 1_000, "that is all")
    turn.speech_started(1_200)
    turn.speech_stopped(1_400)
    turn.transcribed("that is all folks")
    assert turn.deadline_ms() == 1_900
    assert turn.pauses_ms == (200,)


def test_a_television_does_not_keep_the_turn_open_for_good() -> None:
    turn = TurnEnd(FixedSilence(500))
    said(turn, 0, 1_000, "that is all")
    turn.speech_started(1_100)
    assert turn.deadline_ms() == 2_300


def test_a_recogniser_that_has_said_nothing_yet_is_waited_for() -> None:
    turn = TurnEnd(FixedSilence(500))
    turn.speech_started(0)
    turn.speech_stopped(1_000)
    turn.speech_started(1_200)
    assert turn.deadline_ms() is None


def test_speech_right_after_an_end_shows_a_pause_of_this_speaker() -> None:
    turn = TurnEnd(FixedSilence(500))
    said(turn, 0, 1_000, "the thing is")
    turn.end()
    assert turn.deadline_ms() is None
    turn.speech_started(1_800)
    assert turn.pauses_ms == (800,)


def test_speech_long_after_an_end_is_no_pause() -> None:
    turn = TurnEnd(FixedSilence(500))
    said(turn, 0, 1_000, "good")
    turn.end()
    turn.speech_started(9_000)
    assert turn.pauses_ms == ()


def test_a_learned_model_is_asked_anew_after_each_stretch_of_speech() -> None:
    turn = TurnEnd(AdaptiveSilence(silence_ms=500))
    said(turn, 0, 1_000, "the printer")
    turn.completed(0.0)
    assert turn.deadline_ms() == 2_500
    said(turn, 1_200, 2_000, "the printer upstairs")
    assert turn.deadline_ms() == 2_500


@given(st.lists(st.tuples(st.integers(50, 3_000), st.sampled_from(["speak", "stop", "word", "end"])), max_size=60))
def test_whoever_falls_silent_is_answered(steps: list[tuple[int, str]]) -> None:
    """Whatever has happened: silence brings a deadline, within bounds, if there was speech since the last end."""
    turn = TurnEnd(AdaptiveSilence())
    now_ms, sounding, spoke, text = 0, False, False, ""
    for wait_ms, step in steps:
        now_ms += wait_ms
        match step:
            case "speak" if not sounding:
                turn.speech_started(now_ms)
                sounding = spoke = True
            case "stop" if sounding:
                turn.speech_stopped(now_ms)
                sounding = False
            case "word" if spoke:
                text += " word"
                turn.transcribed(text)
            case "end" if not sounding:
                turn.end()
                spoke, text = False, ""
    deadline_ms = turn.deadline_ms()
    if spoke and not sounding:
        assert deadline_ms is not None
        assert deadline_ms <= now_ms + AdaptiveSilence().most_ms
    if not spoke:
        assert deadline_ms is None
