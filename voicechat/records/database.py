"""The database of the records: SQLite for one machine, PostgreSQL for several. Both run
the same statements, with ``?`` for values.
"""

import sqlite3
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from voicechat.errors import ConfigError, VoiceChatError
from voicechat.store.private_database import PrivateDatabase

if TYPE_CHECKING:
    import psycopg

SCHEMA_NAME = "voicechat_records"
LOCK_TIMEOUT_S = 10.0
CONNECT_S = 10
STATEMENT_S = 30
_MIGRATION_LOCK = 0x766F6963_72656373
"""The key of the advisory lock under which one process makes the tables."""
SCHEMA = (
    "CREATE TABLE record (id TEXT PRIMARY KEY, place TEXT NOT NULL, writer TEXT NOT NULL, "
    "state TEXT NOT NULL, project TEXT NOT NULL, key_id TEXT NOT NULL, person TEXT NOT NULL, "
    "caller TEXT NOT NULL, device TEXT NOT NULL, agent TEXT NOT NULL, dialect TEXT NOT NULL, "
    "mode TEXT NOT NULL, began_ms BIGINT NOT NULL, duration_ms BIGINT NOT NULL DEFAULT 0, "
    "turns BIGINT NOT NULL DEFAULT 0, interruptions BIGINT NOT NULL DEFAULT 0, "
    "failures BIGINT NOT NULL DEFAULT 0, gaps BIGINT NOT NULL DEFAULT 0, "
    "slowest_ms BIGINT, opening TEXT NOT NULL DEFAULT '', ending TEXT NOT NULL DEFAULT '', "
    "audio_bytes BIGINT NOT NULL DEFAULT 0, expires_ms BIGINT NOT NULL)",
    "CREATE INDEX record_of_project ON record (project, began_ms)",
    "CREATE INDEX record_of_state ON record (state)",
    "CREATE TABLE record_word (word TEXT NOT NULL, record TEXT NOT NULL, "
    "PRIMARY KEY (word, record)){clustered}",
    "CREATE INDEX word_of_record ON record_word (record)",
    "CREATE TABLE session_usage (session TEXT PRIMARY KEY, day TEXT NOT NULL, "
    "project TEXT NOT NULL, key_id TEXT NOT NULL, agent TEXT NOT NULL, "
    "length_ms BIGINT NOT NULL, heard_ms BIGINT NOT NULL, spoken_ms BIGINT NOT NULL, "
    "prompt_tokens BIGINT NOT NULL, completion_tokens BIGINT NOT NULL, "
    "characters BIGINT NOT NULL)",
    "CREATE INDEX usage_of_project ON session_usage (project, day)",
    "CREATE TABLE delivery (id TEXT PRIMARY KEY, record TEXT NOT NULL, body TEXT NOT NULL, "
    "due_ms BIGINT NOT NULL, attempts BIGINT NOT NULL, created_ms BIGINT NOT NULL)",
    "CREATE INDEX delivery_due ON delivery (due_ms)",
)


class RecordsUnavailableError(VoiceChatError):
    """The database does not answer now."""


