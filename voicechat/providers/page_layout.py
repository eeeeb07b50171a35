"""The layout of a page: lines of text with their positions become paragraphs and
tables in reading order. No I/O.

It uses only geometry. Lines are rotated upright by the median of their slopes, and
lines beside each other form a row. Rows whose cells share columns are a table if the
cells leave much of the columns empty, and columns of running text if they fill them.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from voicechat.providers.media import BlockKind, TextBlock

Point = tuple[float, float]

FULL_CELL = 0.7
"""Cells that fill more than this share of their columns, at the median, are running
text.
"""
PARAGRAPH_GAP = 0.75
"""A gap of more than this share of a line's height begins a paragraph."""
FULL_LINE = 0.8
"""A line shorter than this share of the longest ends its paragraph."""
_CJK = ("\u2e80", "\uffef")
"""Lines that meet at characters in this range are joined without a space."""


@dataclass(frozen=True, slots=True)
class TextLine:
    """One recognised line."""

    text: str
    corners: tuple[Point, Point, Point, Point]
    """Top left, top right, bottom right, bottom left, in pixels."""


@dataclass(slots=True)
class _Cell:
    """A line, rotated upright."""

    line: TextLine
    left: float
    top: float
    right: float
    bottom: float

    @property
    def height(self) -> float:
        return self.bottom - self.top

    @property
    def middle(self) -> float:
        return (self.top + self.bottom) / 2


_Row = list[_Cell]


def lay_out(lines: Sequence[TextLine]) -> tuple[TextBlock, ...]:
    """Return the blocks of a page in reading order."""
    if not lines:
        return ()
    slope = median(_slope(line) for line in lines)
    rows = _rows([_upright(line, slope) for line in lines])
    blocks: list[TextBlock] = []
    at = 0
    while at < len(rows):
        run = _run_of_columns(rows[at:])
        if run is None:
            end = at + 1
            while end < len(rows) and _run_of_columns(rows[end:]) is None:
                end += 1
            blocks += _paragraphs([cell for row in rows[at:end] for cell in row])
            at = end
            continue
        size, columns = run
        if _is_table(rows[at : at + size], columns):
            blocks.append(_table(rows[at : at + size], columns))
        else:
            for column in columns:
                cells = [cell for row in rows[at : at + size] for cell in row]
                blocks += _paragraphs([cell for cell in cells if _is_in(cell, column)])
        at += size
    return tuple(blocks)


def _slope(line: TextLine) -> float:
    (left, top), (right, bottom) = line.corners[0], line.corners[1]
    return math.atan2(bottom - top, right - left)


def _upright(line: TextLine, slope: float) -> _Cell:
    cos, sin = math.cos(-slope), math.sin(-slope)
    turned = [(x * cos - y * sin, x * sin + y * cos) for x, y in line.corners]
    xs, ys = [x for x, _ in turned], [y for _, y in turned]
    return _Cell(line, min(xs), min(ys), max(xs), max(ys))


def _rows(cells: list[_Cell]) -> list[_Row]:
    """Group cells beside each other into rows, from top to bottom, each from left to
    right.
    """
    rows: list[_Row] = []
    for cell in sorted(cells, key=lambda cell: cell.middle):
        last = rows[-1] if rows else []
        beside = last and all(
            abs(cell.middle - other.middle) < min(cell.height, other.height) / 2
            and (cell.left >= other.right or cell.right <= other.left or cell is other)
            for other in last
        )
        if beside:
            last.append(cell)
        else:
            rows.append([cell])
    for row in rows:
        row.sort(key=lambda cell: cell.left)
    return rows


def _run_of_columns(rows: Sequence[_Row]) -> tuple[int, list[tuple[float, float]]] | None:
    """Return how many of the first rows share columns, and the columns; None if fewer
    than two rows with several cells do.
    """
    if len(rows[0]) < 2:
        return None
    columns = [(cell.left, cell.right) for cell in rows[0]]
    size, several = 1, 1
    for row in rows[1:]:
        gap = min(cell.top for cell in row) - max(cell.bottom for cell in rows[size - 1])
        if gap > 3 * max(cell.height for cell in row):
            break
        widened = _widened(columns, row)
        if widened is None or len(widened) > len(columns) + 1:
            break
        columns = widened
        several += len(row) > 1
        size += 1
    # A line that ends the run alone may be the text below it.
    while size > 1 and len(rows[size - 1]) == 1 and not _is_short(rows[size - 1][0], columns):
        size -= 1
    return (size, columns) if several >= 2 else None


