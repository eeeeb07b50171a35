"""What the processes of one server must know in common: who is in, what keys have used,
which tokens wait.

A SQLite database: in memory for a server of one process, else a file of that server's
own, on a RAM disk where there is one, which goes with it. Each statement takes some 10
microseconds. A row that counts belongs to one process, which alone adds to it: a
process that is killed leaves nothing half counted, and `forget` takes back what it
held.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_LOCK_TIMEOUT_S = 2.0
"""Others hold the lock for microseconds; only one that is stopped in the middle holds
it longer.
"""
_SCHEMA = """
CREATE TABLE IF NOT EXISTS process (worker INTEGER PRIMARY KEY, pid INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS place (
    worker INTEGER, kind TEXT, taken INTEGER NOT NULL, PRIMARY KEY (kind, worker)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS key_use (
    worker INTEGER, key_id TEXT, sessions INTEGER NOT NULL, day INTEGER NOT NULL,
    audio_ms INTEGER NOT NULL,
    PRIMARY KEY (key_id, worker)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS key_rate (key_id TEXT PRIMARY KEY, until_s REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS token (
    digest BLOB PRIMARY KEY, key_id TEXT NOT NULL, grant TEXT NOT NULL,
    expires_s REAL NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS token_of_key ON token (key_id);
"""


class Ledger:
    """The database, as one process sees it. Used by one thread."""

    def __init__(self, path: Path | None = None, worker: int = 0) -> None:
        """``path`` None: nobody else looks. ``worker``: which process of the server
        this is.
        """
        self.worker = worker
        # Its user keeps to one thread; the garbage collector, which may be what closes
        # it, runs in any.
        self._database = sqlite3.connect(
            path or ":memory:",
            timeout=_LOCK_TIMEOUT_S,
            isolation_level=None,
            check_same_thread=False,
        )
        # It need not outlive the machine's power; a killed process cannot harm a
        # write-ahead log.
        self._database.execute("PRAGMA synchronous = OFF")
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.executescript(_SCHEMA)
        # One for all statements, whose rows are fetched at once: the connection
        # remembers each cursor for a while.
        self._cursor = self._database.cursor()

    def register_worker(self, pid: int) -> None:
        """Say which process this worker is."""
        self.write("INSERT OR REPLACE INTO process VALUES (?, ?)", self.worker, pid)

    def processes(self) -> dict[int, int]:
        """The process ids of the workers that have enrolled and not been forgotten."""
        return self.numbers("SELECT worker, pid FROM process ORDER BY worker")

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Nobody else writes meanwhile; an exception takes back what was written."""
        self._cursor.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._cursor.execute("ROLLBACK")
            raise
        self._cursor.execute("COMMIT")

    def write(self, statement: str, *values: object) -> int:
        """Execute a statement; gives how many rows it has changed."""
        return self._cursor.execute(statement, values).rowcount

    def fetch_row(self, query: str, *values: object) -> tuple[Any, ...] | None:
        """Give the first row of a query, or of a statement's RETURNING."""
        rows: list[tuple[Any, ...]] = self._cursor.execute(query, values).fetchall()
        return rows[0] if rows else None

    def numbers(self, query: str, *values: object) -> dict[int, int]:
        """Give the two columns of a query as a mapping."""
        return dict(self._cursor.execute(query, values).fetchall())

    def number(self, query: str, *values: object) -> Any:
        """Give the one number that a query asks for."""
        found = self.fetch_row(query, *values)
        assert found is not None
        return found[0]

    def remove_worker(self, worker: int) -> None:
        """Take back what a process held that has ended. What its keys have used stays
        used.
        """
        with self.transaction():
            self.write("DELETE FROM process WHERE worker = ?", worker)
            self.write("DELETE FROM place WHERE worker = ?", worker)
            self.write("UPDATE key_use SET sessions = 0 WHERE worker = ?", worker)

    def close(self) -> None:
        """Close the database. Idempotent."""
        self._database.close()

    def __del__(self) -> None:
        # Nothing is lost with one that is just let go, and Python 3.13 warns of
        # connections that are.
        if database := getattr(self, "_database", None):
            database.close()
