from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voicechat.providers.timed_words import TimedText, text_of, timed_words


def cut(text: str) -> list[tuple[str, str]]:
    return [(word.text, word.punctuation) for word in timed_words(text, [], 1000)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello, world.", [("Hello", ","), ("world", ".")]),
        ("你好，世界！", [("你", ""), ("好", "，"), ("世", ""), ("界", "！")]),
        ("用GPT4模型", [("用", ""), ("GPT4", ""), ("模", ""), ("型", "")]),
        ("don't and/or well-known", [("don't", ""), ("and/or", ""), ("well-known", "")]),
        ("“Yes,” she said", [("“Yes", ",”"), ("she", ""), ("said", "")]),
        ("one - two", [("one", " -"), ("two", "")]),
        ("- one", [("-one", "")]),
        ("... ♪ ", []),
        ("", []),
    ],
)
def test_words(text: str, expected: list[tuple[str, str]]) -> None:
    assert cut(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "Hello, world. It’s 12:30 — “late”, isn't it?",
        "你好，世界！今天天气怎么样？",
        "안녕하세요 세계",
        "one - two",
    ],
)
def test_words_are_the_text_again(text: str) -> None:
    assert text_of(timed_words(text, [], 1000)) == text


def times(text: str, *pieces: TimedText, duration_ms: int = 1000) -> list[tuple[str, int, int]]:
    return [
        (word.text, word.begin_ms, word.end_ms) for word in timed_words(text, pieces, duration_ms)
    ]


def test_times_of_bare_words_are_put_to_the_words_of_the_text() -> None:
    assert times(
        "Hello, World!", TimedText(" hello", 100, 400), TimedText(" world", 500.4, 900)
    ) == [
        ("Hello", 100, 400),
        ("World", 500, 900),
    ]


def test_a_piece_of_several_characters_is_shared_by_them() -> None:
    assert times("你好吗", TimedText("你好", 100, 300), TimedText("吗", 300, 500)) == [
        ("你", 100, 200),
        ("好", 200, 300),
        ("吗", 300, 500),
    ]


def test_halves_of_a_word_are_put_together() -> None:
    assert times("unbelievable", TimedText(" unbe", 0, 200), TimedText("lievable", 200, 700)) == [
        ("unbelievable", 0, 700)
    ]


def test_without_times_that_fit_the_words_share_the_whole() -> None:
    assert (
        times("ab ab", TimedText("twenty", 0, 300))
        == times("ab ab")
        == [("ab", 0, 500), ("ab", 500, 1000)]
    )


def test_times_stay_within_the_audio_and_in_order() -> None:
    assert times("a b", TimedText("a", 900, 700), TimedText("b", -5, 2000)) == [
        ("a", 900, 900),
        ("b", 900, 1000),
    ]


@given(
    st.text(max_size=30),
    st.lists(st.tuples(st.text(max_size=5), st.integers(-9, 2000), st.integers(-9, 2000))),
)
def test_any_text_keeps_its_letters_and_any_times_their_order(
    text: str, pieces: list[tuple[str, int, int]]
) -> None:
    for given_pieces in (pieces, [(text, 100, 900)]):
        words = timed_words(text, [TimedText(*piece) for piece in given_pieces], 1000)
        together = "".join(word.text + word.punctuation for word in words)
        assert [char for char in together if char.isalnum()] == [
            char for char in text if char.isalnum()
        ]
        marks = [0, *(mark for word in words for mark in (word.begin_ms, word.end_ms)), 1000]
        assert all(before <= after for before, after in pairwise(marks))
