"""The vectors of a SQLite store, in this process' memory.

One matrix product compares a question with all vectors of a knowledge base. It needs no
index, which would find a little less.
"""

import sqlite3
import threading
from collections import OrderedDict
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from voicechat.knowledge.interface import Vector, Vectors
from voicechat.knowledge.ranking import Ranked

WINDOWS_EACH = 16
"""Windows looked at for each passage wanted. Most passages have fewer than ten."""
PIECE_ROWS = 256
"""Vectors joined at once, so that the interpreter lock is not held for long."""


@dataclass(frozen=True, slots=True)
class _Place:
    """The rows of one source, which has this revision."""

    revision: int
    rows: slice


@dataclass(frozen=True, slots=True, eq=False)
class ShelfVectors:
    """All windows of one shelf, in the order of its sources and their passages."""

    revision: int
    places: dict[int, _Place]
    sources: npt.NDArray[np.int64]
    positions: npt.NDArray[np.int64]
    vectors: Vectors

    @property
    def size(self) -> int:
        """Bytes."""
        return self.vectors.nbytes + self.sources.nbytes + self.positions.nbytes

    def nearest(self, vector: Vector, limit: int) -> list[Ranked]:
        """Return the passages whose nearest windows have the highest cosine, the best
        first.
        """
        if not len(self.sources):
            return []
        scores = self.vectors @ vector
        most = min(limit * WINDOWS_EACH, len(scores))
        found = self._best_of(scores, np.argpartition(-scores, most - 1)[:most])
        if len(found) < limit and most < len(scores):
            found = self._best_of(scores, np.arange(len(scores)))
        return found[:limit]

    def _best_of(
        self, scores: npt.NDArray[np.float32], windows: npt.NDArray[np.int64]
    ) -> list[Ranked]:
        best: dict[tuple[int, int], float] = {}
        for i in windows[np.lexsort((windows, -scores[windows]))]:
            best.setdefault((int(self.sources[i]), int(self.positions[i])), float(scores[i]))
        return [Ranked(*place, score) for place, score in best.items()]


_EMPTY = ShelfVectors(
    -1, {}, np.empty(0, np.int64), np.empty(0, np.int64), np.empty((0, 0), np.float32)
)


class VectorCache:
    """The vectors of the shelves that were searched last."""

    def __init__(self, most_bytes: int) -> None:
        """``most_bytes``: more are kept only while one shelf alone has more."""
        self._most_bytes = most_bytes
        self._shelves: OrderedDict[tuple[int, str], ShelfVectors] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, database: sqlite3.Connection, shelf: int, embedder: str) -> ShelfVectors:
        """Return the vectors that ``embedder`` has made, as they are in this
        transaction. Only sources that have changed are read again.
        """
        key = (shelf, embedder)
        with self._lock:
            known = self._shelves.get(key, _EMPTY)
        row = database.execute("SELECT revision FROM shelf WHERE number = ?", (shelf,)).fetchone()
        if row is None:
            return _EMPTY
        if known.revision != row[0]:
            known = _reread(database, known, row[0], shelf, embedder)
        with self._lock:
            self._shelves[key] = known
            self._shelves.move_to_end(key)
            while len(self._shelves) > 1 and self._bytes > self._most_bytes:
                self._shelves.popitem(last=False)
        return known

    @property
    def is_full(self) -> bool:
        """Whether another shelf would replace one, or there is room for no other."""
        return self._bytes >= self._most_bytes

    @property
    def _bytes(self) -> int:
        return sum(shelf.size for shelf in self._shelves.values())


def _reread(
    database: sqlite3.Connection, known: ShelfVectors, revision: int, shelf: int, embedder: str
) -> ShelfVectors:
    """Read the sources that have changed; copy the others."""
    places: dict[int, _Place] = {}
    end = 0
    for source, of_source in database.execute(
        "SELECT number, revision FROM source"
        " WHERE shelf = ? AND status = 'ENABLED' AND embedder = ? ORDER BY number",
        (shelf, embedder),
    ).fetchall():
        place = known.places.get(source)
        if place is not None and place.revision == of_source:
            count = place.rows.stop - place.rows.start
        else:
            count = database.execute(
                "SELECT count(*) FROM passage_window WHERE source = ?", (source,)
            ).fetchone()[0]
        places[source] = _Place(of_source, slice(end, end + count))
        end += count
    if not end:
        return replace(_EMPTY, revision=revision)
    counts = [place.rows.stop - place.rows.start for place in places.values()]
    sources = np.repeat(np.fromiter(places, np.int64), counts)
    # Filled in place, so that memory never holds the vectors a third time.
    positions = np.empty(end, np.int64)
    vectors = np.empty((end, _dimensions(database, int(sources[0]))), np.float32)
    for source, place in places.items():
        old = known.places.get(source)
        if old is not None and old.revision == place.revision:
            positions[place.rows] = known.positions[old.rows]
            vectors[place.rows] = known.vectors[old.rows]
        else:
            _fill(positions[place.rows], vectors[place.rows], database, source)
    return ShelfVectors(revision, places, sources, positions, vectors)


def _dimensions(database: sqlite3.Connection, source: int) -> int:
    """Return how many numbers the vectors of a source have."""
    row = database.execute(
        "SELECT length(vector) FROM passage_window WHERE source = ? LIMIT 1", (source,)
    ).fetchone()
    return int(row[0]) // np.dtype(np.float32).itemsize


def _fill(
    positions: npt.NDArray[np.int64], vectors: Vectors, database: sqlite3.Connection, source: int
) -> None:
    """Read the windows of one source."""
    cursor = database.execute(
        "SELECT position, vector FROM passage_window WHERE source = ? ORDER BY number", (source,)
    )
    begin = 0
    while rows := cursor.fetchmany(PIECE_ROWS):
        piece = slice(begin, begin + len(rows))
        joined = np.frombuffer(b"".join(row[1] for row in rows), "<f4")
        positions[piece] = [row[0] for row in rows]
        vectors[piece] = joined.reshape(len(rows), -1)
        begin += len(rows)
