"""The pages of a PDF as Markdown: lines, paragraphs, headings and tables, from the
places of characters and of ruled lines.

A PDF says where each character stands, and nothing about what it belongs to. PDFium
reads the characters in the order in which they were written, which is the reading order
of nearly all programs. A table is where ruled lines form a grid, or where at least
three consecutive lines have parts that stand below each other.
"""

import ctypes
import itertools
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import pypdfium2 as pdfium
from pypdfium2 import raw

from voicechat.documents.pdf_rules import RuledGrid, find_grids

MAX_CHARACTERS = 200_000
"""Characters of one page. A printed page has 3,000 to 10,000."""
_GAP = 1.2
"""A gap of this times the size of the letters ends a run: a new column or cell."""
_RAISED = 0.4
"""How far letters on one line may be raised or lowered, by their size."""
_HEADING_RATIO = 1.12
_HEADING_CHARACTERS = 200
_BOLD_CHARACTERS = 80
_BOLD_WEIGHT = 600
_PARAGRAPH_GAP = 0.35
"""More space between lines than usual, by this times their size, ends a paragraph."""
_SHORT_LINE = 0.85
_ALIGNED_LINES = 3
_MAX_LEVEL = 6
_WIDE = re.compile("[\u2e80-\u9fff\uf900-\ufaff\uff00-\uffef]")
_BULLET = re.compile(r"[•▪◦‣●○■□➢✓·\uf0b7\uf0a7][ \t]*|[-–*][ \t]+")
_NUMBERED = re.compile(
    r"\(?\d{1,3}[.)][ \t]+\S|[a-z][.)][ \t]+\S|[（(][一二三四五六七八九十\d]+[）)]"
)
_SENTENCE_ENDS = (".", "!", "?", ":", "。", "！", "？", "：", "；")
_SOFT_HYPHENS = "\u00ad\u0002\ufffe"


@dataclass(slots=True)
class TextRun:
    """Characters on one line without a large gap. Places are in points from the lower
    left corner of the page.
    """

    text: str
    left: float
    right: float
    baseline: float
    size: float
    """Of the font, in points."""
    is_bold: bool = False

    @property
    def middle(self) -> float:
        """The middle of its small letters."""
        return self.baseline + 0.25 * self.size


@dataclass(slots=True)
class PdfTable:
    """A table of ruled lines."""

    grid: RuledGrid
    cells: dict[tuple[int, int], list[TextRun]] = field(default_factory=dict)
    """The runs in each row, from the bottom, and column."""

    def put(self, run: TextRun) -> None:
        """Add a run to its cell."""
        place = self.grid.row(run.middle), self.grid.column(run.left + 1)
        self.cells.setdefault(place, []).append(run)

    def rows(self) -> list[list[str]]:
        """Return the text of each cell, from the top down, without empty rows and
        columns.
        """
        columns = range(len(self.grid.xs) - 1)
        rows = [
            [_joined(self.cells.get((row, column), ())) for column in columns]
            for row in range(len(self.grid.ys) - 2, -1, -1)
        ]
        kept = [column for column in columns if any(row[column] for row in rows)]
        return [[row[column] for column in kept] for row in rows if any(row)]


@dataclass(slots=True)
class PdfLine:
    """The runs of one line, or a whole table in its place."""

    runs: list[TextRun] = field(default_factory=list)
    table: PdfTable | None = None

    @property
    def text(self) -> str:
        """The text, with two spaces in each gap."""
        return "  ".join(run.text for run in self.runs)

    @property
    def size(self) -> float:
        """The size of most of its letters."""
        return max(self.runs, key=lambda run: len(run.text)).size

    @property
    def baseline(self) -> float:
        """The place of the line, in points from the bottom."""
        return self.runs[0].baseline

    @property
    def left(self) -> float:
        """Where it begins."""
        return self.runs[0].left

    @property
    def right(self) -> float:
        """Where it ends."""
        return max(run.right for run in self.runs)

    @property
    def is_bold(self) -> bool:
        """Whether all of it is."""
        return all(run.is_bold for run in self.runs)


def read_lines(page: pdfium.PdfPage) -> list[PdfLine]:
    """Return the lines and tables of a page in reading order."""
    grids = find_grids(page)
    tables: dict[RuledGrid, PdfTable] = {}
    lines: list[PdfLine] = []
    for run in _runs(page, grids):
        grid = _grid_of(run, grids)
        if grid is not None:
            if grid not in tables:
                tables[grid] = PdfTable(grid)
                lines.append(PdfLine(table=tables[grid]))
            tables[grid].put(run)
        elif lines and _continues(lines[-1], run):
            lines[-1].runs.append(run)
        else:
            lines.append(PdfLine([run]))
    return lines


def character_count(lines: Iterable[PdfLine]) -> int:
    """Return how many characters lines and tables have."""
    return sum(
        len(run.text)
        for line in lines
        for runs in (line.runs, *(line.table.cells.values() if line.table else ()))
        for run in runs
    )


