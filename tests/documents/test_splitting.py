"""Markdown as passages: what is cut where, and that nothing is lost."""

import re

from hypothesis import example, given, settings
from hypothesis import strategies as st

from voicechat.documents.passage import LONGEST_PASSAGE
from voicechat.documents.splitting import size_of, split_markdown, split_pages


def texts(markdown: str) -> list[str]:
    return [passage.text for passage in split_markdown(markdown)]


def test_a_passage_ends_where_its_section_does_and_knows_the_headings_above() -> None:
    passages = split_markdown("intro\n\n# A\n\none\n\ntwo\n\n## B ##\nthree\n# C\nfour")
    assert [(passage.headings, passage.text) for passage in passages] == [
        ((), "intro"),
        (("A",), "one\n\ntwo"),
        (("A", "B"), "three"),
        (("C",), "four"),
    ]


def test_underlined_and_bold_lines_are_headings() -> None:
    passages = split_markdown("Title\n=====\n\none\n\nPart\n----\ntwo\n\n**Small print**\n\nthree")
    assert [passage.headings for passage in passages] == [
        ("Title",),
        ("Title", "Part"),
        ("Title", "Part", "Small print"),
    ]


def test_a_heading_with_nothing_below_it_can_be_found() -> None:
    passages = split_markdown("# A\n## B\n## C\ntext\n# D")
    assert [(passage.headings, passage.text) for passage in passages] == [
        (("A",), "B"),
        (("A", "C"), "text"),
        ((), "D"),
    ]


def test_number_signs_in_code_and_names_are_no_headings() -> None:
    assert texts("```\n# no heading\n```") == ["```\n# no heading\n```"]
    assert split_markdown("# C#\ntext")[0].headings == ("C#",)
    assert split_markdown("#hashtag") == split_markdown("#hashtag\n")


def test_a_table_is_cut_between_rows_and_each_part_has_the_header_row() -> None:
    rows = [f"| X-{number} | {'power ' * 20}|" for number in range(30)]
    table = "\n".join(["| Model | Power |", "| --- | --- |", *rows])
    parts = texts(table)
    assert len(parts) > 2
    for part in parts:
        assert part.startswith("| Model | Power |\n| --- | --- |\n| X-")
        assert size_of(part) <= LONGEST_PASSAGE
    assert [row for part in parts for row in part.split("\n")[2:]] == rows


def test_a_paragraph_is_cut_between_sentences_of_either_language() -> None:
    chinese = "请先打开设备的电源，然后按下启动键。" * 100
    for part in texts(chinese):
        assert part.startswith("请先")
        assert part.endswith("启动键。")
    english = "First switch it on (e.g. version 2.5 of it). Then press start! " * 60
    for part in texts(english):
        assert part.startswith(("First", "Then"))
        assert part.rstrip().endswith((".", "!"))


def test_a_list_is_cut_between_items_and_code_stays_code() -> None:
    items = [f"- item {number}{' word' * 20}" for number in range(40)]
    assert [line for part in texts("\n".join(items)) for line in part.split("\n")] == items
    code = "```python\n" + "value = compute(1)\n" * 200 + "```"
    for part in texts(code):
        assert part.startswith("```python\nvalue")
        assert part.endswith("(1)\n```")


def test_passages_have_the_page_on_which_they_begin() -> None:
    pages = ["# A\n\none", "two\n\n# B", "three"]
    assert [(passage.page, passage.text) for passage in split_pages(pages)] == [
        (1, "one\n\ntwo"),
        (3, "three"),
    ]
    assert {passage.page for passage in split_markdown("one")} == {None}


LINES = st.one_of(
    st.text("ab。 .|#`-*\t中文，\n", max_size=40),
    st.sampled_from(
        ["# h", "## h2", "| a | b |", "|---|---|", "```", "- item", "", "---", "**bold**"]
    ),
    st.text("x。", min_size=1300, max_size=1400),
)


@settings(max_examples=60)
@given(st.lists(LINES, max_size=30))
@example(["| a | b |", "|---|---|", "| " + "长" * 3000 + " | b |"])
@example(["| " + "head " * 400 + "|", "|---|", "| row |"])
@example(["```", "x" * 5000])
@example(["中" * 5000])
def test_every_passage_is_bounded_and_every_word_is_kept(lines: list[str]) -> None:
    markdown = "\n".join(lines)
    passages = split_markdown(markdown)
    for passage in passages:
        assert passage.text.strip()
        assert size_of(passage.text) <= LONGEST_PASSAGE
    kept = "".join(re.sub(r"[^\w]", "", "".join((*each.headings, each.text))) for each in passages)
    for word in re.findall(r"\w{1,20}", markdown):
        assert word in kept, word
