"""Tables of spreadsheets without their empty rows and columns."""

import re
from collections.abc import Iterator

_BORDER = re.compile(r"(?<!\\)\|")
_DASHES = "---"


def without_empty_cells(markdown: str) -> str:
    """Remove the rows and columns of each table that are empty. The first row that is
    left becomes the header row.
    """
    return "\n".join(_lines(markdown.split("\n")))


def _lines(lines: list[str]) -> Iterator[str]:
    table: list[list[str]] = []
    for line in lines:
        if line.startswith("|"):
            table.append([cell.strip() for cell in _BORDER.split(line.strip()[1:-1])])
            continue
        yield from _table(table)
        table = []
        yield line
    yield from _table(table)


def _table(rows: list[list[str]]) -> Iterator[str]:
    filled = [row for at, row in enumerate(rows) if at != 1 and any(row)]
    width = max(map(len, filled), default=0)
    kept = [at for at in range(width) if any(at < len(row) and row[at] for row in filled)]
    for number, row in enumerate(filled):
        yield _row([row[at] if at < len(row) else "" for at in kept])
        if number == 0:
            yield _row([_DASHES] * len(kept))


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
