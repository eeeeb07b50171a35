from hypothesis import given, settings
from hypothesis import strategies as st

from voicechat.providers.model_speech import MAX_CLAUSE_CHARACTERS, clauses

SENTENCE = "Well, if you look closely at the picture, you will see that it is, in fact, a cat."


def test_a_sentence_is_cut_after_clauses_that_take_long_enough() -> None:
    assert list(clauses(SENTENCE, 900)) == [
        "Well, if you look closely at the picture, ",
        "you will see that it is, ",
        "in fact, a cat.",
    ]
    assert list(clauses(SENTENCE, 60_000)) == [SENTENCE]


def test_chinese_is_cut_at_its_own_marks() -> None:
    assert list(clauses("今天天气很好，我们去公园吧。", 900)) == [
        "今天天气很好，",
        "我们去公园吧。",
    ]


def test_numbers_and_times_are_not_cut() -> None:
    assert list(clauses("It costs 1,234.50 at 12:30 sharp", 100)) == [
        "It costs 1,234.50 at 12:30 sharp"
    ]


@settings(max_examples=30)
@given(st.text(max_size=600), st.integers(0, 3_000))
def test_everything_that_can_be_said_is_said_once(text: str, least_ms: int) -> None:
    parts = list(clauses(text, least_ms))
    said = [char for part in parts for char in part if char.isalnum()]
    assert said == [char for char in text if char.isalnum()]
    assert all(len(part) <= MAX_CLAUSE_CHARACTERS for part in parts)
    assert all(any(map(str.isalnum, part)) for part in parts)
