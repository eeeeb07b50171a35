"""State that the processes of one server share: sessions, the usage of keys, unused
tokens.

It is a SQLite database: in memory for a server of one process, else a file for that
server, on a RAM disk if there is one, and removed with the server. A statement takes
about 10 microseconds. Each row of counts belongs to one process, and only that one
updates it: a killed process leaves no partial update, and `remove_worker` frees its
sessions.
"""

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from voicechat.errors import AtCapacityError

_LOCK_TIMEOUT_S = 2.0
"""How long to wait for the lock. Other processes hold it for microseconds, unless one
is stopped meanwhile.
"""
_PATIENCE_MS = 20
"""How long an event loop waits for the lock: on a busy machine, a process that holds it
may be without a core for this long.
"""
_LOOK_AGAIN_S = 0.05
_RETRY_S = 5
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
CREATE TABLE IF NOT EXISTS handover (
    call_id TEXT PRIMARY KEY, transfer_to TEXT NOT NULL, expires_s REAL NOT NULL) WITHOUT ROWID;
"""


class Ledger:
    """The database as one process sees it, for use by one thread."""

    def __init__(self, path: Path | None = None, worker: int = 0) -> None:
        """``path`` None: in memory, for this process only. ``worker``: the number of
        this process.
        """
        self.worker = worker
        self._shared = path is not None
        self._on_loop = False
        self._patient = True
        self._turn = asyncio.Lock()
        # Only one thread uses it, but the garbage collector may close it in any thread.
        self._database = sqlite3.connect(
            path or ":memory:",
            timeout=_LOCK_TIMEOUT_S,
            isolation_level=None,
            check_same_thread=False,
        )
        # It need not survive a power failure, and a killed process cannot corrupt a
        # write-ahead log.
        self._database.execute("PRAGMA synchronous = OFF")
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.executescript(_SCHEMA)
        # One cursor for all statements, whose rows are fetched at once: the connection
        # keeps a reference to each cursor for a while.
        self._cursor = self._database.cursor()

    def stop_waiting(self) -> None:
        """From now on wait at most 20 ms for a lock, and only once: after a failed
        write, later writes do not wait until one has succeeded. An event loop awaits
        `until_free` before it writes.
        """
        self._on_loop = True
        self._set_patience(patient=True)

    async def until_free(self) -> None:
        """Wait until no other process has the lock, for 2 s at most.

        Raises ``AtCapacityError`` after that. Cancelling leaves nothing behind.
        """
        if not (self._shared and self._on_loop):
            return
        try:
            async with asyncio.timeout(_LOCK_TIMEOUT_S), self._turn:
                while not self._is_free():  # noqa: ASYNC110 - no event tells of another process
                    await asyncio.sleep(_LOOK_AGAIN_S)
        except TimeoutError:
            raise _busy() from None

    def register_worker(self, pid: int) -> None:
        """Record this worker's process id."""
        self.execute("INSERT OR REPLACE INTO process VALUES (?, ?)", self.worker, pid)

    def processes(self) -> dict[int, int]:
        """Return the process ids of the registered workers."""
        return self.fetch_mapping("SELECT worker, pid FROM process ORDER BY worker")

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Run the body in a transaction that excludes other writers; an exception rolls
        it back. Raises ``AtCapacityError`` while another process has the lock.
        """
        try:
            self._write("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if _is_locked(error):
                raise _busy() from None
            raise
        try:
            yield
        except BaseException:
            self._cursor.execute("ROLLBACK")
            raise
        self._cursor.execute("COMMIT")

    def execute(self, statement: str, *values: object) -> int:
        """Execute a statement; returns how many rows it has changed."""
        return self._write(statement, values).rowcount

    def fetch_row(self, query: str, *values: object) -> tuple[Any, ...] | None:
        """Return the first row of a query or of a RETURNING clause; None without
        rows.
        """
        rows: list[tuple[Any, ...]] = self._cursor.execute(query, values).fetchall()
        return rows[0] if rows else None

    def fetch_mapping(self, query: str, *values: object) -> dict[int, int]:
        """Return the two columns of a query as a mapping."""
        return dict(self._cursor.execute(query, values).fetchall())

    def fetch_value(self, query: str, *values: object) -> Any:
        """Return the single value of a query."""
        found = self.fetch_row(query, *values)
        assert found is not None
        return found[0]

    def remove_worker(self, worker: int) -> None:
        """Free the resources of an ended process. The audio that its keys have used
        stays counted.
        """
        with self.transaction():
            self.execute("DELETE FROM process WHERE worker = ?", worker)
            self.execute("DELETE FROM place WHERE worker = ?", worker)
            self.execute("UPDATE key_use SET sessions = 0 WHERE worker = ?", worker)

    def close(self) -> None:
        """Close the database. Idempotent."""
        self._database.close()

    def _is_free(self) -> bool:
        try:
            self._write("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if _is_locked(error):
                return False
            raise
        self._cursor.execute("ROLLBACK")
        return True

    def _write(self, statement: str, values: tuple[object, ...] = ()) -> sqlite3.Cursor:
        try:
            done = self._cursor.execute(statement, values)
        except sqlite3.OperationalError as error:
            if self._on_loop and self._patient and _is_locked(error):
                self._set_patience(patient=False)
            raise
        if not self._patient:
            self._set_patience(patient=True)
        return done

    def _set_patience(self, *, patient: bool) -> None:
        self._patient = patient
        self._database.execute(f"PRAGMA busy_timeout = {_PATIENCE_MS if patient else 0}")

    def __del__(self) -> None:
        # Nothing is lost if it is not closed, but Python 3.13 warns about unclosed
        # connections.
        if database := getattr(self, "_database", None):
            database.close()


def _is_locked(error: sqlite3.OperationalError) -> bool:
    return error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY


def _busy() -> AtCapacityError:
    return AtCapacityError("the server is busy", _RETRY_S)
