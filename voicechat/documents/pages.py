"""What is mended in the pages of a PDF together: headers and footers, and paragraphs
that continue on the next page.
"""

import re
from collections import Counter
from collections.abc import Sequence

_WIDE = "\u2e80-\u303f\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\uff00-\uffef"
"""Characters of Chinese and Japanese, with their punctuation."""
_DIGITS = re.compile(r"\d+|\b[ivxlc]+\b")
_RUNNING_CHARACTERS = 120
_RUNNING_SHARE = 0.3
_RUNNING_PAGES = 3
"""A line at the top or bottom of at least 3 pages, and of 30 % of them (left and right
pages may differ), is a header or footer.
"""
_ENDS = tuple(".!?:;。！？：；…\"'”’)）】》|")
_BLOCK_STARTS = ("#", "|", "-", "*", ">", "`", "1", "!")


def without_running_heads(pages: Sequence[str]) -> list[str]:
    """Remove headers, footers and page numbers: lines at the top and bottom of many
    pages that differ in numbers only.
    """
    split = [page.strip().split("\n") for page in pages]
    for at in (0, -1):
        for _ in range(2):  # a header or footer has at most two lines
            counted = Counter(_form(lines[at]) for lines in split if lines)
            running = {
                form
                for form, count in counted.items()
                if form and count >= max(_RUNNING_PAGES, _RUNNING_SHARE * len(pages))
            }
            for lines in split:
                if lines and _form(lines[at]) in running:
                    del lines[at]
                    while lines and not lines[at].strip():
                        del lines[at]
    return ["\n".join(lines).strip() for lines in split]


def joined_paragraphs(pages: Sequence[str]) -> list[str]:
    """Move the end of a paragraph that continues on the next page to its beginning."""
    joined = list(pages)
    for number in range(len(joined) - 1, 0, -1):
        before, page = joined[number - 1], joined[number]
        last, (first, _, rest) = before.rpartition("\n")[2], page.partition("\n")
        if (
            last
            and first
            and not last.endswith(_ENDS)
            and not last.startswith(_BLOCK_STARTS)
            and (first[0].islower() or (_is_wide(first[0]) and _is_wide(last[-1])))
        ):
            space = "" if _is_wide(first[0]) else " "
            joined[number - 1], joined[number] = f"{before}{space}{first}", rest.lstrip("\n")
    return joined


def _is_wide(character: str) -> bool:
    return re.match(f"[{_WIDE}]", character) is not None


def _form(line: str) -> str:
    """Return a line with its numbers replaced; empty for what is no header or footer.
    Chapters that begin with their pages differ in their number only, so the numbers of
    headings stay.
    """
    bare = line.strip("* \t")
    if not 0 < len(bare) <= _RUNNING_CHARACTERS or bare.startswith(("|", "- ")):
        return ""
    return bare if bare.startswith("#") else _DIGITS.sub("#", bare)
