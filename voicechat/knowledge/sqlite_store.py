"""A knowledge store in a SQLite file, for one machine. It needs no server and no
extension of SQLite.

Vectors are searched in memory (`VectorCache`).
"""

import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from voicechat.knowledge import statements
from voicechat.knowledge.interface import Finding, SourceKind, Vector
from voicechat.knowledge.ranking import Ranked
from voicechat.knowledge.search_process import SearchProcess
from voicechat.knowledge.sql_store import SqlKnowledgeStore
from voicechat.knowledge.vector_cache import VectorCache
from voicechat.store.private_database import PrivateDatabase

LOCK_TIMEOUT_S = 30.0
"""How long a writer waits for another process. The longest transaction, the passages of
a file of 100 MB, takes some seconds.
"""
RETRY_S = 0.02
PAGE_CACHE_KIB = 16 * 1024
"""Memory of each connection for pages of the file."""
_TYPES = {
    "key": "INTEGER PRIMARY KEY AUTOINCREMENT",  # never the number of a deleted row
    "real": "REAL",
    "blob": "BLOB",
    "vector": "BLOB",
    "clustered": "WITHOUT ROWID",
}
_MIGRATIONS = [[statement.format(**_TYPES) for statement in statements.SCHEMA]]


class SqliteKnowledgeStore(SqlKnowledgeStore):
    """A `KnowledgeStore` in one file, which several processes may use."""

    def __init__(
        self, path: Path, vector_cache_bytes: int, process: SearchProcess | None = None
    ) -> None:
        """``vector_cache_bytes``: memory of this process for the vectors of the
        knowledge bases that were searched last. ``process`` searches in its place, and
        is this store's own.
        """
        super().__init__((sqlite3.Error, OSError))
        self._file = PrivateDatabase(path, "knowledge", _MIGRATIONS)
        self._cache = VectorCache(vector_cache_bytes)
        self._of_thread = threading.local()
        self._all: list[SqliteConnection] = []
        self._process = process

    @property
    def in_use(self) -> bool:
        """Whether the file exists."""
        return self._file.exists

    async def start(self) -> None:
        """See ``KnowledgeStore.start``."""
        await super().start()
        if self._process is not None:
            await self._process.start()

    async def aclose(self) -> None:
        """See ``KnowledgeStore.aclose``."""
        if self._process is not None:
            await self._process.aclose()
        await super().aclose()

    async def by_words(
        self, kind: SourceKind, project: str, bases: Sequence[str], text: str, limit: int
    ) -> list[Finding]:
        """See ``KnowledgeStore.by_words``."""
        if self._process is None:
            return await super().by_words(kind, project, bases, text, limit)
        await self.start()
        return await self._process.by_words(kind, project, bases, text, limit)

    async def by_vector(
        self,
        kind: SourceKind,
        project: str,
        bases: Sequence[str],
        vector: Vector,
        limit: int,
        *,
        embedder: str,
    ) -> list[Finding]:
        """See ``KnowledgeStore.by_vector``."""
        where = (kind, project, bases)
        if self._process is None:
            return await super().by_vector(*where, vector, limit, embedder=embedder)
        await self.start()
        return await self._process.by_vector(*where, vector, limit, embedder=embedder)

    def load_vectors(self) -> None:
        """Read the vectors of the knowledge bases with the newest files into memory,
        until it is full; blocks.
        """
        with self.transaction(writes=False) as database:
            database.load_vectors()

    def open(self) -> None:
        """Create or migrate the file. Raises ``ConfigError``."""
        with self._file.transaction():
            pass
        try:
            _log_ahead(self._file.path)
        except sqlite3.Error as error:
            raise self._file.unusable(error) from error

    @contextmanager
    def transaction(self, *, writes: bool) -> Iterator["SqliteConnection"]:
        """See ``SqlKnowledgeStore.transaction``."""
        connection: SqliteConnection | None = getattr(self._of_thread, "connection", None)
        if connection is None:
            connection = SqliteConnection(self._file.path, self._cache)
            self._of_thread.connection = connection
            self._all.append(connection)
        with connection.transaction(writes=writes):
            yield connection

    def close(self) -> None:
        """See ``SqlKnowledgeStore.close``."""
        for connection in self._all:
            connection.close()
        self._all.clear()


def _log_ahead(path: Path) -> None:
    """Have SQLite write ahead to a log: readers then do not wait for writers. A power
    failure may lose the last seconds, and never damages the file.

    The file remembers it. SQLite does not wait for other connections when it changes
    this, so it is tried until they have ended their transactions.
    """
    with closing(sqlite3.connect(path, timeout=LOCK_TIMEOUT_S)) as database:
        for tries_left in reversed(range(round(LOCK_TIMEOUT_S / RETRY_S))):
            try:
                database.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or not tries_left:
                    raise
                time.sleep(RETRY_S)


class SqliteConnection:
    """A `SqlConnection`."""

    def __init__(self, path: Path, cache: VectorCache) -> None:
        self._cache = cache
        # Another thread closes it, after this one has ended.
        self._database = sqlite3.connect(
            path, timeout=LOCK_TIMEOUT_S, isolation_level=None, check_same_thread=False
        )
        self._database.execute(f"PRAGMA cache_size = -{PAGE_CACHE_KIB}")

    @contextmanager
    def transaction(self, *, writes: bool) -> Iterator[None]:
        """Run the body in a transaction. One that ``writes`` first waits for others,
        because SQLite refuses to write after another has written since the first read.
        """
        self._database.execute("BEGIN IMMEDIATE" if writes else "BEGIN")
        try:
            yield
        except BaseException:
            self._database.execute("ROLLBACK")
            raise
        self._database.execute("COMMIT")

    def close(self) -> None:
        """Close the connection."""
        self._database.close()

    def execute(self, statement: str, values: Sequence[Any] = ()) -> sqlite3.Cursor:
        """See ``SqlConnection.execute``."""
        return self._database.execute(statement, values)

    def executemany(self, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        """See ``SqlConnection.executemany``."""
        self._database.executemany(statement, rows)

    def load_vectors(self) -> None:
        """See ``SqliteKnowledgeStore.load_vectors``."""
        shelves = self._database.execute(
            "SELECT shelf, embedder FROM source WHERE status = 'ENABLED' AND embedder <> ''"
            " GROUP BY shelf, embedder ORDER BY max(number) DESC"
        ).fetchall()
        for shelf, embedder in shelves:
            self._cache.read(self._database, shelf, embedder)
            if self._cache.is_full:
                break

    def stored_vector(self, vector: Vector) -> bytes:
        """See ``SqlConnection.stored_vector``."""
        return vector.astype("<f4").tobytes()

    def nearest(
        self, shelves: Sequence[int], vector: Vector, limit: int, embedder: str
    ) -> list[Ranked]:
        """See ``SqlConnection.nearest``."""
        best = [
            ranked
            for shelf in shelves
            for ranked in self._cache.read(self._database, shelf, embedder).nearest(vector, limit)
        ]
        return sorted(best, key=lambda ranked: -ranked.score)[:limit]
