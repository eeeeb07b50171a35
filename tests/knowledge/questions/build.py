"""The documents of the retrieval evaluation, written in six formats from their sources.

`sources/LANGUAGE/NAME.md` holds the text of each document in a small part of Markdown:
headings, paragraphs, lists, tables and fenced code. `documents.jsonl` names the format
that each is written in. The formats are those of users' uploads: pdf, docx, doc, xlsx,
txt and pptx. No Python package writes doc, so those files are kept in `word/`.

    python -m tests.knowledge.questions.build FOLDER
"""

import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import docx
import pylopdf_fonts_zh_cn
from fontTools import subset
from fpdf import FPDF
from fpdf.enums import XPos, YPos
from openpyxl import Workbook
from openpyxl.styles import Font
from openpyxl.worksheet.worksheet import Worksheet
from pptx import Presentation
from pptx.util import Inches

from tests.knowledge.questions.material import SourceDocument, read_documents

LINES_OF_SLIDE = 8


@dataclass(frozen=True, slots=True)
class Heading:
    level: int
    text: str


@dataclass(frozen=True, slots=True)
class Line:
    """A paragraph or an item of a list."""

    text: str
    item: bool = False


@dataclass(frozen=True, slots=True)
class Code:
    text: str


@dataclass(frozen=True, slots=True)
class Table:
    rows: tuple[tuple[str, ...], ...]
    """The first row is the header. All rows have the same number of cells."""


Block: TypeAlias = Heading | Line | Code | Table


def parse(markdown: str) -> Iterator[Block]:
    """The blocks of a source.

    Each line outside tables and code is one paragraph or one item of a list.
    """
    lines = iter(markdown.splitlines())
    rows: list[tuple[str, ...]] = []
    for line in lines:
        text = line.strip()
        if text.startswith("|"):
            if not re.fullmatch(r"[|\s-]+", text) or "---" not in text:
                rows.append(tuple(cell.strip() for cell in text.strip("|").split(" | ")))
            continue
        if rows:
            yield _as_table(rows)
            rows = []
        if text.startswith("```"):
            code = iter(lambda: next(lines, "```").expandtabs().rstrip(), "```")
            yield Code("\n".join(code))
        elif heading := re.fullmatch(r"(#+) (.+)", text):
            yield Heading(len(heading[1]), heading[2])
        elif text:
            item = re.match(r"- |\d+\. ", text)
            yield Line(text.removeprefix("- "), item=item is not None)
    if rows:
        yield _as_table(rows)


def _as_table(rows: list[tuple[str, ...]]) -> Table:
    width = max(map(len, rows))
    return Table(tuple(row + ("",) * (width - len(row)) for row in rows))


def build(folder: Path, documents: Sequence[SourceDocument] | None = None) -> dict[str, Path]:
    """Write documents, all of the set by default, into an existing folder.

    :return: the file of each document's id. Its name is the document's title.
    """
    chosen = read_documents() if documents is None else documents
    files = {document.id: folder / f"{document.title}.{document.format}" for document in chosen}
    font = _shared_font(folder, chosen) if any(d.format == "pdf" for d in chosen) else None
    for document in chosen:
        file = files[document.id]
        blocks = list(parse(document.source))
        match document.format:
            case "txt":
                file.write_bytes(_plain_text(blocks).encode(document.encoding))
            case "docx":
                _write_docx(file, blocks)
            case "pptx":
                _write_pptx(file, blocks)
            case "xlsx":
                _write_xlsx(file, blocks)
            case "pdf":
                assert font is not None
                _write_pdf(file, blocks, font, justified=document.language == "en")
            case "doc":
                shutil.copyfile(document.word_file, file)
            case other:
                raise ValueError(f"{document.id}: no format is named {other!r}")
    if font is not None:
        font.unlink()
    return files


def _plain_text(blocks: list[Block]) -> str:
    parts = []
    for block in blocks:
        match block:
            case Heading(level, text) if level <= 2:
                parts.append(f"{text}\n{'=' * min(60, 2 * len(text))}")
            case Heading(_, text) | Code(text):
                parts.append(text)
            case Line(text, item):
                parts.append(f"  * {text}" if item else text)
            case Table(rows):
                parts.append("\n".join("\t".join(row) for row in rows))
    return "\r\n\r\n".join(part.replace("\n", "\r\n") for part in parts) + "\r\n"


def _write_docx(file: Path, blocks: list[Block]) -> None:
    document = docx.Document()
    for number, block in enumerate(blocks):
        match block:
            case Heading(level, text):
                paragraph = document.add_heading(text, level - 1)
                paragraph.paragraph_format.page_break_before = level == 2 and number > 1
            case Line(text, item):
                document.add_paragraph(text, style="List Bullet" if item else None)
            case Code(text):
                document.add_paragraph(text, style="No Spacing")
            case Table(rows):
                table = document.add_table(len(rows), len(rows[0]), style="Table Grid")
                for cells, row in zip(table.rows, rows, strict=True):
                    for cell, text in zip(cells.cells, row, strict=True):
                        cell.text = text
    document.save(str(file))


