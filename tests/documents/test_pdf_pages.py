"""Pages of PDFs: what the places of characters and ruled lines mean."""

from collections.abc import Callable

import fpdf

from tests.documents.material import FONT, ROWS
from voicechat.documents.child import PdfDocument


def read(draw: Callable[[fpdf.FPDF], object], pages: int = 1) -> list[str]:
    written = fpdf.FPDF()
    written.add_font("noto", fname=FONT)
    for _ in range(pages):
        written.add_page()
        written.set_font("noto", size=10)
        draw(written)
    document = PdfDocument(bytes(written.output()), 10)
    for number in range(document.page_count):
        assert not document.read_page(number)
    return document.texts()


def table(borders: str) -> Callable[[fpdf.FPDF], None]:
    def draw(page: fpdf.FPDF) -> None:
        page.multi_cell(0, text="Before the table.", new_x="LMARGIN", new_y="NEXT")
        page.ln()
        with page.table(borders_layout=borders, first_row_as_headings=False) as written:
            for row in (*ROWS, ("X-3 和 X-4", "300 W")):
                written.row(row)
        page.ln()
        page.cell(text="After the table.")

    return draw


def test_tables_with_ruled_lines_and_with_aligned_columns() -> None:
    rows = (
        "| 型号 | Power |\n| --- | --- |\n| X-1 | 100 W |\n| X-2 | 200 W |\n| X-3 和 X-4 | 300 W |"
    )
    for borders in ("ALL", "NONE"):
        assert read(table(borders)) == [f"Before the table.\n\n{rows}\n\nAfter the table."], borders


def test_a_cell_of_several_lines_is_one_cell() -> None:
    def draw(page: fpdf.FPDF) -> None:
        with page.table(first_row_as_headings=False, width=60) as written:
            written.row(("key", "a long text of the cell that takes two lines or more"))
            written.row(("a | b", "short"))

    assert read(draw) == [
        "| key | a long text of the cell that takes two lines or more |\n| --- | --- |\n"
        "| a \\| b | short |"
    ]


def test_headings_paragraphs_and_lists() -> None:
    def draw(page: fpdf.FPDF) -> None:
        for size, text in ((20, "手册 Manual"), (14, "安装")):
            page.set_font("noto", size=size)
            page.cell(text=text, new_x="LMARGIN", new_y="NEXT")
        page.set_font("noto", size=10)
        page.multi_cell(60, text="先打开电源，再按启动键。" * 4, new_x="LMARGIN", new_y="NEXT")
        page.ln(6)
        page.multi_cell(60, text="Press the start key. " * 6, new_x="LMARGIN", new_y="NEXT")
        page.ln(6)
        for item in ("• one", "• two"):
            page.cell(text=item, new_x="LMARGIN", new_y="NEXT")

    (found,) = read(draw)
    assert found.split("\n\n") == [
        "# 手册 Manual",
        "## 安装",
        "先打开电源，再按启动键。" * 4,
        ("Press the start key. " * 6).strip(),
        "- one\n- two",
    ]


def test_columns_are_read_one_after_the_other() -> None:
    def draw(page: fpdf.FPDF) -> None:
        with page.text_columns(ncols=2, gutter=20, text_align="L") as columns:
            columns.write("Left words go on and on. " * 120)
            columns.new_column()
            columns.write("Right words go on and on. " * 120)

    (found,) = read(draw)
    assert found.index("Right") > found.rindex("Left")


def test_what_looks_like_markdown_is_text() -> None:
    assert read(lambda page: page.cell(text="# no heading")) == ["\\# no heading"]
