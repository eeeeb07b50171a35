"""The windows of a passage: short parts of it that are embedded one by one.

A vector of a whole passage is the mean of all that it treats. The vector of some
sentences is nearer to a question that they answer, so a passage is as near to a
question as its nearest window. `docs/knowledge.md` says what this gains.
"""

import re
from collections.abc import Iterator, Sequence

from voicechat.documents.passage import Passage
from voicechat.documents.splitting import size_of

WINDOW_SIZE = 200
"""Characters of a window, apart from a longer sentence; Chinese ones count twice."""
_SENTENCE_ENDS = re.compile(r"(?<=[。！？!?；;\n])|(?<=[.!?] )")


def windows_of(title: str, passages: Sequence[Passage]) -> tuple[list[int], list[str]]:
    """Return the text of every window of the passages, and before that the position of
    the passage to which each belongs.

    A window begins with the nearest heading above its passage, else with the title of
    its document. Every passage has a window.
    """
    owners: list[int] = []
    texts: list[str] = []
    for position, passage in enumerate(passages):
        heading = passage.headings[-1] if passage.headings else title
        for text in _windows(passage.text):
            owners.append(position)
            texts.append(f"{heading}: {text}")
    return owners, texts


def _windows(text: str) -> Iterator[str]:
    window, size, is_first = "", 0, True
    for sentence in _SENTENCE_ENDS.split(text):
        width = size_of(sentence)
        if window.strip() and size + width > WINDOW_SIZE:
            yield window
            window, size, is_first = "", 0, False
        window += sentence
        size += width
    if window.strip() or is_first:
        yield window