def _write_pptx(file: Path, blocks: list[Block]) -> None:
    show = Presentation()
    width = show.slide_width or Inches(10)
    title, body, lines = "", None, 0
    for block in blocks:
        match block:
            case Heading(1, text):
                slide = show.slides.add_slide(show.slide_layouts[0])
                slide.shapes.title.text = text
                title, body = text, None
            case Heading(_, text):
                title, body = text, None
            case Table(rows):
                slide = show.slides.add_slide(show.slide_layouts[5])
                slide.shapes.title.text = title
                frame = slide.shapes.add_table(
                    len(rows), len(rows[0]), Inches(0.5), Inches(1.5), width - Inches(1), Inches(5)
                )
                for cells, row in zip(frame.table.rows, rows, strict=True):
                    for cell, text in zip(cells.cells, row, strict=True):
                        cell.text = text
                body = None
            case Line(text) | Code(text):
                if body is None or lines == LINES_OF_SLIDE:
                    slide = show.slides.add_slide(show.slide_layouts[1])
                    slide.shapes.title.text = title
                    body, lines = slide.placeholders[1].text_frame, 0
                paragraph = body.add_paragraph() if lines else body.paragraphs[0]
                paragraph.text = text
                lines += 1
    show.save(str(file))


def _write_xlsx(file: Path, blocks: list[Block]) -> None:
    book = Workbook()
    book.remove(book.active)
    sheet, heading = None, ""
    for block in blocks:
        match block:
            case Heading(_, text):
                heading, sheet = text, None
            case Line(text) | Code(text):
                sheet = sheet or _add_sheet(book, heading)
                sheet.append([text])
            case Table(rows):
                sheet = sheet or _add_sheet(book, heading)
                for row in rows:
                    # A leading "=" would be a formula.
                    sheet.append([f" {cell}" if cell.startswith("=") else cell for cell in row])
                for cell in sheet[sheet.max_row - len(rows) + 1]:
                    cell.font = Font(bold=True)
    book.save(file)


def _write_pdf(file: Path, blocks: list[Block], font: Path, *, justified: bool) -> None:
    # FPDF justifies by widening spaces. Chinese text has too few of them.
    pdf = FPDF(format="A4")
    pdf.add_font("Noto", fname=font)
    pdf.set_font("Noto", size=10)
    pdf.add_page()
    for block in blocks:
        match block:
            case Heading(level, text):
                size = 20 - 2 * level
                pdf.ln(3)
                pdf.set_font_size(size)
                pdf.multi_cell(0, size / 2, text, new_x=XPos.LMARGIN, new_y=YPos.NEXT)
                pdf.set_font_size(10)
            case Line(text, item):
                align = "J" if justified else "L"
                shown = f"• {text}" if item else text
                pdf.multi_cell(0, 4.6, shown, new_x=XPos.LMARGIN, new_y=YPos.NEXT, align=align)
                pdf.ln(2.5)
            case Code(text):
                pdf.set_font_size(9)
                pdf.multi_cell(0, 4.2, text, new_x=XPos.LMARGIN, new_y=YPos.NEXT, align="L")
                pdf.set_font_size(10)
                pdf.ln(2.5)
            case Table(rows):
                pdf.set_font_size(9)
                with pdf.table(first_row_as_headings=False, line_height=5) as table:
                    for row in rows:
                        table.row(row)
                pdf.set_font_size(10)
    pdf.output(str(file))


def _add_sheet(book: Workbook, heading: str) -> Worksheet:
    # Names of sheets have at most 31 characters, and some characters are forbidden.
    name = re.sub(r"[\\/*?:\[\]]", " ", heading)[:27].strip()
    sheet = book.create_sheet(name)
    sheet.append([heading])
    return sheet


def _shared_font(folder: Path, documents: Sequence[SourceDocument]) -> Path:
    """The characters of these documents from Noto Sans SC.

    The whole font takes seconds to read for each document.
    """
    whole = Path(pylopdf_fonts_zh_cn.__file__).with_name("NotoSansSC-Regular.otf")
    options = subset.Options(hinting=False, desubroutinize=True)
    options.drop_tables += ["GSUB", "GPOS"]
    text = "".join(document.source for document in documents if document.format == "pdf")
    file = folder / "characters.otf"
    with subset.load_font(str(whole), options) as font:
        subsetter = subset.Subsetter(options)
        subsetter.populate(text=text + "•")
        subsetter.subset(font)
        subset.save_font(font, str(file), options)
    return file


if __name__ == "__main__":
    for written in build(Path(sys.argv[1])).values():
        print(written)
