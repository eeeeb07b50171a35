import pytest
from hypothesis import given
from hypothesis import strategies as st

from voicechat.session.barge_in import BargeIn, BargeInSettings, Verdict

FILTERED = BargeInSettings()
BY_VOICE = BargeInSettings(by_voice=True)
BY_WORDS = BargeInSettings(min_words=1)


def test_by_voice_alone_speech_of_the_least_length_interrupts() -> None:
    sound = BargeIn(BY_VOICE, 1_000)
    assert sound.decide(1_199) is Verdict.UNDECIDED
    assert sound.deadline_ms() == 1_200
    assert sound.decide(1_200) is Verdict.INTERRUPTION
    assert sound.deadline_ms() is None


@pytest.mark.parametrize(
    ("settings", "decided_ms"), [(FILTERED, 1_620), (BY_WORDS, 1_620), (BY_VOICE, 520)]
)
def test_a_click_does_not_interrupt(settings: BargeInSettings, decided_ms: int) -> None:
    sound = BargeIn(settings, 0)
    sound.speech_stopped(120)
    assert sound.decide(130) is Verdict.UNDECIDED
    assert sound.deadline_ms() == decided_ms
    assert sound.decide(decided_ms) is Verdict.NONE


def test_a_cough_that_brings_no_word_does_not_interrupt() -> None:
    sound = BargeIn(FILTERED, 0)
    assert sound.decide(350) is Verdict.UNDECIDED
    sound.speech_stopped(350)
    assert sound.decide(750) is Verdict.UNDECIDED, "its first word may still come"
    assert sound.decide(1_850) is Verdict.NONE


@pytest.mark.parametrize("settings", [FILTERED, BY_WORDS])
def test_a_recogniser_that_takes_a_second_is_waited_for(settings: BargeInSettings) -> None:
    sound = BargeIn(settings, 0)
    assert sound.decide(700) is Verdict.UNDECIDED
    sound.speech_stopped(700)
    sound.note_transcript("mm-hm", 1_700)
    assert sound.decide(1_700) is not Verdict.INTERRUPTION
    assert sound.decide(2_200) is Verdict.NONE
    sound = BargeIn(settings, 0)
    sound.speech_stopped(700)
    sound.note_transcript("and tomorrow", 1_700)
    assert sound.decide(1_700) is Verdict.INTERRUPTION


@pytest.mark.parametrize("settings", [FILTERED, BY_VOICE, BY_WORDS])
def test_two_coughs_are_not_one_long_sound(settings: BargeInSettings) -> None:
    sound = BargeIn(settings, 0)
    for at_ms in (0, 500, 1_000, 1_500):
        sound.speech_resumed(at_ms)
        assert sound.decide(at_ms + 100) is Verdict.UNDECIDED
        sound.speech_stopped(at_ms + 100)
    assert sound.decide(1_500 + 100 + 1_500) is Verdict.NONE


def test_a_gap_in_a_word_does_not_count_as_speech() -> None:
    sound = BargeIn(BY_VOICE, 0)
    sound.speech_stopped(100)
    sound.speech_resumed(250)
    assert sound.deadline_ms() == 350
    assert sound.decide(350) is Verdict.INTERRUPTION


@pytest.mark.parametrize("text", ["", "mm-hm", "nice"])
def test_where_a_word_is_needed_no_sound_interrupts_without_one(text: str) -> None:
    sound = BargeIn(BY_WORDS, 0)
    sound.note_transcript(text, 400)
    assert sound.deadline_ms() is None
    assert sound.decide(60_000) is Verdict.UNDECIDED
    sound.note_transcript("nice but why", 60_000)
    assert sound.decide(60_000) is Verdict.INTERRUPTION


@pytest.mark.parametrize("text", ["mm-hmm", "right", "嗯", "好的"])
def test_a_sign_of_listening_does_not_interrupt(text: str) -> None:
    sound = BargeIn(FILTERED, 0)
    sound.note_transcript(text, 350)
    sound.speech_stopped(400)
    assert sound.decide(799) is Verdict.UNDECIDED
    assert sound.decide(800) is Verdict.NONE


def test_what_follows_a_sign_of_listening_interrupts() -> None:
    sound = BargeIn(FILTERED, 0)
    sound.note_transcript("right", 350)
    assert sound.decide(350) is Verdict.UNDECIDED
    sound.note_transcript("right but when", 700)
    assert sound.decide(700) is Verdict.INTERRUPTION


def test_words_before_the_least_length_are_decided_at_it() -> None:
    sound = BargeIn(FILTERED, 0)
    sound.note_transcript("how much", 150)
    assert sound.decide(150) is Verdict.UNDECIDED
    assert sound.deadline_ms() == 200
    assert sound.decide(200) is Verdict.INTERRUPTION


@pytest.mark.parametrize(
    ("text", "verdict"), [("多少", Verdict.UNDECIDED), ("多少钱", Verdict.INTERRUPTION)]
)
def test_a_han_character_is_a_word(text: str, verdict: Verdict) -> None:
    sound = BargeIn(BargeInSettings(min_words=3), 0)
    sound.note_transcript(text, 300)
    assert sound.decide(300) is verdict


@pytest.mark.parametrize("text", ["stop", "停", "等一下"])
def test_who_asks_for_the_floor_gets_it_however_short(text: str) -> None:
    sound = BargeIn(BargeInSettings(min_words=5), 0)
    sound.speech_stopped(150)
    sound.note_transcript(text, 400)
    assert sound.decide(400) is Verdict.INTERRUPTION


def test_a_recogniser_that_stays_silent_does_not_delay_for_long() -> None:
    sound = BargeIn(FILTERED, 0)
    assert sound.deadline_ms() == 1_000
    assert sound.decide(999) is Verdict.UNDECIDED
    assert sound.decide(1_000) is Verdict.INTERRUPTION


def test_a_verdict_does_not_change() -> None:
    sound = BargeIn(FILTERED, 0)
    sound.speech_stopped(100)
    assert sound.decide(1_600) is Verdict.NONE
    sound.note_transcript("stop", 1_700)
    assert sound.decide(1_700) is Verdict.NONE


@given(
    st.lists(
        st.tuples(st.integers(1, 400), st.sampled_from(["", "mm", "mm okay", "but why", "嗯"])),
        max_size=12,
    ),
    st.sampled_from([FILTERED, BY_VOICE, BargeInSettings(min_words=3)]),
)
def test_every_sound_is_decided_at_its_deadlines(
    partials: list[tuple[int, str]], settings: BargeInSettings
) -> None:
    """The user falls silent: asking at the deadlines, each later than the one before,
    leads to a verdict.
    """
    sound, now_ms = BargeIn(settings, 0), 0
    for wait_ms, text in partials:
        now_ms += wait_ms
        sound.note_transcript(text, now_ms)
        sound.decide(now_ms)
    sound.speech_stopped(now_ms)
    for _ in range(3):
        deadline_ms = sound.deadline_ms()
        if deadline_ms is None:
            break
        now_ms = max(now_ms, deadline_ms)
        sound.decide(now_ms)
    assert sound.deadline_ms() is None
    assert sound.decide(now_ms) is not Verdict.UNDECIDED
