import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voicechat.text.characters import is_han
from voicechat.text.sentences import SentenceSplitter
from voicechat.text.spoken import Speakable

SPOKEN = [
    # blocks
    ("## Title ##", "Title"),
    ("# 标题\n", "标题"),
    ("- **bold** item", "bold item"),
    ("* [x] done *well*", "done well"),
    ("  + item", "item"),
    ("> quoted", "quoted"),
    ("> > - quoted item", "quoted item"),
    ("1. First", "1. First"),
    ("| name | price |", "name, price"),
    ("| 苹果 | 3 |", "苹果，3"),
    ("| a \\| b | c |", "a | b, c"),
    ("|---|:--:|", ""),
    ("---\n", ""),
    ("* * *", ""),
    # emphasis
    ("这是**重点**内容，这是*重点*吧", "这是重点内容，这是重点吧"),
    ("***both*** and __strong__ and _it_ and ~~old~~", "both and strong and it and old"),
    ("**“你好”**，", "“你好”，"),
    ("**你好，", "你好，"),
    ("世界**。", "世界。"),
    ("*Smiles.", "Smiles."),
    ("Waves.*", "Waves."),
    ("`code` and ``more``", "code and more"),
    ("\\*no\\* 1\\. \\`x\\`", "*no* 1. x"),
    ("*a\\* b", "a* b"),
    # links
    ('See [the docs](https://x.y/z_(a) "t") now', "See the docs now"),
    ("See [the docs][1] now[^2].", "See the docs now."),
    ("![a cat](http://x.y/cat.png)", "a cat"),
    ("[![badge](i.png)](u)", "badge"),
    ("see [the ", "see the"),
    ("docs](http://x.y) now", "docs now"),
    ("Go to https://www.example.com/a/b?c=d. Ok", "Go to example.com. Ok"),
    ("Go to **http://me:secret@a.example:8080/x**!", "Go to a.example!"),
    ("(see www.example.com/x)", "(see example.com)"),
    ("<https://example.com/x> or <a@b.cn>", "example.com or a@b.cn"),
    ("访问https://example.com/a，然后", "访问example.com，然后"),
    # emoji
    ("Hi 😊!", "Hi!"),
    ("Hello😊world 😊 again", "Hello world again"),
    ("好😊吗 😀😀 好", "好吗 好"),
    ("👨‍👩‍👧‍👦 family 🇨🇳 flag 1️⃣ first 👍🏽 ok ❤️", "family flag first ok"),
    ("20°C ©2024 № 5 ½ →", "20°C ©2024 № 5 ½ →"),
    # nothing to say
    ("😊", ""),
    ("……", ""),
    ("**", ""),
    (" \n\t", ""),
    ("", ""),
    # left over from the piece before
    ("！我是小明。", "我是小明。"),
    ("” he said", "he said"),
    (", and then", "and then"),
    (".NET is fine", ".NET is fine"),
    ("...", ""),
    # characters without a sound
    ("a\u200bb\ufeff\u00adc\u2060\u202e d\ue000", "abc d"),
    ("می\u200cخواهم", "می\u200cخواهم"),
    # what was taken out before a mark
    ("Rome too .", "Rome too."),
    ("use .NET", "use .NET"),
    # white space
    ("你 好  世界\n再见", "你 好 世界 再见"),
]

UNHARMED = [
    "snake_case and a_b and a_b@c.d and me@x-y.co.uk",
    "2*3 = 6, 5 * 3, 2*(3+4), (3)*4, 2*3*4, 2**3, x**2, 2 ** 3, (*p*2)",
    "C# and F# and A* search and C++ and R&D",
    "It costs $5 or 5 $ or 5%.",
    "It is # 1 and - 2 and > 3.",
    "a<b and c>d, 3 < 5, <p and q>",
    "array[0] and [1, 2] and f(x)",
    "你好 世界，AI 很好。",
    "-5 degrees",
    "C:\\Users\\me",
    "Wait... what?!",
]