class RecordTransaction(ABC):
    """A transaction in progress."""

    @abstractmethod
    def rows(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Execute a query, and return its rows."""

    @abstractmethod
    def change(self, statement: str, *values: object) -> int:
        """Execute a statement, and return how many rows it has changed."""

    @abstractmethod
    def change_many(self, statement: str, rows: Sequence[Sequence[object]]) -> None:
        """Execute a statement for each of the rows."""


class RecordDatabase(ABC):
    """Usable from any thread, each of which gets its own connection."""

    @abstractmethod
    def open(self) -> None:
        """Make the tables, unless they exist. Raises ``ConfigError`` and
        ``RecordsUnavailableError``.
        """

    @abstractmethod
    @contextmanager
    def transaction(self, *, writes: bool = True) -> Iterator[RecordTransaction]:
        """Run the body in a transaction, which an exception rolls back. Raises
        ``RecordsUnavailableError``.
        """
        yield NotImplemented

    @abstractmethod
    def forget_traces(self) -> None:
        """Remove what deleted rows have left in the database's files, if these are
        ours.
        """

    @abstractmethod
    def close(self) -> None:
        """Close all connections."""


class SqliteRecordDatabase(RecordDatabase):
    """One file, which only its owner can read. Deleted content is overwritten."""

    def __init__(self, path: Path) -> None:
        schema = [statement.format(clustered=" WITHOUT ROWID") for statement in SCHEMA]
        self._file = PrivateDatabase(path, "records", [schema])
        self._of_thread = threading.local()
        self._all: list[sqlite3.Connection] = []

    def open(self) -> None:
        """See ``RecordDatabase.open``."""
        with self._file.transaction():
            pass
        try:
            with closing(self._connect()) as database:
                # Readers do not wait for writers.
                database.execute("PRAGMA journal_mode = WAL")
        except sqlite3.Error as error:
            raise self._file.unusable(error) from error

    @contextmanager
    def transaction(self, *, writes: bool = True) -> Iterator[RecordTransaction]:
        """See ``RecordDatabase.transaction``."""
        try:
            database: sqlite3.Connection | None = getattr(self._of_thread, "database", None)
            if database is None:
                database = self._of_thread.database = self._connect()
                self._all.append(database)
            database.execute("BEGIN IMMEDIATE" if writes else "BEGIN")
            try:
                yield _SqliteTransaction(database)
                database.execute("COMMIT")
            except BaseException:
                if database.in_transaction:  # some errors have rolled it back already
                    database.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise RecordsUnavailableError(f"the database of the records: {error}") from error

    def _connect(self) -> sqlite3.Connection:
        database = sqlite3.connect(
            self._file.path, timeout=LOCK_TIMEOUT_S, isolation_level=None, check_same_thread=False
        )
        database.execute("PRAGMA secure_delete = ON")
        database.execute("PRAGMA synchronous = NORMAL")
        return database

    def forget_traces(self) -> None:
        """See ``RecordDatabase.forget_traces``: the write-ahead log may still hold
        deleted rows.
        """
        try:
            with closing(self._connect()) as database:
                database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.Error as error:
            raise RecordsUnavailableError(f"the database of the records: {error}") from error

    def close(self) -> None:
        """See ``RecordDatabase.close``."""
        for database in self._all:
            database.close()
        self._all.clear()
        self._of_thread = threading.local()


class _SqliteTransaction(RecordTransaction):
    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    def rows(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        return self._database.execute(statement, values).fetchall()

    def change(self, statement: str, *values: object) -> int:
        return self._database.execute(statement, values).rowcount

    def change_many(self, statement: str, rows: Sequence[Sequence[object]]) -> None:
        self._database.executemany(statement, rows)


class PostgresRecordDatabase(RecordDatabase):
    """A schema of its own, which many machines may use."""

    def __init__(self, url: str) -> None:
        """``url``: ``postgresql://...``. Raises ``ConfigError`` without psycopg."""
        try:
            import psycopg
        except ImportError as error:
            raise ConfigError(
                "records.database_url: needs pip install 'voicechat[transcription]'"
            ) from error
        self._psycopg = psycopg
        self._url = url
        self._of_thread = threading.local()
        self._all: list[psycopg.Connection[Any]] = []

    def open(self) -> None:
        """See ``RecordDatabase.open``."""
        with self.transaction() as database:
            database.rows("SELECT pg_advisory_xact_lock(?)::text", _MIGRATION_LOCK)
            database.change(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA_NAME}")
            made = database.rows(
                "SELECT 1 FROM pg_tables WHERE schemaname = ? AND tablename = 'record'", SCHEMA_NAME
            )
            for statement in () if made else SCHEMA:
                database.change(statement.format(clustered=""))

    @contextmanager
    def transaction(self, *, writes: bool = True) -> Iterator[RecordTransaction]:
        """See ``RecordDatabase.transaction``."""
        try:
            database = self._connection()
            with database.transaction():
                yield _PostgresTransaction(database)
        except (self._psycopg.Error, OSError) as error:
            # Its message may hold values of a row.
            raise RecordsUnavailableError(
                f"the database of the records: {type(error).__name__}"
            ) from None

    def _connection(self) -> "psycopg.Connection[Any]":
        known: psycopg.Connection[Any] | None = getattr(self._of_thread, "database", None)
        if known is None or known.closed:
            known = self._of_thread.database = self._psycopg.connect(
                self._url,
                autocommit=True,
                connect_timeout=CONNECT_S,
                options=f"-c search_path={SCHEMA_NAME} -c statement_timeout={STATEMENT_S}s",
            )
            self._all = [each for each in self._all if not each.closed] + [known]
        return known

    def forget_traces(self) -> None:
        """See ``RecordDatabase.forget_traces``: PostgreSQL's own vacuum does it."""

    def close(self) -> None:
        """See ``RecordDatabase.close``."""
        for database in self._all:
            database.close()
        self._all.clear()
        self._of_thread = threading.local()


class _PostgresTransaction(RecordTransaction):
    def __init__(self, database: "psycopg.Connection[Any]") -> None:
        self._database = database

    def rows(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        return self._database.execute(_translated(statement), values).fetchall()

    def change(self, statement: str, *values: object) -> int:
        return self._database.execute(_translated(statement), values or None).rowcount

    def change_many(self, statement: str, rows: Sequence[Sequence[object]]) -> None:
        with self._database.cursor() as cursor:
            cursor.executemany(_translated(statement), rows)


def _translated(statement: str) -> bytes:
    return statement.replace("?", "%s").encode()


def open_database(url: str, folder: Path) -> RecordDatabase:
    """Return the database of ``url``, or the SQLite file in ``folder`` if that is
    empty. Raises ``ConfigError``.
    """
    return PostgresRecordDatabase(url) if url else SqliteRecordDatabase(folder / "index.sqlite")
