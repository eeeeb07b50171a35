import pytest

from voicechat.text.sentences import HARD_LIMIT_CHARACTERS, LATIN_LIMIT, SentenceSplitter


def split(text: str) -> list[str]:
    splitter = SentenceSplitter()
    return splitter.push_text(text) + splitter.finish_text()


SENTENCES = {
    # Chinese
    "today": ["今天天气不错。", "我们去公园，好吗？", "好！"],
    "semicolon": ["一班赢了；", "二班输了。"],
    "ascii marks": ["你好!", "有什么可以帮助你的吗?"],
    "runs": ["好。", "真的吗？！", "太棒了！！！", "嗯。。。", "走吧"],
    "ellipsis": ["好。", "我想……", "算了。", "嗯...", "好的"],
    "ellipsis then comma": ["好。", "我想……，算了。"],
    "quotation": ["他说：“你好。”", "然后走了。"],
    "quotation, later": ["好。", "他说：“你好。”", "然后走了。"],
    "sentences in a quotation": ["好。", "“我来了。", "你呢？”", "他问。"],
    "corner brackets": ["「はい。」", "と言った。"],
    "round brackets": ["好。", "（我不去。）", "走吧。"],
    "straight quotes": ['"你好。"', '他说："走吧。"', "完"],
    "straight quote opens": ["好。", "他说。", '"走吧。"', "完"],
    "decimal": ["圆周率是3.14。", "大约3.5倍。"],
    "number then dot": ["好。", "大小是3.5.然后呢。"],
    "latin dot between Han": ["好。", "我们走.", "然后呢"],
    # mixed
    "product": ["你可以使用Node.js和GPT-4.1。", "很好。"],
    "address": ["好。", "请看https://a.cn/b?c=d,1!e。", "再见"],
    "emoji": ["太好了！", "😊我们走。", "Great!", "😊 Next"],
    # English
    "plain": ["Hello there. ", "How are you? ", "Fine!"],
    "short": ["OK. ", "Yes."],
    "numbers": ["Pi is 3.14. ", "That is 1,000 or 12:30 or v2.0.1 now."],
    "titles": ["Dr. Smith met Mrs. Jones vs. Prof. Lee. ", "Good."],
    "initials": ["I read J. K. Rowling in the U.S. and the U.K. today. ", "Good."],
    "latin abbreviations": ["OK. ", "Use it, e.g. Python, i.e. this one. ", "Good."],
    "etc. inside": ["Cats, dogs, etc. are fine. ", "Good."],
    "etc. at the end": ["OK. ", "Cats, dogs, etc. ", "They are fine."],
    "p.m.": ["It is at 5 p.m. today. ", "So be there at 7 a.m. ", "Please."],
    "no as a word": ["No. ", "I like No. 5 best. ", "No. ", "Never."],
    "dots that trail off": ["Wait... what? ", "Well... ", "Then ok. ", "Hm… maybe. ", "Yes"],
    "address in English": [
        "Visit https://a.b/c?d=1.2&e=f!g today. ",
        "Or mail me at a.b@c.com. ",
        "Bye.",
    ],
    "closing quote": ['"Hello." ', "he said. ", '"Fine!" ', "“Good.” ", "(Yes.) ", "Done."],
    "two in one quotation": ['"Hello there. ', 'How are you?" ', "he said."],
    "loud": ["What?! ", "No way!! ", "Yahoo!mail a!=b here. ", "Ok"],
    "emphasis": ["**Note.** ", "Next one. ", "_Yes._ ", "`this. that` is code. ", "Ok"],
    "link": ["See [this. That](http://x.y/zoo. Two) now. ", "Good."],
    "brackets, no link": ["It is [sic] here. ", "Good."],
    "two spaces": ["Well... ", " Then ok. ", " Good."],
    "many spaces": ["No." + " " * 157, " " * 100 + "Yes."],
    "variation selector": ["好。", "太好了！\ufe0f", "我们走。"],
    "led by what is left over": ["好！", "！！我是小明。"],
    "list": ["1. First\n", "2. Second item. ", "More.\n", "- **3.** Third\n", "## 4. Fourth\n"],
    "number at the end": ["The answer is 42. ", "Good."],
    "lines": ["Hello\n", "\n\nWorld\n", "Good"],
    "leading space": ["  Hello. ", "  Good."],
    # others
    "Hindi": ["हाँ।", " नमस्ते दुनिया। ", "ठीक है।"],
    "Arabic": ["نعم؟", " كيف حالك؟ ", "بخير."],
    "Spanish": ["¡Hola! ", "¿Qué tal? ", "Bien."],
}


