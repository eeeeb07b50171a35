"""The ruled lines of a page of a PDF, and the grids that they form."""

import ctypes
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pypdfium2 as pdfium
from pypdfium2 import raw

MAX_RULES = 5_000
"""Segments of ruled lines of one page; drawings have more, and no tables."""
_RULE_DEPTH = 3
"""How deeply ruled lines may be nested in forms."""
_TOUCH = 2.0
"""Points that ruled lines may be apart where they meet."""
_STRAIGHT = 0.5


@dataclass(frozen=True, slots=True)
class RuledGrid:
    """The places of the vertical and of the horizontal lines of a table, in points from
    the lower left corner of the page, in ascending order.
    """

    xs: tuple[float, ...]
    ys: tuple[float, ...]

    def holds(self, x: float, y: float) -> bool:
        """Whether a point is in the table."""
        return self.xs[0] <= x <= self.xs[-1] and self.ys[0] <= y <= self.ys[-1]

    def column(self, x: float) -> int:
        """Return the column of a point in the table, from the left."""
        return _place(self.xs, x)

    def row(self, y: float) -> int:
        """Return the row of a point in the table, from the bottom."""
        return _place(self.ys, y)


def find_grids(page: pdfium.PdfPage) -> list[RuledGrid]:
    """Return the tables of ruled lines on a page: sets of lines that touch each other
    and form two columns or more.
    """
    grids = []
    for group in _touching(_rules(page)):
        xs = _distinct(rule.at for rule in group if rule.is_vertical)
        ys = _distinct(rule.at for rule in group if not rule.is_vertical)
        if len(xs) >= 3 and len(ys) >= 2:
            grids.append(RuledGrid(tuple(xs), tuple(ys)))
    return grids


@dataclass(frozen=True, slots=True)
class _Rule:
    """A horizontal or vertical line."""

    is_vertical: bool
    at: float
    begin: float
    end: float

    def touches(self, other: "_Rule") -> bool:
        if self.is_vertical == other.is_vertical:
            return abs(self.at - other.at) <= _TOUCH and (
                self.begin <= other.end + _TOUCH and other.begin <= self.end + _TOUCH
            )
        return (
            self.begin - _TOUCH <= other.at <= self.end + _TOUCH
            and other.begin - _TOUCH <= self.at <= other.end + _TOUCH
        )


def _rules(page: pdfium.PdfPage) -> list[_Rule]:
    rules: list[_Rule] = []
    for found in page.get_objects(filter=[raw.FPDF_PAGEOBJ_PATH], max_depth=_RULE_DEPTH):
        if len(rules) > MAX_RULES:
            return []
        rules += _rules_of(found)
    return rules


def _rules_of(path: pdfium.PdfObject) -> Iterator[_Rule]:
    left, bottom, right, top = path.get_bounds()
    if right - left <= _TOUCH or top - bottom <= _TOUCH:  # a line, or a thin rectangle
        if right - left > top - bottom:
            yield _Rule(False, (bottom + top) / 2, left, right)
        elif top - bottom > _TOUCH:
            yield _Rule(True, (left + right) / 2, bottom, top)
        return
    matrix = path.get_matrix()
    x, y = ctypes.c_float(), ctypes.c_float()
    before = start = None
    for number in range(min(raw.FPDFPath_CountSegments(path), MAX_RULES)):
        segment = raw.FPDFPath_GetPathSegment(path, number)
        if not raw.FPDFPathSegment_GetPoint(segment, x, y):
            return
        point = matrix.on_point(x.value, y.value)
        kind = raw.FPDFPathSegment_GetType(segment)
        if kind == raw.FPDF_SEGMENT_MOVETO:
            start = point
        elif kind == raw.FPDF_SEGMENT_LINETO and before is not None:
            yield from _rule(before, point)
        if raw.FPDFPathSegment_GetClose(segment) and start is not None:
            yield from _rule(point, start)
        before = point


def _rule(begin: tuple[float, float], end: tuple[float, float]) -> Iterator[_Rule]:
    (x0, y0), (x1, y1) = begin, end
    if abs(y0 - y1) <= _STRAIGHT < abs(x0 - x1):
        yield _Rule(False, (y0 + y1) / 2, min(x0, x1), max(x0, x1))
    elif abs(x0 - x1) <= _STRAIGHT < abs(y0 - y1):
        yield _Rule(True, (x0 + x1) / 2, min(y0, y1), max(y0, y1))


def _touching(rules: list[_Rule]) -> list[list[_Rule]]:
    """Divide lines into sets that touch each other, sweeping from left to right."""
    order = sorted(rules, key=lambda rule: rule.at if rule.is_vertical else rule.begin)
    groups: list[list[_Rule]] = []
    open_groups: list[tuple[float, list[_Rule]]] = []
    for rule in order:
        left, right = (rule.at, rule.at) if rule.is_vertical else (rule.begin, rule.end)
        joined = [rule]
        still_open = []
        for reach, group in open_groups:
            if reach + _TOUCH < left:
                groups.append(group)
            elif any(rule.touches(other) for other in group):
                joined += group
                right = max(right, reach)
            else:
                still_open.append((reach, group))
        open_groups = [*still_open, (right, joined)]
    return [*groups, *(group for _, group in open_groups)]


def _distinct(places: Iterable[float]) -> list[float]:
    distinct: list[float] = []
    for place in sorted(places):
        if not distinct or place - distinct[-1] > _TOUCH:
            distinct.append(place)
    return distinct


def _place(borders: tuple[float, ...], at: float) -> int:
    return next((n for n in range(len(borders) - 1) if at < borders[n + 1]), len(borders) - 2)
