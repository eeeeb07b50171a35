"""A SQLite file that only its owner can read, with locking and migrations."""

import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from voicechat.errors import ConfigError

_LOCK_TIMEOUT_S = 2.0
"""How long to wait for another process that writes."""


class PrivateDatabase:
    """One file, usable from any thread. Each use opens it and blocks for some
    milliseconds of disk access, or up to two seconds while another process writes. Disk
    and lock errors are raised as ConfigError.
    """

    def __init__(self, path: Path, what: str, migrations: Sequence[Sequence[str]]) -> None:
        """``what`` names the file in errors. ``migrations`` are groups of statements.
        The file's ``user_version`` is the number of groups that have been applied.
        """
        self.path = path
        self._what = what
        self._migrations = tuple(map(tuple, migrations))
        self._lock = threading.Lock()
        """Only one thread writes at a time, because threads would wait for each other
        anyway.
        """

    @property
    def exists(self) -> bool:
        """Whether the file exists. The first transaction creates it."""
        return self.path.exists()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Run the body in a transaction. A new file is made readable only by its owner
        before SQLite writes to it.
        """
        try:
            with self._lock:
                self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                self._make()
                with (
                    closing(sqlite3.connect(self.path, timeout=_LOCK_TIMEOUT_S)) as database,
                    database,
                ):
                    self._migrate(database)
                    yield database
        except (OSError, sqlite3.Error) as error:
            raise self.unusable(error) from error

    def read(self, query: str) -> Sequence[Any] | None:
        """Query without write access, because the disk may be full or the folder may
        belong to another user.

        Returns None if a write is needed first: a migration, or the recovery after a
        crash.
        """
        address = f"{self.path.absolute().as_uri()}?mode=ro"
        try:
            with closing(sqlite3.connect(address, timeout=_LOCK_TIMEOUT_S, uri=True)) as database:
                if not self._is_current(database):
                    return None
                return database.execute(query).fetchall()
        except sqlite3.Error as error:
            if error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN):
                return None
            raise self.unusable(error) from error

    def unusable(self, error: Exception) -> ConfigError:
        """Return the error that explains why the file cannot be used."""
        return ConfigError(f"the {self._what} file {self.path} cannot be used: {error}")

    def _make(self) -> None:
        """Create the file unless it exists.

        An existing file is not opened, because closing it would release the locks that
        SQLite's connections of this process hold on it (POSIX;
        sqlite.org/howtocorrupt.html, 2.2).
        """
        if not self.exists:
            os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))

    def _is_current(self, database: sqlite3.Connection) -> bool:
        done = database.execute("PRAGMA user_version").fetchone()[0]
        return bool(done >= len(self._migrations))

    def _migrate(self, database: sqlite3.Connection) -> None:
        """Migrate an older file. Of two concurrent processes, the second has nothing
        left to do.
        """
        if self._is_current(database):
            return
        database.execute("BEGIN IMMEDIATE")
        done = database.execute("PRAGMA user_version").fetchone()[0]
        for statements in self._migrations[done:]:
            for statement in statements:
                database.execute(statement)
        database.execute(f"PRAGMA user_version = {len(self._migrations)}")
        database.commit()

    def __reduce__(
        self,
    ) -> tuple[type["PrivateDatabase"], tuple[Path, str, Sequence[Sequence[str]]]]:
        """Pickle only the arguments: each worker has its own lock."""
        return PrivateDatabase, (self.path, self._what, self._migrations)