@pytest.mark.parametrize(("piece", "spoken"), SPOKEN)
def test_what_is_spoken(piece: str, spoken: str) -> None:
    assert Speakable().clean(piece) == spoken


@pytest.mark.parametrize("piece", UNHARMED)
def test_what_is_no_markup_comes_through(piece: str) -> None:
    assert Speakable().clean(piece) == piece


def test_code_blocks_are_skipped_across_pieces() -> None:
    speakable = Speakable()
    pieces = ["Look:\n", "\n```py\nprint(1)\n", "x = ", "2\n", "~~~\n", "```\nDone. ", "Good."]
    assert [speakable.clean(piece) for piece in pieces] == [
        "Look:",
        "",
        "",
        "",
        "",
        "Done.",
        "Good.",
    ]


def test_a_fence_in_the_middle_of_a_line_is_none() -> None:
    speakable = Speakable()
    assert [speakable.clean(piece) for piece in ("Use ", "```\n", "Yes.")] == ["Use", "", "Yes."]


def test_a_long_run_of_white_space_costs_no_more_than_its_length() -> None:
    before_s = time.process_time()
    assert Speakable().clean("a" + " " * 40_000 + "b") == "a b"
    assert time.process_time() - before_s < 5


def test_a_shorter_fence_does_not_close_a_block() -> None:
    assert Speakable().clean("````md\n```\ncode\n```\n````\nDone.") == "Done."


def test_three_backticks_within_a_line_are_spoken() -> None:
    assert Speakable().clean("```x``` is code") == "x is code"


def test_markup_of_a_line_is_only_at_its_beginning() -> None:
    speakable = Speakable()
    assert speakable.clean("Five ") == "Five"
    assert speakable.clean("- 3 is 2.\n") == "- 3 is 2."
    assert speakable.clean("- item") == "item"


def test_a_reply_as_it_is_split_and_spoken() -> None:
    reply = (
        "# 天气\n\n今天**晴**😊，最高25℃！！适合：\n- 散步\n- 跑步🏃\n\n```py\nprint('x')\n```\n"
        "See [docs](https://a.b/c). **Note:** it's $5."
    )
    splitter, speakable = SentenceSplitter(), Speakable()
    pieces = splitter.push_text(reply) + splitter.finish_text()
    assert [text for text in map(speakable.clean, pieces) if text] == [
        "天气",
        "今天晴，最高25℃！！",
        "适合：",
        "散步",
        "跑步",
        "See docs.",
        "Note: it's $5.",
    ]


FRAGMENT = st.one_of(
    st.sampled_from(list("*_`~#|<>[]()!\\&;-+=.:/\n \"'$^")),
    st.sampled_from(
        [
            "http://",
            "www.",
            "a",
            "b1",
            "你好",
            "😊",
            "\u200d",
            "\ufe0f",
            "1\ufe0f\u20e3",
            "<br>",
            "<a href=",
            "```",
            "](",
            "**",
        ]
    ),
    st.text(max_size=4),
)
PIECES = st.lists(st.lists(FRAGMENT, max_size=25).map("".join), max_size=5)


@settings(max_examples=400)
@given(PIECES)
def test_words_are_only_left_out_and_never_added_or_moved(pieces: list[str]) -> None:
    speakable = Speakable()
    for piece in pieces:
        rest = iter(piece)
        spoken = speakable.clean(piece)
        assert all(char in rest for char in spoken if char.isalnum())
        assert spoken == " ".join(spoken.split())
        assert spoken == "" or any(char.isalnum() or is_han(char) for char in spoken)


@settings(max_examples=200)
@given(
    st.lists(
        st.text(alphabet=st.characters(categories=["L", "N"]), min_size=1, max_size=8),
        min_size=1,
        max_size=8,
    )
)
def test_plain_words_are_spoken_as_they_are(words: list[str]) -> None:
    text = " ".join(words)
    if not any(
        "\u2300" <= char <= "\u2bff" or "\u3297" <= char <= "\u3299" or char >= "\U0001f000"
        for char in text
    ):
        assert Speakable().clean(text) == text
