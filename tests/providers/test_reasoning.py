import pytest
from hypothesis import given
from hypothesis import strategies as st

from voicechat.providers.reasoning import ThoughtFilter


def spoken(text: str, cuts: int = 1 << 20) -> str:
    thoughts = ThoughtFilter()
    return (
        "".join(thoughts.push_text(text[at : at + cuts]) for at in range(0, len(text), cuts))
        + thoughts.finish_text()
    )


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ("Hello", "Hello"),
        ("<think>hm</think>Hello", "Hello"),
        ("\n<think>\nhm </thin </think>\n\nHello <think> there", "Hello <think> there"),
        ("<think></think>", ""),
        ("<think>never ends", ""),
        ("<thinking aloud>", "<thinking aloud>"),
        ("<thi", "<thi"),
        ("  Hello", "  Hello"),
        ("a <think>b</think>", "a <think>b</think>"),
        ("", ""),
    ],
)
def test_only_a_leading_block_is_a_thought(text: str, rest: str) -> None:
    assert spoken(text) == rest
    assert spoken(text, cuts=1) == rest


@given(st.text(alphabet="<>/think \n", max_size=40), st.integers(1, 9))
def test_the_cut_does_not_matter(text: str, cuts: int) -> None:
    assert spoken(text, cuts) == spoken(text)


@pytest.mark.parametrize(
    ("text", "rest"),
    [("hm</think>\nYes", "Yes"), ("<think>hm</think>Yes", "Yes"), ("never ends", "")],
)
def test_a_reply_may_begin_within_its_thought(text: str, rest: str) -> None:
    for cuts in (1, 1 << 20):
        thoughts = ThoughtFilter(inside=True)
        pieces = [thoughts.push_text(text[at : at + cuts]) for at in range(0, len(text), cuts)]
        assert "".join(pieces) + thoughts.finish_text() == rest


def test_text_that_cannot_be_a_thought_is_not_held_back() -> None:
    assert ThoughtFilter().push_text("H") == "H"