def _widened(
    columns: Sequence[tuple[float, float]], row: Sequence[_Cell]
) -> list[tuple[float, float]] | None:
    """Return the columns with a row's cells in them; None if one spans two."""
    wider = list(columns)
    for cell in row:
        meeting = [
            number
            for number, (left, right) in enumerate(wider)
            if cell.left < right and cell.right > left
        ]
        if len(meeting) > 1:
            return None
        if meeting:
            left, right = wider[meeting[0]]
            wider[meeting[0]] = (min(left, cell.left), max(right, cell.right))
        else:
            wider.append((cell.left, cell.right))
    wider.sort()
    overlap = any(left[1] > right[0] for left, right in itertools.pairwise(wider))
    return None if overlap else wider


def _is_short(cell: _Cell, columns: Sequence[tuple[float, float]]) -> bool:
    return any(left <= cell.left and cell.right <= right for left, right in columns)


def _is_in(cell: _Cell, column: tuple[float, float]) -> bool:
    return column[0] <= (cell.left + cell.right) / 2 <= column[1]


def _is_table(rows: Sequence[_Row], columns: Sequence[tuple[float, float]]) -> bool:
    """Return whether the cells leave room before the next column."""
    ends = [left for left, _ in columns[1:]] + [columns[-1][1]]
    filled = [
        (cell.right - cell.left) / max(1.0, end - left)
        for row in rows
        for cell in row
        for (left, right), end in zip(columns, ends, strict=True)
        if _is_in(cell, (left, right)) and end != columns[-1][1]
    ]
    return not filled or median(filled) <= FULL_CELL


def _table(rows: Sequence[_Row], columns: Sequence[tuple[float, float]]) -> TextBlock:
    written = [
        [
            " ".join(cell.line.text for cell in row if _is_in(cell, column)).replace("|", "\\|")
            for column in columns
        ]
        for row in rows
    ]
    written.insert(1, ["---"] * len(columns))
    text = "\n".join(f"| {' | '.join(cells)} |" for cells in written)
    return _block([cell for row in rows for cell in row], text, BlockKind.TABLE)


def _paragraphs(cells: Sequence[_Cell]) -> list[TextBlock]:
    """Join lines to paragraphs; a larger gap, another size or a short line ends one."""
    blocks: list[TextBlock] = []
    widest = max((cell.right - cell.left for cell in cells), default=0.0)
    gathered: list[_Cell] = []
    for cell in cells:
        if gathered and _begins_paragraph(gathered[-1], cell, widest):
            blocks.append(_block(gathered, _joined(gathered)))
            gathered = []
        gathered.append(cell)
    if gathered:
        blocks.append(_block(gathered, _joined(gathered)))
    return blocks


def _begins_paragraph(last: _Cell, cell: _Cell, widest: float) -> bool:
    height = min(last.height, cell.height)
    return (
        cell.top - last.bottom > PARAGRAPH_GAP * height
        or max(last.height, cell.height) > 1.4 * height
        or last.right - last.left < FULL_LINE * widest
    )


def _joined(cells: Sequence[_Cell]) -> str:
    text = cells[0].line.text
    for cell in cells[1:]:
        more = cell.line.text
        between = _is_cjk(text[-1:]) or _is_cjk(more[:1])
        text = f"{text}{'' if between else ' '}{more}"
    return text


def _is_cjk(character: str) -> bool:
    return _CJK[0] <= character <= _CJK[1]


def _block(cells: Sequence[_Cell], text: str, kind: BlockKind = BlockKind.TEXT) -> TextBlock:
    corners = [corner for cell in cells for corner in cell.line.corners]
    return TextBlock(
        kind=kind,
        text=text,
        left=max(0, math.floor(min(x for x, _ in corners))),
        top=max(0, math.floor(min(y for _, y in corners))),
        right=math.ceil(max(x for x, _ in corners)),
        bottom=math.ceil(max(y for _, y in corners)),
    )
