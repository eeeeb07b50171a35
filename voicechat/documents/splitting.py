"""Markdown as passages.

A passage never reaches beyond its section. Within a section, blocks (paragraphs, lists,
tables, code) are joined up to the greatest size; only what is larger by itself is cut:
a table between rows, with the header row repeated, a list between items, a paragraph
between sentences.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from voicechat.documents.passage import LONGEST_PASSAGE, Passage

_WIDE = re.compile("[\u2e80-\u9fff\uf900-\uffef]")
"""Characters of Chinese and Japanese, of which one carries about as much as two and a
half Latin ones.
"""
_WIDE_SIZE = 2
"""The size of a wide character, so that a passage of either language fits the 512
tokens of common embedding models.
"""
_HEADING = re.compile(r" {0,3}(#{1,6})[ \t]+(\S.*)")
_BOLD_HEADING = re.compile(r"\*\*([^*]{1,80})\*\*$")
_BOLD_LEVEL = 7
_UNDERLINE = re.compile(r" {0,3}(=+|-+)[ \t]*$")
_FENCE = re.compile(r" {0,3}(```+|~~~+)")
_ITEM = re.compile(r"[ \t]*(?:[-*+]|\d{1,9}[.)])[ \t]+")
_RULE = re.compile(r" {0,3}(?:(?:-[ \t]*){3,}|(?:\*[ \t]*){3,}|(?:_[ \t]*){3,})$")
_BORDERS = (
    re.compile(r"\n"),
    re.compile(r"[。！？；…]+[”’」』）】》]*|[.!?;]+[\"')\]]*\s+"),
    re.compile(r"[，、：]|[,:]\s+"),
    re.compile(r"\s"),
)
"""Where a text may be cut, the best first: lines, sentences, parts of them, words."""
_MAX_HEADING = 200
_MAX_FENCE = 40


@dataclass(slots=True)
class _Block:
    """A paragraph, list, table or piece of code."""

    lines: list[str]
    headings: tuple[str, ...]
    page: int | None
    is_table: bool = False
    is_code: bool = False


@dataclass(slots=True)
class _Headings:
    """The headings above the current line."""

    open: list[tuple[int, str]] = field(default_factory=list)
    page: int | None = None
    """The page of the last one."""
    is_alone: bool = False
    """Whether nothing stands below the last one yet."""

    def enter(self, level: int, text: str, page: int | None) -> None:
        while self.open and self.open[-1][0] >= level:
            self.open.pop()
        self.open.append((level, text[:_MAX_HEADING]))
        self.page = page
        self.is_alone = True

    def texts(self) -> tuple[str, ...]:
        return tuple(text for _, text in self.open)


def split_markdown(markdown: str) -> list[Passage]:
    """Divide a document without pages; see ``split_pages``."""
    return split_pages([markdown], numbered=False)


def split_pages(pages: Sequence[str], *, numbered: bool = True) -> list[Passage]:
    """Divide the pages of a document into passages, in their order.

    ``numbered``: passages have the page on which they begin, from 1. A passage has at
    most ``LONGEST_PASSAGE`` characters, where a Chinese one counts twice.
    """
    passages: list[Passage] = []
    gathered: list[str] = []
    size, first = 0, None
    for block in _blocks(pages, numbered=numbered):
        if first is not None and (
            block.headings != first.headings
            or size + 2 + size_of("\n".join(block.lines)) > LONGEST_PASSAGE
        ):
            passages.append(_passage("\n\n".join(gathered), first))
            gathered, size, first = [], 0, None
        *cut, last = _pieces(block)
        passages += [_passage(piece, block) for piece in cut]
        gathered.append(last)
        size += 2 + size_of(last)
        first = first or block
    if first is not None:
        passages.append(_passage("\n\n".join(gathered), first))
    return passages


def size_of(text: str) -> int:
    """Return the size of a text in characters, of which a Chinese one counts twice."""
    return len(text) + (_WIDE_SIZE - 1) * len(_WIDE.findall(text))


def _passage(text: str, block: _Block) -> Passage:
    return Passage(text=text, headings=block.headings, page=block.page)


def _blocks(pages: Iterable[str], *, numbered: bool) -> Iterator[_Block]:
    headings = _Headings()
    for number, page in enumerate(pages, 1):
        yield from _blocks_of(page.split("\n"), headings, number if numbered else None)
    yield from _alone(headings)


def _blocks_of(lines: list[str], headings: _Headings, page: int | None) -> Iterator[_Block]:
    at = 0
    while at < len(lines):
        line = lines[at]
        if not line.strip() or _RULE.match(line):
            at += 1
            continue
        if heading := _heading_at(lines, at):
            level, text, at = heading
            if headings.is_alone and headings.open and headings.open[-1][0] >= level:
                yield from _alone(headings)
            headings.enter(level, text, page)
            continue
        end = _end_of_block(lines, at)
        headings.is_alone = False
        yield _Block(
            lines[at:end],
            headings.texts(),
            page,
            is_table=_is_table(lines, at),
            is_code=_FENCE.match(line) is not None,
        )
        at = end


def _alone(headings: _Headings) -> Iterator[_Block]:
    """Yield a heading below which nothing stands, such as the title of a slide with a
    picture, as a passage of its own.
    """
    if headings.is_alone:
        *above, last = headings.texts()
        headings.is_alone = False
        yield _Block([last], tuple(above), headings.page)


def _heading_at(lines: list[str], at: int) -> tuple[int, str, int] | None:
    """Return level, text and the number of the line behind a heading."""
    line = lines[at]
    if found := _HEADING.match(line):
        return len(found[1]), _without_closing(found[2]), at + 1
    stands_alone = (at == 0 or not lines[at - 1].strip()) and (
        at + 1 == len(lines) or not lines[at + 1].strip()
    )
    if stands_alone and (found := _BOLD_HEADING.match(line.strip())):
        return _BOLD_LEVEL, found[1], at + 1
    if (
        at + 1 < len(lines)
        and len(line) <= _MAX_HEADING
        and not line.startswith(("|", " ", "\t"))
        and not _ITEM.match(line)
        and (under := _UNDERLINE.match(lines[at + 1]))
        and len(under[1]) >= 3
        and (at == 0 or not lines[at - 1].strip())
    ):
        return (1 if under[1][0] == "=" else 2), line.strip(), at + 2
    return None


def _without_closing(text: str) -> str:
    """Return a heading's text without the number signs that may close it."""
    text = text.rstrip()
    opened = text.rstrip("#")
    return (opened.rstrip() if opened.endswith((" ", "\t")) else text).strip("*") or text