@pytest.mark.parametrize("pieces", SENTENCES.values(), ids=SENTENCES.keys())
def test_a_piece_is_a_sentence(pieces: list[str]) -> None:
    assert split("".join(pieces)) == pieces


FIRST_PIECES = [
    ("今天天气不错，我们走。", "今天天气不错，"),
    ("答案如下：我们走。", "答案如下："),
    ("苹果香蕉、梨。", "苹果香蕉、"),
    ("不过，我觉得很好，真的。", "不过，我觉得很好，"),
    ("我们走了——真的。", "我们走了——"),
    ("我说“我们走吧，”他笑。", "我说“我们走吧，”"),
    ("As an AI, I cannot.", "As an AI, "),
    ("Sure, I can help, friend.", "Sure, I can help, "),
    ("Well, this one: it is.", "Well, this one: "),
    ("There are 1,000 of them, I think.", "There are 1,000 of them, "),
    ("我用 Python，很好。", "我用 Python，很好。"),
    ("我喜欢 Python，很好。", "我喜欢 Python，"),
]


@pytest.mark.parametrize(("text", "first"), FIRST_PIECES)
def test_the_first_piece_is_a_clause_if_it_is_long_enough(text: str, first: str) -> None:
    assert split(text)[0] == first


def test_only_the_first_piece_is_a_clause() -> None:
    assert split("好。今天天气不错，我们去公园玩吧，好不好？") == [
        "好。",
        "今天天气不错，我们去公园玩吧，好不好？",
    ]


@pytest.mark.parametrize(
    "text",
    ["你好。", "你好！", "你好!", "真的吗？", "今天天气不错，", "Hello there. ", "Hi! ", "Hi\n"],
)
def test_the_first_piece_waits_for_nothing_more(text: str) -> None:
    assert SentenceSplitter().push_text(text) == [text]


def test_an_open_quotation_makes_the_first_piece_wait_for_its_end() -> None:
    splitter = SentenceSplitter()
    assert splitter.push_text("“你好。") == []
    assert splitter.push_text("”") == []
    assert splitter.push_text("他") == ["“你好。”"]


def test_a_bracket_that_closes_nothing_hides_no_quotation() -> None:
    assert split("1)（你好。）我") == ["1)（你好。）", "我"]


def test_code_and_white_space_are_not_the_first_piece() -> None:
    pieces = split("\n```\nx = 1\n```\nToday is a good day, my friend.")
    assert pieces == ["\n```\nx = 1\n```\n", "Today is a good day, ", "my friend."]


def test_a_later_sentence_waits_for_its_closing_marks() -> None:
    splitter = SentenceSplitter()
    splitter.push_text("好。")
    assert splitter.push_text("真的吗？") == []
    assert splitter.push_text("！") == []
    assert splitter.push_text("我") == ["真的吗？！"]


def test_a_code_block_is_one_piece() -> None:
    block = '```python\nprint("a. b")  # c! d\nx = [1]\n\ny = 2\n```\n'
    assert split("Look here:\n" + block + "Done. ") == ["Look here:\n", block, "Done. "]


def test_a_nested_code_block_ends_with_its_own_fence() -> None:
    block = "````md\n```py\na. B\n```\nc. D\n````\n"
    assert split(block + "Done. ") == [block, "Done. "]


def test_three_backticks_within_a_line_are_no_code_block() -> None:
    assert split("```a``` is code.\nGood. Yes.") == ["```a``` is code.\nGood. ", "Yes."]


def test_a_long_code_block_is_cut_between_lines() -> None:
    lines = [f"value_{number} = {number}\n" for number in range(200)]
    pieces = split("```\n" + "".join(lines) + "```\nDone.")
    assert all(piece.endswith("\n") and len(piece) < 2 * LATIN_LIMIT for piece in pieces[:-1])
    assert pieces[-1] == "Done."


