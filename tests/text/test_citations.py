"""Marks of numbered material in a reply's text."""

import random

import pytest

from voicechat.text.citations import CitationMarks, CitedText


def _read(*pieces: str, known: int = 9) -> list[CitedText]:
    marks = CitationMarks(lambda number: 1 <= number <= known)
    found = [read for piece in pieces for read in marks.push_text(piece)]
    return [*found, *marks.finish_text()]


def _text(read: list[CitedText]) -> str:
    return "".join(piece.text for piece in read)


def _cited(read: list[CitedText]) -> list[tuple[int, ...]]:
    return [piece.numbers for piece in read if piece.numbers]


@pytest.mark.parametrize(
    ("text", "left", "cited"),
    [
        ("Breakfast is at seven [1].", "Breakfast is at seven.", [(1,)]),
        ("Breakfast is at seven[1].", "Breakfast is at seven.", [(1,)]),
        ("早餐七点开始【1】。", "早餐七点开始。", [(1,)]),
        ("早餐七点开始［2］。", "早餐七点开始。", [(2,)]),
        ("早餐七点开始[1][3]。", "早餐七点开始。", [(1,), (3,)]),
        ("At seven [1, 2] and ten [3;4].", "At seven and ten.", [(1, 2), (3, 4)]),
        ("七点【1、2】。", "七点。", [(1, 2)]),
        ("At seven [2-4].", "At seven.", [(2, 3, 4)]),
        ("At seven [[1]].", "At seven.", [(1,)]),
        ("At seven [^1].", "At seven.", [(1,)]),
        ("At seven [Source 1].", "At seven.", [(1,)]),
        ("At seven [sources: 1, 2].", "At seven.", [(1, 2)]),
        ("七点[来源1]。", "七点。", [(1,)]),
        ("七点【参考资料 2】。", "七点。", [(2,)]),
        ("At seven【1†handbook.pdf】.", "At seven.", [(1,)]),
        ("[1] At seven.", " At seven.", [(1,)]),
        ("At seven [1, 77].", "At seven.", [(1,)]),
        ("At seven [1]", "At seven", [(1,)]),
    ],
)
def test_marks_are_taken_out(text: str, left: str, cited: list[tuple[int, ...]]) -> None:
    assert (_text(_read(text)), _cited(_read(text))) == (left, cited)


@pytest.mark.parametrize(
    "text",
    [
        "In [2024] it was [12].",
        "See [the handbook] or [note 1a].",
        "Take `values[1]` of it.",
        "```\nvalues[1] = 2\n```\n",
        "Open [ and never close",
        "【早餐】七点开始",
        "spaces at the end   ",
        "[",
        "",
    ],
)
def test_any_other_text_stays_as_it_is(text: str) -> None:
    read = _read(text)
    assert (_text(read), _cited(read)) == (text, [])


def test_a_mark_that_is_split_anywhere_is_found() -> None:
    text = "Breakfast is at seven [1], 早餐七点【2】、十点[来源 3]. End [4, 5]"
    whole = _read(text)
    for at in range(len(text) + 1):
        split = _read(text[:at], text[at:])
        assert (_text(split), _cited(split)) == (_text(whole), _cited(whole)), at
    assert _cited(_read(*text)) == [(1,), (2,), (3,), (4, 5)]


def test_text_that_begins_no_mark_is_not_held_back() -> None:
    marks = CitationMarks(lambda _: True)
    assert _text(list(marks.push_text("Breakfast is [not"))) == "Breakfast is [not"
    assert _text(list(marks.push_text(" and [re"))) == " and"
    assert _text(list(marks.push_text("ady"))) == " [ready"


def test_the_place_of_a_mark_is_behind_the_text_that_it_is_about() -> None:
    assert _read("At seven [1] or ten [2].") == [
        CitedText("At seven"),
        CitedText("", (1,), " "),
        CitedText(" or ten"),
        CitedText("", (2,), " "),
        CitedText("."),
    ]


def test_any_text_is_accepted_and_nothing_is_lost() -> None:
    rng = random.Random(19)
    for _ in range(300):
        text = "".join(rng.choices("[]【】［］^ 123,-†`\na来源:", k=60))
        read = _read(*text, known=0)
        assert _text(read) == text
