"""What is mended in the pages of PDFs, in spreadsheets and in texts."""

import pytest

from voicechat.documents.kinds import DocumentKind, kind_of
from voicechat.documents.pages import joined_paragraphs, without_running_heads
from voicechat.documents.plain_text import decode_text, table_of_csv
from voicechat.documents.sheets import without_empty_cells
from voicechat.errors import RemoteProtocolError

CHINESE = "产品手册：先打开电源，再按启动键。\n功率为一百瓦。"
TAIWANESE = "產品手冊：先打開電源，再按啟動鍵。\n功率為一百瓦。"


def test_headers_and_footers_go_and_chapters_and_tables_stay() -> None:
    pages = [
        f"The manual\n\n# Chapter {number}\n\ntext {number}\n\n| X-{number} |\n\nPage {number} of 5"
        for number in range(1, 6)
    ]
    assert without_running_heads(pages) == [
        f"# Chapter {number}\n\ntext {number}\n\n| X-{number} |" for number in range(1, 6)
    ]
    assert without_running_heads(["same", "same"]) == ["same", "same"]


def test_a_paragraph_that_goes_on_is_joined_and_others_are_not() -> None:
    assert joined_paragraphs(["Press the", "start key.\n\nNext"]) == [
        "Press the start key.",
        "Next",
    ]
    assert joined_paragraphs(["先打开", "电源。"]) == ["先打开电源。", ""]
    for apart in (["It is done.", "so it is"], ["# Title", "text"], ["one", "Two"]):
        assert joined_paragraphs(apart) == apart


def test_empty_rows_and_columns_of_sheets_go() -> None:
    sheet = "## S\n\n|  |  | a\\|b | c |\n|---|---|---|---|\n|  |  |  |  |\n|  |  | 1 |  |\n\nend"
    assert without_empty_cells(sheet) == "## S\n\n| a\\|b | c |\n| --- | --- |\n| 1 |  |\n\nend"
    assert without_empty_cells("|  |\n|---|\n|  |") == ""


@pytest.mark.parametrize(
    "encoding",
    ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "gb18030", "gbk"],
)
def test_simplified_chinese_in_every_encoding(encoding: str) -> None:
    # A line end in UTF-16 tells the order of its bytes.
    assert decode_text(CHINESE.encode(encoding)) == CHINESE


def test_other_encodings() -> None:
    assert decode_text(TAIWANESE.encode("big5")) == TAIWANESE
    assert decode_text("Café, naïve déjà vu".encode("cp1252")) == "Café, naïve déjà vu"
    assert decode_text(CHINESE.encode()[:-2]) == CHINESE[:-1]
    assert decode_text(b"a\r\nb\rc\fd") == "a\nb\nc\n\nd"


def test_what_is_no_text_is_refused() -> None:
    for content in (bytes(range(256)) * 20, b"\x01\x02\x03" * 10, b"a\0b\0\0c\0"):
        with pytest.raises(RemoteProtocolError, match="no text"):
            decode_text(content)


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        ("[1] 说明".encode("utf-16"), DocumentKind.TEXT),
        (b'{"a": 1}', DocumentKind.TEXT),
        (b"A PDF begins with %PDF-1.7", DocumentKind.TEXT),
        (b"junk %PDF-1.7 ... startxref 7 %%EOF", DocumentKind.PDF),
        ("\ufeff<!DOCTYPE html>".encode("utf-16-le"), DocumentKind.HTML),
    ],
)
def test_the_first_bytes_tell_the_kind(content: bytes, kind: DocumentKind) -> None:
    assert kind_of(content, ".txt") is kind


def test_rich_text_is_told_as_such() -> None:
    with pytest.raises(RemoteProtocolError, match="is RTF, although its name may say doc"):
        kind_of(b"{\\rtf1\\ansi text}", ".doc")


def test_separated_values_are_a_table() -> None:
    expected = "| a | b |\n| --- | --- |\n| 1\\|2 | 3, 4 |\n| 5 |  |"
    assert table_of_csv('a,b\n1|2,"3,\n4"\n\n5\n', tabs=False) == expected
    assert table_of_csv("a\tb\n1\t2", tabs=True).startswith("| a | b |")
    assert table_of_csv("one line\nand another", tabs=False) == "one line\nand another"