def body_size(pages: Iterable[Sequence[PdfLine]]) -> float:
    """Return the size of most letters of a document, in points; 0 without any."""
    counted: Counter[float] = Counter()
    for lines in pages:
        for line in lines:
            for run in line.runs:
                counted[_rounded(run.size)] += len(run.text)
    return counted.most_common(1)[0][0] if counted else 0.0


def heading_levels(pages: Iterable[Sequence[PdfLine]], body: float) -> dict[float, int]:
    """Return the level of each size of letters that headings have: the largest is 1."""
    sizes = {
        _rounded(line.size)
        for lines in pages
        for line in lines
        if line.runs and _is_large(line, body)
    }
    ordered = sorted(sizes, reverse=True)
    return {size: min(level, _MAX_LEVEL) for level, size in enumerate(ordered, 1)}


def markdown_of(lines: Sequence[PdfLine], body: float, levels: dict[float, int]) -> str:
    """Write the lines of a page as Markdown."""
    written = ""
    for block in _blocks(lines, body):
        if block[0].table is not None:
            text = _table(block[0].table.rows())
        elif len(block) >= _ALIGNED_LINES and _are_aligned(block):
            text = _table([[run.text for run in line.runs] for line in block])
        else:
            text = _paragraph(block, body, levels)
        last = written.rpartition("\n")[2]
        is_list = text.startswith("- ") and last.startswith("- ")
        written += ("\n" if is_list else "\n\n") + text if written and text else text
    return written


# --- characters -----------------------------------------------------------------------


def _runs(page: pdfium.PdfPage, grids: list[RuledGrid]) -> Iterator[TextRun]:
    text = page.get_textpage()
    try:
        yield from _runs_of(text, grids)
    finally:
        text.close()


def _runs_of(text: pdfium.PdfTextPage, grids: list[RuledGrid]) -> Iterator[TextRun]:
    run: TextRun | None = None
    pending = ""
    for at in range(min(text.count_chars(), MAX_CHARACTERS)):
        character = _character(raw.FPDFText_GetUnicode(text, at))
        if not character:
            continue
        place = None if character.isspace() else _place_of(text, at)
        if place is None:
            pending = " "
            continue
        left, right, baseline = place
        if run is not None and _follows(run, left, right, baseline, grids):
            run.text += (pending if _needs_space(run, left, pending) else "") + character
            run.right = max(run.right, right)
        else:
            if run is not None:
                yield run
            run = TextRun(character, left, right, baseline, _size_of(text, at), _is_bold(text, at))
        pending = ""
    if run is not None:
        yield run


def _place_of(text: pdfium.PdfTextPage, at: int) -> tuple[float, float, float] | None:
    """Return left, right and baseline of a character; None for one without a place."""
    box, x, y = raw.FS_RECTF(), ctypes.c_double(), ctypes.c_double()
    if not raw.FPDFText_GetLooseCharBox(text, at, box) or box.right <= box.left:
        return None
    raw.FPDFText_GetCharOrigin(text, at, x, y)
    return box.left, box.right, y.value


def _size_of(text: pdfium.PdfTextPage, at: int) -> float:
    """Return the size of a character's font on the page. The font's own size is often 1
    and the matrix enlarges it.
    """
    matrix = raw.FS_MATRIX()
    size: float = raw.FPDFText_GetFontSize(text, at)
    if raw.FPDFText_GetMatrix(text, at, matrix):
        size *= math.hypot(matrix.c, matrix.d)
    return abs(size) or 1.0


def _character(code: int) -> str:
    if code in (0, 0xFFFF) or 0xD800 <= code < 0xE000 or code > 0x10FFFF:
        return ""
    character = chr(code)
    if character in "\r\n\t":
        return " "
    if character in _SOFT_HYPHENS:
        return "\u00ad"
    return "" if unicodedata.category(character) in ("Cc", "Cf") else character


def _follows(
    run: TextRun, left: float, right: float, baseline: float, grids: list[RuledGrid]
) -> bool:
    if abs(baseline - run.baseline) > _RAISED * run.size or left < run.left:
        return False
    if left - run.right > _GAP * run.size:
        return False
    grid = _grid_of(run, grids)
    return grid is None or grid.column(run.left + 1) == grid.column((left + right) / 2)


def _grid_of(run: TextRun, grids: list[RuledGrid]) -> RuledGrid | None:
    return next((grid for grid in grids if grid.holds(run.left + 1, run.middle)), None)


def _needs_space(run: TextRun, left: float, pending: str) -> bool:
    return bool(pending) and not (_WIDE.match(run.text[-1]) and left - run.right < 1.0)


def _is_bold(text: pdfium.PdfTextPage, at: int) -> bool:
    return bool(raw.FPDFText_GetFontWeight(text, at) >= _BOLD_WEIGHT) or _has_bold_name(text, at)


