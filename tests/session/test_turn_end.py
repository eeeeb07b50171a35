from hypothesis import given
from hypothesis import strategies as st

from voicechat.session.turn_end import SoundLimits, TurnEnd
from voicechat.session.turn_policy import AdaptiveSilence


def always(silence_ms: int) -> AdaptiveSilence:
    """The same silence, whatever was said."""
    return AdaptiveSilence(silence_ms=silence_ms, complete=1, unfinished=1, dictating=1, habit=0)


def said(turn: TurnEnd, from_ms: int, to_ms: int, text: str) -> None:
    """Speech whose words are known when it ends."""
    turn.speech_started(from_ms)
    turn.note_transcript(text, to_ms)
    turn.speech_stopped(to_ms)


def test_silence_after_speech_ends_the_turn() -> None:
    turn = TurnEnd(always(500))
    assert turn.deadline_ms() is None
    turn.speech_started(100)
    assert turn.deadline_ms() == 100 + SoundLimits().unheard_ms
    turn.speech_stopped(900)
    assert turn.deadline_ms() == 1_400


def test_the_words_move_the_deadline_when_they_come() -> None:
    turn = TurnEnd(AdaptiveSilence(silence_ms=500))
    turn.speech_started(0)
    turn.speech_stopped(1_000)
    turn.note_transcript("i was there and", 0)
    assert turn.deadline_ms() == 2_500
    turn.note_transcript("i was there and.", 0)
    turn.note_transcript("I was there in London.", 0)
    assert turn.deadline_ms() == 1_300


def test_speech_that_goes_on_keeps_the_turn_open_and_teaches_the_pause() -> None:
    turn = TurnEnd(always(500))
    said(turn, 0, 1_000, "one")
    turn.speech_started(1_300)
    turn.note_transcript("one two", 1_700)
    assert turn.deadline_ms() == 1_700 + SoundLimits().unchanged_ms + 500
    turn.speech_stopped(1_800)
    assert turn.deadline_ms() == 2_300
    assert turn.pauses_ms == (300,)


def test_a_pause_that_the_words_announced_teaches_nothing() -> None:
    turn = TurnEnd(always(2_000))
    said(turn, 0, 1_000, "i was there and")
    said(turn, 2_200, 3_000, "i was there and saw it")
    assert turn.pauses_ms == ()


def test_a_cough_after_the_words_does_not_start_the_wait_again() -> None:
    turn = TurnEnd(always(500))
    said(turn, 0, 1_000, "that is all")
    turn.speech_started(1_200)
    turn.speech_stopped(1_400)
    assert turn.deadline_ms() == 1_750
    assert turn.pauses_ms == ()


def test_a_late_word_makes_the_cough_speech() -> None:
    turn = TurnEnd(always(500))
    said(turn, 0, 1_000, "that is all")
    turn.speech_started(1_200)
    turn.speech_stopped(1_400)
    turn.note_transcript("that is all folks", 0)
    assert turn.deadline_ms() == 1_900
    assert turn.pauses_ms == (200,)


def test_a_television_does_not_keep_the_turn_open_for_good() -> None:
    turn = TurnEnd(always(500))
    said(turn, 0, 1_000, "that is all")
    turn.speech_started(1_100)
    assert turn.deadline_ms() == 2_300


def test_a_recogniser_that_has_said_nothing_yet_is_waited_for() -> None:
    turn = TurnEnd(always(500))
    turn.speech_started(0)
    turn.speech_stopped(1_000)
    turn.speech_started(1_200)
    assert turn.deadline_ms() == SoundLimits().unheard_ms


def test_words_that_stay_the_same_end_the_turn_although_the_sound_goes_on() -> None:
    """A television after the user's last word, without a gap between them."""
    turn = TurnEnd(always(500))
    turn.speech_started(0)
    turn.note_transcript("what time", 600)
    turn.note_transcript("what time is it", 900)
    turn.note_transcript("what time is it", 3_000)
    assert turn.deadline_ms() == 900 + SoundLimits().unchanged_ms + 500
    turn.note_transcript("what time is it now", 3_500)
    assert turn.deadline_ms() == 3_500 + SoundLimits().unchanged_ms + 500


def test_sounds_again_and_again_do_not_keep_the_turn_open_for_good() -> None:
    """Each key of a keyboard is a new sound, which may bring a word within its own
    time.
    """
    turn = TurnEnd(always(500))
    said(turn, 0, 1_000, "that is all")
    for key_ms in range(1_400, 20_000, 400):
        turn.speech_started(key_ms)
        turn.speech_stopped(key_ms + 100)
    assert turn.deadline_ms() == 1_000 + SoundLimits().unchanged_ms + 500


def test_sounds_without_any_word_end_their_turn_after_half_a_minute() -> None:
    turn = TurnEnd(always(500))
    for at_ms in range(0, 60_000, 400):
        turn.speech_started(at_ms)
        turn.speech_stopped(at_ms + 200)
    assert turn.deadline_ms() == SoundLimits().unheard_ms


def test_a_turn_that_ended_in_a_sound_says_nothing_about_pauses() -> None:
    turn = TurnEnd(always(500))
    said(turn, 0, 1_000, "that is all")
    turn.speech_started(1_200)
    turn.end_turn()
    turn.speech_started(2_400)
    assert turn.pauses_ms == ()


def test_speech_right_after_an_end_shows_a_pause_of_this_speaker() -> None:
    turn = TurnEnd(always(500))
    said(turn, 0, 1_000, "the thing is")
    turn.end_turn()
    assert turn.deadline_ms() is None
    turn.speech_started(1_800)
    assert turn.pauses_ms == (800,)


def test_speech_long_after_an_end_is_no_pause() -> None:
    turn = TurnEnd(always(500))
    said(turn, 0, 1_000, "good")
    turn.end_turn()
    turn.speech_started(9_000)
    assert turn.pauses_ms == ()


def test_a_learned_model_is_asked_anew_after_each_stretch_of_speech() -> None:
    turn = TurnEnd(AdaptiveSilence(silence_ms=500))
    said(turn, 0, 1_000, "the printer")
    turn.note_completion(0.0)
    assert turn.deadline_ms() == 2_500
    said(turn, 1_200, 2_000, "the printer upstairs")
    assert turn.deadline_ms() == 2_500


@given(
    st.lists(
        st.tuples(st.integers(50, 3_000), st.sampled_from(["speak", "stop", "word", "end"])),
        max_size=60,
    )
)
def test_whoever_falls_silent_is_answered(steps: list[tuple[int, str]]) -> None:
    """Whatever has happened: silence brings a deadline, within bounds, if there was
    speech since the last end.
    """
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
                turn.note_transcript(text, now_ms)
            case "end" if not sounding:
                turn.end_turn()
                spoke, text = False, ""
    deadline_ms = turn.deadline_ms()
    if spoke and not sounding:
        assert deadline_ms is not None
        assert deadline_ms <= now_ms + AdaptiveSilence().most_ms
    if not spoke:
        assert deadline_ms is None
