from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from voicechat.providers.local_agreement import LocalAgreement
from voicechat.providers.timed_words import TimedText, text_of, timed_words
from voicechat.session.types import Word
from voicechat.text.words import bare_words


def words(text: str, shift_ms: int = 0) -> tuple[Word, ...]:
    duration_ms = 300 * len(text) + shift_ms
    return timed_words(text, [TimedText(text, shift_ms, duration_ms)], duration_ms)


def shown(*passes: str) -> list[str]:
    agreement = LocalAgreement()
    return [text_of(agreement.push_pass(words(text))) for text in passes]


def test_only_what_two_passes_agree_on_is_shown() -> None:
    assert shown("go", "go for", "go forward ten", "go forward ten meters") == [
        "",
        "go",
        "go",
        "go forward ten",
    ]


def test_a_han_character_is_a_word() -> None:
    assert shown("今天天", "今天天气", "今天天气怎么", "今天田七怎么") == [
        "",
        "今天天",
        "今天天气",
        "今天天气",
    ]


def test_case_and_punctuation_do_not_disagree() -> None:
    assert shown("Hello, world.", "hello World") == ["", "hello World"]


def test_punctuation_waits_for_what_follows() -> None:
    assert shown(
        "Hello world.", "Hello world. It", "Hello, world. It is", "Hello, world. It is"
    ) == [
        "",
        "Hello world",
        "Hello world. It",
        "Hello world. It is",
    ]


def test_what_was_shown_stays_and_later_agreement_goes_on_behind_it() -> None:
    assert shown("I scream", "I scream", "Ice cream is", "Ice cream is good") == [
        "",
        "I scream",
        "I scream",
        "I scream is",
    ]


def test_a_pass_that_understands_nothing_must_be_confirmed_like_any_other() -> None:
    assert shown("one two", "", "one two", "one two three") == ["", "", "", "one two"]


def test_times_never_go_back_when_a_pass_moves_them() -> None:
    agreement = LocalAgreement()
    agreement.push_pass(words("one two", shift_ms=900))
    agreement.push_pass(words("one two", shift_ms=900))
    agreement.push_pass(words("one two three"))
    times = [(word.begin_ms, word.end_ms) for word in agreement.push_pass(words("one two three"))]
    assert len(times) == 3
    assert all(begin <= end for begin, end in times)
    assert all(before[1] <= after[0] for before, after in pairwise(times))


PASSES = st.lists(st.lists(st.sampled_from(["a", "b,", "B", "一", "。"]), max_size=5), max_size=8)


@given(PASSES)
def test_what_is_shown_only_grows_and_was_said_twice_in_a_row(passes: list[list[str]]) -> None:
    agreement = LocalAgreement()
    before_shown: tuple[Word, ...] = ()
    before: tuple[Word, ...] = ()
    for said in passes:
        now = words(" ".join(said))
        now_shown = agreement.push_pass(now)
        assert text_of(now_shown).startswith(text_of(before_shown))
        for place in range(len(before_shown), len(now_shown)):
            assert now_shown[place].text == now[place].text
            assert bare_words(now[place].text) == bare_words(before[place].text)
        assert not any(word.fixed for word in now_shown)
        assert not now_shown or now_shown[-1].punctuation == ""
        before_shown, before = now_shown, now


@given(st.lists(st.integers(0, 3), max_size=8))
def test_passes_that_only_grow_are_shown_one_pass_late(growths: list[int]) -> None:
    spoken = "one two three four five six seven eight nine ten".split()
    agreement, said, said_before = LocalAgreement(), 0, 0
    for growth in growths:
        said_before, said = said, min(said + growth, len(spoken))
        given_out = agreement.push_pass(words(" ".join(spoken[:said])))
        assert [word.text for word in given_out] == spoken[:said_before]
