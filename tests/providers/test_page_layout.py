"""Lines of a page become paragraphs and tables in reading order."""

import math

from voicechat.providers.media import BlockKind
from voicechat.providers.page_layout import TextLine, lay_out


def line(text: str, left: float, top: float, width: float, height: float = 30) -> TextLine:
    right, bottom = left + width, top + height
    return TextLine(text, ((left, top), (right, top), (right, bottom), (left, bottom)))


def turned(found: TextLine, degrees: float) -> TextLine:
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    first, second, third, fourth = (
        (x * cos - y * sin, x * sin + y * cos) for x, y in found.corners
    )
    return TextLine(found.text, (first, second, third, fourth))


PAGE = [
    line("A heading", 100, 50, 300, 48),
    line("The first line of a paragraph that", 100, 150, 800),
    line("goes on.", 100, 190, 150),
    line("中文段落的第一行文字一直写到行末", 100, 300, 800),
    line("第二行。", 100, 340, 150),
]
TEXTS = [
    "A heading",
    "The first line of a paragraph that goes on.",
    "中文段落的第一行文字一直写到行末第二行。",
]


def test_lines_are_joined_to_paragraphs() -> None:
    blocks = lay_out(list(reversed(PAGE)))
    assert [block.text for block in blocks] == TEXTS
    assert (blocks[1].left, blocks[1].top, blocks[1].right, blocks[1].bottom) == (
        100,
        150,
        900,
        220,
    )


def test_a_page_that_lies_askew_is_read_the_same() -> None:
    for degrees in (-3, 3):
        assert [block.text for block in lay_out([turned(one, degrees) for one in PAGE])] == TEXTS


def test_cells_with_room_around_them_are_a_table() -> None:
    cells = [
        line(text, left, top, 80)
        for top, row in ((400, ("name", "age", "city")), (450, ("Li", "31", "北京")))
        for left, text in zip((100, 400, 700), row, strict=True)
    ]
    cells += [line("Wu", 100, 500, 80), line("a|b", 700, 500, 80)]
    blocks = lay_out([line("Before it stands a whole line of text", 100, 300, 800), *cells])
    assert [block.kind for block in blocks] == [BlockKind.TEXT, BlockKind.TABLE]
    assert blocks[1].text == (
        "| name | age | city |\n| --- | --- | --- |\n| Li | 31 | 北京 |\n| Wu |  | a\\|b |"
    )


def test_columns_of_running_text_are_read_one_after_the_other() -> None:
    left = [line(f"left {n}", 100, 100 + 40 * n, 380) for n in range(4)]
    right = [line(f"right {n}", 520, 100 + 40 * n, 380) for n in range(4)]
    blocks = lay_out([*right, *left])
    assert [block.text for block in blocks] == [
        "left 0 left 1 left 2 left 3",
        "right 0 right 1 right 2 right 3",
    ]


def test_an_empty_page_has_no_blocks() -> None:
    assert lay_out([]) == ()
