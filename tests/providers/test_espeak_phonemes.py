import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voicechat.errors import FailureKind, ProviderError
from voicechat.providers.espeak_library import open_library
from voicechat.providers.espeak_phonemes import sentences_of_phonemes


def phonemes(text: str, voice: str = "en-us") -> list[str]:
    return sentences_of_phonemes(open_library(), text, voice)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello world", ["həlˈoʊ wˈɜːld"]),
        ("Hello, world. How are you? Fine!", ["həlˈoʊ, wˈɜːld.", "hˈaʊ ɑːɹ juː?", "fˈaɪn!"]),
        ("Fine... Go on", ["fˈaɪn.", "ɡˌoʊ ˈɔn"]),
        ("3.5", ["θɹˈiː pɔɪnt fˈaɪv"]),
        ("", []),
        ("...", []),
    ],
)
def test_clauses_are_pronounced_and_keep_their_punctuation(text: str, expected: list[str]) -> None:
    assert phonemes(text) == expected


def test_chinese_punctuation_is_written_plainly() -> None:
    first, second = phonemes("你好，世界。再见！", "cmn")
    assert first.endswith(".")
    assert ", " in first
    assert second.endswith("!")


def test_letters_and_their_marks_are_apart_and_remarks_left_out() -> None:
    (sentence,) = phonemes("un café français, a hello world", "fr")
    assert sentence == unicodedata.normalize("NFD", sentence)
    assert "(" not in sentence


def test_an_unknown_voice_is_rejected() -> None:
    with pytest.raises(ProviderError) as caught:
        phonemes("hello", "nobody")
    assert caught.value.kind is FailureKind.REJECTED


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(exclude_categories=[]), max_size=80))
def test_any_text_is_safe(text: str) -> None:
    phonemes(text)
