import itertools
import re
import wave
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voicechat.text.words import (
    Script,
    count_words,
    cut_at_word,
    dominant_script,
    join,
    runs_by_script,
    speaking_ms,
    usage_characters,
)

MIXED = st.lists(
    st.one_of(
        st.sampled_from(["word", "don't", "3.14", "你好", "かな", "안녕", "ไทย", "é", "😊"]),
        st.text(max_size=3),
    ),
    max_size=12,
).map("".join)


@pytest.mark.parametrize(
    ("text", "characters"),
    [
        ("你好!有什么可以帮助你的吗?", 26),
        ("", 0),
        ("Hello.", 6),
        ("你好，", 5),
        ("かな", 2),
        ("𠮷", 2),
        ("3 个", 4),
    ],
)
def test_a_han_character_is_billed_twice(text: str, characters: int) -> None:
    assert usage_characters(text) == characters


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", 0),
        ("...!", 0),
        ("stop", 1),
        ("don't stop at 3.14 or 12:30", 6),
        ("well-known, though", 2),
        ("你好", 2),
        ("我用Python写", 4),
        ("안녕 하세요", 2),
        ("नमस्ते दुनिया", 2),
        ("cafe\u0301s now", 2),
        ("wait - no", 2),
    ],
)
def test_count_words(text: str, words: int) -> None:
    assert count_words(text) == words


@pytest.mark.parametrize(
    ("parts", "joined"),
    [
        ([], ""),
        (["go forward", " ten meters "], "go forward ten meters"),
        (["你好。", "吃了吗"], "你好。吃了吗"),
        (["你好", "world", "again"], "你好world again"),
        (["ok,", "", "  ", "你好"], "ok,你好"),
        (["はい", "そう"], "はいそう"),
        (["안녕", "하세요"], "안녕 하세요"),
    ],
)
def test_join(parts: list[str], joined: str) -> None:
    assert join(parts) == joined


def test_speaking_time_of_the_sources() -> None:
    assert 1000 / speaking_ms("好") == pytest.approx(4.8, abs=0.1)
    assert 1000 / speaking_ms("a") == pytest.approx(15, abs=0.1)
    words_a_minute = 9 * 60_000 / speaking_ms("The quick brown fox jumps over the lazy dog.")
    assert 140 < words_a_minute < 180
    assert speaking_ms("你好，世界。") > speaking_ms("你好世界") > 0
    assert speaking_ms("") == 0


def test_speaking_time_of_people(recordings: Path) -> None:
    for name in ("austen-0870", "austen-0880", "austen-0890", "austen-0920", "austen-0930"):
        text = (recordings / f"{name}.txt").read_text().strip()
        with wave.open(str(recordings / f"{name}.wav")) as recording:
            length_ms = 1000 * recording.getnframes() / recording.getframerate()
        assert speaking_ms(text) == pytest.approx(length_ms, rel=0.25)


@pytest.mark.parametrize(
    ("text", "fraction", "heard"),
    [
        ("Hello there, friend.", 0.0, ""),
        ("Hello there, friend.", 0.1, ""),
        ("Hello there, friend.", 0.25, "Hello"),
        ("Hello there, friend.", 0.6, "Hello there,"),
        ("Hello there, friend.", 0.99, "Hello there, friend."),
        ("Hello there, friend. ", 1.0, "Hello there, friend. "),
        ("Hello", 7.0, "Hello"),
        ("Hello", -1.0, ""),
        ("Hello", float("nan"), ""),
        ("Hello", float("inf"), "Hello"),
        ("你好世界", 0.5, "你好"),
        ("你好世界", 0.74, "你好"),
        ("你好，“世界”。", 0.6, "你好，"),
        ('He said "go on" twice', 0.4, "He said"),
        ("我说hello", 0.6, "我说"),
        ("ok,你好", 0.3, "ok,"),
        ("It is 3.14 now", 0.5, "It is"),
        ("……", 0.5, ""),
        ("", 0.5, ""),
    ],
)
def test_what_was_heard_is_whole_words(text: str, fraction: float, heard: str) -> None:
    assert cut_at_word(text, fraction) == heard


def test_han_weigh_more_than_letters() -> None:
    assert cut_at_word("你好你好 abcd", 0.5) == "你好"


@given(MIXED, st.floats(0, 1), st.floats(0, 1))
def test_more_played_is_more_heard(text: str, one: float, other: float) -> None:
    less, more = sorted((one, other))
    assert text.startswith(cut_at_word(text, more))
    assert cut_at_word(text, more).startswith(cut_at_word(text, less))


@given(MIXED, st.floats(0, 0.999))
def test_no_more_is_heard_than_was_played(text: str, fraction: float) -> None:
    heard = re.sub(r"\W+\Z", "", cut_at_word(text, fraction))
    assert speaking_ms(heard) <= fraction * speaking_ms(text) or heard == ""


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("你好 OpenAI", Script.HAN),
        ("Please say 你", Script.LATIN),
        ("Ça va", Script.LATIN),
        ("привет мир", Script.OTHER),
        ("12!", Script.OTHER),
        ("", Script.OTHER),
        ("hi 你", Script.LATIN),
        ("你 hi", Script.HAN),
    ],
)
def test_dominant_script(text: str, script: Script) -> None:
    assert dominant_script(text) is script


@pytest.mark.parametrize(
    ("text", "runs"),
    [
        ("", []),
        ("12!", [(Script.OTHER, "12!")]),
        (
            "我有3个 apple watch 和梨。",
            [(Script.HAN, "我有3个 "), (Script.LATIN, "apple watch "), (Script.HAN, "和梨。")],
        ),
        ("“3 cats” 猫", [(Script.LATIN, "“3 cats” "), (Script.HAN, "猫")]),
        ("да yes", [(Script.OTHER, "да "), (Script.LATIN, "yes")]),
    ],
)
def test_runs_by_script(text: str, runs: list[tuple[Script, str]]) -> None:
    assert runs_by_script(text) == runs


@given(MIXED)
def test_runs_are_the_text_and_alternate(text: str) -> None:
    runs = runs_by_script(text)
    assert "".join(run for _, run in runs) == text
    assert all(one[0] is not next_one[0] for one, next_one in itertools.pairwise(runs))