def _is_table(lines: list[str], at: int) -> bool:
    return (
        lines[at].lstrip().startswith("|")
        and at + 1 < len(lines)
        and "-" in lines[at + 1]
        and not lines[at + 1].strip("|:- \t")
    )


def _end_of_block(lines: list[str], at: int) -> int:
    if fence := _FENCE.match(lines[at]):
        end = at + 1
        while end < len(lines) and not lines[end].lstrip().startswith(fence[1]):
            end += 1
        return min(end + 1, len(lines))
    is_table, is_list = _is_table(lines, at), _ITEM.match(lines[at]) is not None
    end = at + 1
    while end < len(lines):
        line = lines[end]
        if not line.strip():
            # The items of a list may stand apart.
            if is_list and end + 1 < len(lines) and _ITEM.match(lines[end + 1]):
                end += 1
                continue
            break
        if _HEADING.match(line) or _FENCE.match(line):
            break
        if is_table is not line.lstrip().startswith("|") and (is_table or _is_table(lines, end)):
            break
        end += 1
    return end


def _pieces(block: _Block) -> list[str]:
    """Cut a block into pieces of the greatest size; one piece if it fits."""
    text = "\n".join(block.lines)
    if size_of(text) <= LONGEST_PASSAGE:
        return [text]
    if block.is_table:
        return _pieces_of_table(block.lines)
    if block.is_code and len(block.lines[0]) <= _MAX_FENCE:
        return _pieces_of_code(block.lines)
    return _joined(_cut(text, LONGEST_PASSAGE), LONGEST_PASSAGE)


def _pieces_of_code(lines: list[str]) -> list[str]:
    first, mark = lines[0], lines[0].strip()[:3]
    inner = lines[1:-1] if lines[-1].strip().startswith(mark) else lines[1:]
    room = LONGEST_PASSAGE - 2 * _MAX_FENCE
    return [f"{first}\n{piece}\n{mark}" for piece in _joined(_cut("\n".join(inner), room), room)]


def _pieces_of_table(lines: list[str]) -> list[str]:
    head = "\n".join(lines[:2])
    if size_of(head) > LONGEST_PASSAGE // 2:
        return _joined(_cut("\n".join(lines), LONGEST_PASSAGE), LONGEST_PASSAGE)
    room = LONGEST_PASSAGE - size_of(head) - 1
    rows = [piece for row in lines[2:] for piece in _cut(row + "\n", room)]
    return [f"{head}\n{piece}" for piece in _joined(rows, room)]


def _cut(text: str, room: int, borders: Sequence[re.Pattern[str]] = _BORDERS) -> list[str]:
    """Cut a text into the parts between borders, and parts that are still too large at
    the next kind of border. The parts together are the text.
    """
    if size_of(text) <= room:
        return [text]
    if not borders:
        step = room // _WIDE_SIZE
        return [text[at : at + step] for at in range(0, len(text), step)]
    parts, begin = [], 0
    for border in borders[0].finditer(text):
        parts.append(text[begin : border.end()])
        begin = border.end()
    parts.append(text[begin:])
    return [piece for part in parts if part for piece in _cut(part, room, borders[1:])]


def _joined(parts: Iterable[str], room: int) -> list[str]:
    """Join consecutive parts up to the greatest size."""
    pieces: list[str] = []
    gathered, size = "", 0
    for part in parts:
        part_size = size_of(part)
        if gathered and size + part_size > room:
            pieces.append(gathered.strip("\n").rstrip())
            gathered, size = "", 0
        gathered += part
        size += part_size
    pieces.append(gathered.strip("\n").rstrip())
    return [piece for piece in pieces if piece.strip()] or [""]