def _has_bold_name(text: pdfium.PdfTextPage, at: int) -> bool:
    name = ctypes.create_string_buffer(128)
    flags = ctypes.c_int()
    raw.FPDFText_GetFontInfo(text, at, name, 128, flags)
    return any(word in name.value.lower() for word in (b"bold", b"black", b"heavy"))


# --- lines, paragraphs, tables --------------------------------------------------------


def _continues(line: PdfLine, run: TextRun) -> bool:
    """Whether a run stands beside the line's last one."""
    if not line.runs:
        return False
    last = line.runs[-1]
    return run.left >= last.right and abs(run.baseline - last.baseline) <= _RAISED * last.size


def _blocks(lines: Sequence[PdfLine], body: float) -> Iterator[list[PdfLine]]:
    usual = _usual_gap(lines)
    block: list[PdfLine] = []
    for line in lines:
        if block and _begins_block(block, line, body, usual):
            yield block
            block = []
        block.append(line)
    if block:
        yield block


def _usual_gap(lines: Sequence[PdfLine]) -> float:
    """Return the usual distance of baselines, in sizes of the letters."""
    gaps = [
        (before.baseline - line.baseline) / line.size
        for before, line in itertools.pairwise(lines)
        if before.runs and line.runs and line.baseline < before.baseline
    ]
    return sorted(gaps)[len(gaps) // 4] if gaps else 1.0


def _begins_block(block: list[PdfLine], line: PdfLine, body: float, usual: float) -> bool:
    before = block[-1]
    if before.table is not None or line.table is not None:
        return True
    if _are_aligned([before, line]):
        return len(block) > 1 and not _are_aligned(block[-2:])
    if len(before.runs) > 1 and len(block) >= _ALIGNED_LINES and _are_aligned(block):
        return True
    gap = (before.baseline - line.baseline) / line.size
    if not 0 < gap <= usual + _PARAGRAPH_GAP:
        return True
    if abs(before.size - line.size) > 0.1 * body or before.is_bold != line.is_bold:
        return True
    text = line.text
    if _BULLET.match(text) or _NUMBERED.match(text):
        return True
    width = max(each.right for each in block) - block[0].left
    is_short = before.right - block[0].left < _SHORT_LINE * width or len(block) == 1
    ends = before.text.endswith(_SENTENCE_ENDS)
    return ends and is_short and before.right < line.right - line.size


def _are_aligned(lines: Sequence[PdfLine]) -> bool:
    """Whether lines have the same number of runs, two at least, below each other."""
    first = lines[0]
    if len(first.runs) < 2 or _BULLET.match(first.runs[0].text + " "):
        return False
    return all(
        len(line.runs) == len(first.runs)
        and all(
            abs(run.left - above.left) <= run.size or abs(run.right - above.right) <= run.size
            for run, above in zip(line.runs, first.runs, strict=True)
        )
        for line in lines
    )


def _paragraph(block: list[PdfLine], body: float, levels: dict[float, int]) -> str:
    text = _joined(run for line in block for run in line.runs)
    if _is_large(block[0], body) and len(text) <= _HEADING_CHARACTERS:
        return f"{'#' * levels[_rounded(block[0].size)]} {text}"
    if bullet := _BULLET.match(text):
        return f"- {text[bullet.end() :]}"
    if (
        len(block) == 1
        and block[0].is_bold
        and len(text) <= _BOLD_CHARACTERS
        and not text.endswith(_SENTENCE_ENDS)
    ):
        return f"**{text.replace('*', '')}**"
    return f"\\{text}" if text.startswith(("#", "|", ">")) else text


def _is_large(line: PdfLine, body: float) -> bool:
    return line.size >= _HEADING_RATIO * body and any(map(str.isalnum, line.text))


def _rounded(size: float) -> float:
    return round(size * 2) / 2


def _joined(runs: Iterable[TextRun]) -> str:
    """Join the runs of a paragraph or cell, and words that were divided."""
    text = ""
    for run in runs:
        if text.endswith("\u00ad"):
            text = text[:-1] + run.text
        elif text.endswith("-") and text[-2:-1].islower() and run.text[0].islower():
            text += run.text
        elif text and not (_WIDE.match(text[-1]) and _WIDE.match(run.text[0])):
            text += " " + run.text
        else:
            text += run.text
    return text.replace("\u00ad", "")


def _table(rows: list[list[str]]) -> str:
    if not rows:
        return ""
    if len(rows[0]) == 1:  # a frame around a text
        return "\n\n".join(row[0] for row in rows)
    written = [f"| {' | '.join(map(_cell, row))} |" for row in rows]
    written.insert(1, f"| {' | '.join(['---'] * len(rows[0]))} |")
    return "\n".join(written)


def _cell(text: str) -> str:
    return text.replace("\\|", "|").replace("|", "\\|")