def test_text_without_punctuation_is_cut_between_words() -> None:
    words = " ".join(["word"] * 100)
    pieces = split(words)
    assert [len(piece) for piece in pieces] == [160, 160, 160, 19]
    assert all(piece.startswith("word") for piece in pieces)


def test_han_without_punctuation_is_cut_anywhere() -> None:
    assert [len(piece) for piece in split("好" * 150)] == [60, 60, 30]


def test_a_long_sentence_is_cut_at_a_clause() -> None:
    sentence = "好。" + "今天天气不错我们去" * 4 + "，" + "今天天气不错我们去" * 4 + "。"
    assert [len(piece) for piece in split(sentence)] == [2, 37, 37]


def test_a_clause_near_the_beginning_is_no_place_to_cut() -> None:
    assert [len(piece) for piece in split("好。好，" + "好" * 70)] == [2, 60, 12]


def test_an_open_bracket_protects_only_until_the_next_cut() -> None:
    pieces = split("OK. See [ " + "word " * 40 + "end. Next. ")
    assert pieces[0] == "OK. "
    assert pieces[-2:] == ["word " * 10 + "end. ", "Next. "]


@pytest.mark.parametrize(
    ("first", "syllable"),
    [("", "きゃ"), ("き", "きゃ"), ("", "あー"), ("き", "あー"), ("", "เก"), ("ก", "เก")],
)
def test_a_syllable_of_two_letters_is_not_cut(first: str, syllable: str) -> None:
    pieces = split(first + syllable * 100)
    assert len(pieces) > 1
    assert all(piece.startswith(syllable) for piece in pieces[1:])


def test_thai_is_not_cut_before_a_vowel_sign() -> None:
    pieces = split("กี่" * 100)
    assert len(pieces) > 1
    assert all(piece.startswith("ก") for piece in pieces)


def test_what_has_no_border_is_cut_at_the_hard_limit() -> None:
    assert [len(piece) for piece in split("a" * 2500)] == [
        HARD_LIMIT_CHARACTERS,
        HARD_LIMIT_CHARACTERS,
        500,
    ]


def test_a_long_address_stays_whole() -> None:
    address = "https://example.com/" + "a" * 300
    assert split(f"See {address} now.") == ["See ", address + " ", "now."]


FORCED = [
    (["Well, I thi"], ["Well, I "]),
    (["OK then. ", "So I went home, and the qui"], ["So I went home, "]),
    (["今天天气"], ["今天天气"]),
    (["OK then. ", "Hello."], ["Hello."]),
    (["OK then. ", "Pi is 3."], ["Pi is "]),
    (["OK then. ", "Ask Dr."], ["Ask "]),
    (["OK then. ", "Well..."], ["Well..."]),
    (["half"], []),
    ([""], []),
    (["...", " \n"], []),
    (["```py\nprint(1) "], []),
    (["see [the "], ["see [the "]),
]


@pytest.mark.parametrize(("deltas", "forced"), FORCED)
def test_force_gives_what_can_be_spoken(deltas: list[str], forced: list[str]) -> None:
    splitter = SentenceSplitter()
    given = [piece for delta in deltas for piece in splitter.push_text(delta)]
    out = splitter.force_cut()
    assert out == forced
    assert "".join(given + out + splitter.finish_text()) == "".join(deltas)


def test_after_force_the_rest_of_the_sentence_follows() -> None:
    splitter = SentenceSplitter()
    splitter.push_text("I went to the sho")
    assert splitter.force_cut() == ["I went to the "]
    assert splitter.push_text("p, and back. Then") == ["shop, and back. "]


def test_after_force_a_full_stop_ends_nothing_twice() -> None:
    splitter = SentenceSplitter()
    splitter.push_text("OK then. Well...")
    assert splitter.force_cut() == ["Well..."]
    assert splitter.push_text(" Now. ") == [" Now. "]
    splitter.push_text("No.  ")
    assert splitter.force_cut() == ["No.  "]
    assert splitter.push_text("Yes. ") == ["Yes. "]


def test_finish_makes_it_as_new() -> None:
    splitter = SentenceSplitter()
    splitter.push_text('```\n"code')
    assert splitter.finish_text() == ['```\n"code']
    assert splitter.push_text("今天天气不错，") == ["今天天气不错，"]
    assert splitter.finish_text() == []
