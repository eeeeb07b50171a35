import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voicechat.text.pieces import Piece, SpeechPieces


def pieces_of(text: str, cut: int) -> list[Piece]:
    speech = SpeechPieces()
    pieces = [
        piece for at in range(0, len(text), cut) for piece in speech.push_text(text[at : at + cut])
    ]
    return pieces + speech.finish_text()


def spoken(text: str, cut: int) -> str:
    return " ".join(piece.spoken for piece in pieces_of(text, cut) if piece.spoken)


SPOKEN = [
    # HTML and other tags
    ('<b>x</b><br/>y <a href="u">z</a><!-- no. no -->', "x y z"),
    ("<answer>42</answer>.", "42."),
    ('<speak>Hello<break time="1. 5s"/>world</speak>', "Hello world"),
    ("<details open><summary>Note</summary>First part.</details>Hello", "Note First part. Hello"),
    ("H<sub>2</sub>O and <ruby>漢<rt>kan</rt></ruby>", "H2O and 漢kan"),
    ("<step index='1'>Do this.</step><step>Then that.</step>", "Do this. Then that."),
    ("<style>p { x: y }. z</style>Hi<script>a < b. c</script> there", "Hi there"),
    ("<?xml version='1.0'?><!DOCTYPE html><p>Hi</p>", "Hi"),
    (
        "Map<String, List<Integer>> and List<String> x",
        "Map<String, List<Integer>> and List<String> x",
    ),
    ("a<b and c>d, 3 < 5, <p and q>", "a<b and c>d, 3 < 5, <p and q>"),
    ("<https://x.y/z> or <a@b.cn>", "x.y or a@b.cn"),
    # entities
    ("It&#8217;s done &mdash; really&hellip;", "It’s done — really…"),
    ("R&amp;D&nbsp;&lt;3, AT&T, A&B;", "R&D <3, AT&T, A&B;"),
    ("it&amp;#8217;s and &#x27;so&apos; &frac12;&shy;", "it’s and 'so' ½"),
    # formulas
    ("The area is $A = \\pi r^2$. Good", "The area is A equals pi r squared. Good"),
    ("So \\( x = \\frac{1}{2} \\) holds.", "So x equals 1 over 2 holds."),
    ("$$\\int_0^1 x\\,dx$$ Done.", "the integral from 0 to 1 of x dx Done."),
    ("\\[\n\\begin{align}a &= b\\\\ c. d\\end{align}\n\\]\nNext.", "Next."),
    ("\\begin{equation}x\\mystery y\\end{equation}Next. Then \\unknown{a}.", "Next. Then."),
    ("面积是$A=\\pi r^2$。好", "面积是A等于pi r的平方。 好"),
    ("So 2 \\times 3 and \\boxed{42}.", "So 2 times 3 and 42."),
    ("$x$-axis and $y_1$", "x-axis and y 1"),
    ("It costs $5 or 5 $ or \\$5, $5 and $10.", "It costs $5 or 5 $ or $5, $5 and $10."),
    ("US$5, $HOME and $PATH here", "US$5, $HOME and $PATH here"),
    ("$$ costs more. Really", "costs more. Really"),
    ("C:\\Users\\me", "C:\\Users\\me"),
    ("\\[not a link\\] and \\(no\\)", "[not a link] and (no)"),
    # citations
    ("Paris is big[1]. Rome too [2, 3]. So【12†source】.", "Paris is big. Rome too. So."),
    ("Known [citation needed] and [cite: 1, 2] and [^1].", "Known and and."),
    ("See [1](https://a.b/c.d) and [[2]](https://x.y) now", "See and now"),
    ("\ue200cite\ue202turn0search0\ue201Hi :contentReference[oaicite:0]{index=0}.", "Hi."),
    ("北京很大[1]。【重点】", "北京很大。 【重点】"),
    (
        "array[0] and [1, 2] and f(x), at 12:30: [source]",
        "array[0] and [1, 2] and f(x), at 12:30: [source]",
    ),
    # code
    ("`$x$` and\n```sh\necho $$ <foo. bar\n```\nThen.", "$x$ and Then."),
]


@pytest.mark.parametrize(("text", "said"), SPOKEN)
@pytest.mark.parametrize("cut", [1, 2, 3, 7, 1000])
def test_what_is_said_for_markup(text: str, said: str, cut: int) -> None:
    assert spoken(text, cut) == said
    assert "".join(piece.text for piece in pieces_of(text, cut)) == text


def test_a_piece_has_the_text_that_it_stands_for() -> None:
    assert pieces_of("Here $a.b = \\frac{1}{2}$ it is. <b>Now</b> go.", 1) == [
        ("Here $a.b = \\frac{1}{2}$ it is. ", "Here a b equals 1 over 2 it is."),
        ("<b>Now</b> go.", "Now go."),
    ]


def test_text_that_waits_too_long_is_cut_with_what_it_stands_for() -> None:
    speech = SpeechPieces()
    assert speech.push_text("It&#8217;s <b>five") == []
    assert speech.force_cut() == [("It&#8217;s ", "It’s")]
    assert speech.push_text("</b> now.") + speech.finish_text() == [
        ("<b>five</b> now.", "five now.")
    ]


def test_an_opened_formula_that_is_never_closed_is_spoken_in_the_end() -> None:
    assert "half" in spoken("So $x + y half", 3)
    assert spoken("$$ " + "a" * 3000, 100).count("a") == 3000


def test_hostile_text_costs_no_more_than_its_length() -> None:
    before_s = time.process_time()
    for text in (
        "<",
        "$",
        "\\(",
        "&amp;",
        "[[1",
        "<a b=",
        "\\frac{",
        "【1",
        "<!--",
        "$$x",
        "\\[",
        "<p open ",
    ):
        pieces_of(text * 2000, 7)
    assert time.process_time() - before_s < 20


PARTS = r"""< > <b> </b> <x/> <foo = /> <!-- --> $ $$ x ^2 \frac{1}{2} \( \) \[ \] \pi \begin{a} \end{a} { } _ & amp;
#8217; &hellip; [1] [ ] (u) 【1†a】 :contentReference[a]{b} ` ``` ， 你好 5 🙂 . \begin{align} \end{align}"""
PART = st.sampled_from(
    [" ", "\n", "\n\n", ". ", "word ", " y='1'", "\ue200a\ue201", *PARTS.split()]
)


@settings(max_examples=300)
@given(
    st.lists(PART, max_size=30).map("".join), st.lists(st.integers(1, 9), min_size=1, max_size=8)
)
def test_the_cut_does_not_matter(text: str, cuts: list[int]) -> None:
    speech = SpeechPieces()
    pieces, at, turn = [], 0, 0
    while at < len(text):
        step = cuts[turn % len(cuts)]
        pieces += speech.push_text(text[at : at + step])
        at, turn = at + step, turn + 1
    pieces += speech.finish_text()
    assert pieces == pieces_of(text, 10_000)
    assert "".join(piece.text for piece in pieces) == text
