"""BM25, computed the same way whatever database keeps the words.

The index has one *posting* for each word and source (a file or Q&A record): in which of
its passages the word stands. SQLite's ``bm25()`` counts the passages of all projects,
and PostgreSQL's ``ts_rank`` is another formula; this one counts the searched knowledge
bases only.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from voicechat.knowledge.words import PAIR

SATURATION = 0.9
"""k1 of BM25: how fast further occurrences of a word stop counting (Robertson and
Zaragoza, 2009). This value and the next are Anserini's (Yang, Fang and Lin, 2017).
"""
LENGTH_WEIGHT = 0.4
"""b of BM25: how much a long passage needs more occurrences than a short one."""
PAIR_WEIGHT = 0.5
"""How much a pair of Chinese characters counts beside a word. From 0.35 to 0.7 the
questions of ``tests/knowledge/questions`` find the same within 0.2 %.
"""
ENTRY = np.dtype([("position", "<u4"), ("length", "<u2"), ("frequency", "<u2")])
"""One passage of a posting: its position in the source, its words, and how many of them
are this one.
"""
_MOST = 0xFFFF


@dataclass(frozen=True, slots=True)
class Posting:
    """The passages of one source that have one word."""

    word: str
    source: int
    entries: bytes
    """An array of ``ENTRY``."""


@dataclass(frozen=True, slots=True)
class Ranked:
    """A passage and its score."""

    source: int
    position: int
    score: float


def postings_of(source: int, passages: Sequence[Sequence[str]]) -> list[Posting]:
    """Index the words of a source's passages."""
    entries: defaultdict[str, list[tuple[int, int, int]]] = defaultdict(list)
    for position, words in enumerate(passages):
        length = min(len(words), _MOST)
        for word, frequency in Counter(words).items():
            entries[word].append((position, length, min(frequency, _MOST)))
    return [
        Posting(word, source, np.array(found, ENTRY).tobytes()) for word, found in entries.items()
    ]


def rank_by_words(
    postings: Iterable[Posting], passages: int, words: int, limit: int
) -> list[Ranked]:
    """Return the best ``limit`` passages, the best first; equal ones in the order of
    their sources.

    ``postings`` are those of the words sought. ``passages`` and ``words`` count all
    passages that are searched and all their words.
    """
    by_word: defaultdict[str, list[Posting]] = defaultdict(list)
    for posting in postings:
        by_word[posting.word].append(posting)
    if not by_word or not passages or not words:
        return []
    mean_length = words / passages
    keys, scores = [], []
    for word, same_word in by_word.items():
        entries = np.frombuffer(b"".join(posting.entries for posting in same_word), ENTRY)
        counts = [len(posting.entries) // ENTRY.itemsize for posting in same_word]
        sources = np.repeat([posting.source for posting in same_word], counts)
        frequency = entries["frequency"].astype(np.float64)
        length = entries["length"] / mean_length
        rarity = np.log1p((passages - len(entries) + 0.5) / (len(entries) + 0.5))
        weight = PAIR_WEIGHT if word.startswith(PAIR) else 1.0
        dampened = SATURATION * (1 - LENGTH_WEIGHT + LENGTH_WEIGHT * length)
        keys.append(sources.astype(np.int64) << 32 | entries["position"])
        scores.append(weight * rarity * frequency * (SATURATION + 1) / (frequency + dampened))
    found, places = np.unique(np.concatenate(keys), return_inverse=True)
    total = np.bincount(places, np.concatenate(scores))
    best = np.argsort(-total, kind="stable")[:limit]
    return [Ranked(int(found[i] >> 32), int(found[i] & 0xFFFFFFFF), float(total[i])) for i in best]
