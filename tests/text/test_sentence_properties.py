"""What holds for any text, however it is cut into deltas."""

import sys
from types import FrameType

from hypothesis import example, given, settings
from hypothesis import strategies as st

from voicechat.text.characters import is_wide
from voicechat.text.draft import NARROW_WEIGHT, WIDE_WEIGHT
from voicechat.text.sentences import HARD_LIMIT_CHARACTERS, PIECE_WEIGHT_LIMIT, SentenceSplitter

TEXT = st.lists(
    st.one_of(
        st.sampled_from(list("。！？；…，、：—.!?,;:“”「」（）()[]\"'*_`~#|\n \u0301\ufe0f")),
        st.sampled_from(
            [
                "Dr",
                "e.g",
                "U.S",
                "etc",
                "no",
                "3",
                "14",
                "Hello",
                "word",
                "你好",
                "我",
                "はい",
                "ไทย",
                "안녕",
                "😊",
            ]
        ),
        st.sampled_from(
            [
                "```",
                "\n```py\n",
                "\n```\n",
                "](",
                "https://a.b/c?d=1",
                "...",
                "……",
                "1. ",
                "- ",
                "word " * 40,
                "好" * 70,
            ]
        ),
        st.text(max_size=3),
    ),
    max_size=40,
).map("".join)


@st.composite
def deltas(draw: st.DrawFn) -> list[str]:
    text = draw(TEXT)
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=12)))
    return [text[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]


def split(parts: list[str]) -> list[str]:
    splitter = SentenceSplitter()
    return [piece for part in parts for piece in splitter.push_text(part)] + splitter.finish_text()


@settings(max_examples=400)
@given(deltas())
def test_the_pieces_are_the_text_and_do_not_depend_on_its_cutting(parts: list[str]) -> None:
    text = "".join(parts)
    pieces = split(parts)
    assert "".join(pieces) == text
    assert pieces == split([text]) == split(list(text))
    assert all(pieces)


LONG = ("x" * 155, "y" * 990, "好" * 24)
WORDS = st.lists(
    st.sampled_from(
        [
            *'a|word|2nd|one two three|你|你好|々|é| |, |. |.|!|-|，|\n|```|~~~|`|[|]|(|)|"'.split(
                "|"
            ),
            *LONG,
        ]
    ),
    max_size=25,
).map("".join)


class LetterByLetter(SentenceSplitter):
    """Takes no words at once."""

    __slots__ = ()

    def _fits(self, plain: str) -> bool:
        return False


@settings(max_examples=300)
@given(WORDS, st.lists(st.integers(1, 400), max_size=3))
@example("```\n" + "y" * 990 + "x" * 155, [])
@example("``word`` 你好。", [])
@example("[a]b(word. word) e.", [])
@example("```\n你好\n```\n你好你好，你好", [])
@example("你好你好你好", [6])
def test_words_are_taken_at_once_as_they_are_letter_by_letter(text: str, forced: list[int]) -> None:
    splitters = (SentenceSplitter(), LetterByLetter())
    cuts = sorted({at for at in forced if at < len(text)})
    for begin, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
        at_once, by_letter = [
            splitter.push_text(text[begin:end]) + splitter.force_cut() for splitter in splitters
        ]
        assert at_once == by_letter
    at_once, by_letter = [splitter.finish_text() for splitter in splitters]
    assert at_once == by_letter


@settings(max_examples=200)
@given(deltas(), st.lists(st.booleans(), min_size=13, max_size=13))
def test_force_loses_nothing(parts: list[str], forced: list[bool]) -> None:
    splitter = SentenceSplitter()
    pieces: list[str] = []
    for part, force in zip(parts, forced, strict=False):
        pieces += splitter.push_text(part)
        if force:
            pieces += splitter.force_cut()
    pieces += splitter.finish_text()
    assert "".join(pieces) == "".join(parts)
    assert all(pieces)


@settings(max_examples=200)
@given(deltas())
def test_pieces_are_bounded(parts: list[str]) -> None:
    assert all(len(piece) <= HARD_LIMIT_CHARACTERS for piece in split(parts))


@given(
    st.lists(
        st.sampled_from(["word", "it", "你好", "我们", "かな", "안녕", " ", "， ", ", ", "3"]),
        max_size=200,
    ).map(" ".join)
)
def test_prose_is_bounded_in_speaking_time(text: str) -> None:
    for piece in split([text]):
        assert (
            sum(WIDE_WEIGHT if is_wide(char) else NARROW_WEIGHT for char in piece)
            <= PIECE_WEIGHT_LIMIT
        )


def calls_to_split(parts: list[str]) -> int:
    """Count the functions called, of Python and of C, as a measure of work that no
    clock disturbs.
    """
    calls = 0

    def count(frame: FrameType, event: str, argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        split(parts)
    finally:
        sys.setprofile(before)
    return calls


def test_work_is_linear_in_the_text() -> None:
    for unit in (
        "a",
        "好",
        "word ",
        "。",
        ". ",
        "Dr. ",
        "`",
        "[",
        " ",
        "```\nx\n",
        "word, " * 5 + "https://a.b/c",
    ):
        once, twice = (unit * (length // len(unit)) for length in (2000, 4000))
        assert calls_to_split(list(twice)) < 2.2 * calls_to_split(list(once)), unit
