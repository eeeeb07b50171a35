"""Detects dead executors: each holds a lock that the operating system or the database
releases when it dies.

No clocks are compared and no lease expires: a process that is killed, or whose machine
is lost, loses its lock, and one that merely stalls keeps it. The methods block for some
milliseconds. ``hold`` and ``inherit`` are called by one thread at a time; ``release``
may run during a call whose caller has given up.
"""

import hashlib
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from voicechat.errors import VoiceChatError

if TYPE_CHECKING:
    import psycopg

_CONNECT_TIMEOUT_S = 5
_KEEPALIVE_IDLE_S = 10
_KEEPALIVE_COUNT = 3
"""With the idle time before it, the lock of a lost machine is free after about 40 s, on
either side.
"""


class LivenessUnknownError(VoiceChatError):
    """Liveness is unknown: there is no connection to the locks. Retry later."""


class Liveness(Protocol):
    """The lock of one executor, and checks of other executors' locks.

    Methods raise ``LivenessUnknownError``.
    """

    def hold(self) -> None:
        """Acquire this executor's lock, or acquire it again if it was lost."""

    def inherit(self, executor_id: str) -> AbstractContextManager[bool]:
        """Hold another executor's lock while the context lasts. Yields False if that
        executor is alive.
        """

    def release(self) -> None:
        """Release the lock permanently: from now on this executor counts as dead."""


class FileLiveness:
    """Locks for the processes of one machine: a file for each, exclusively locked
    through SQLite, which is portable.
    """

    def __init__(self, folder: Path, executor_id: str) -> None:
        self._folder = folder
        self._path = folder / f"{executor_id}.lock"
        self._held: sqlite3.Connection | None = None
        self._holding = threading.Lock()
        self._released = False

    def hold(self) -> None:
        """Acquire this executor's lock; see ``Liveness.hold``."""
        with self._holding:
            if self._released:
                raise LivenessUnknownError("this executor has ended")
            if self._held is not None:
                return
            try:
                self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                for path in self._folder.glob("*.lock"):
                    with self.inherit(path.stem):
                        pass  # inheriting removes the files of dead executors
                self._held = _locked(self._path)
            except (OSError, sqlite3.Error) as error:
                raise LivenessUnknownError(f"{self._path}: {error}") from error

    @contextmanager
    def inherit(self, executor_id: str) -> Iterator[bool]:
        """Hold another executor's lock; leaving the context removes a dead executor's
        file.
        """
        path = self._folder / f"{executor_id}.lock"
        try:
            lock = _locked(path)
        except sqlite3.Error:
            yield False
            return
        with closing(lock):
            yield True
            with suppress(OSError):  # a file that stays is harmless
                path.unlink()

    def release(self) -> None:
        """Release the lock. A late ``hold`` must not make this executor look alive
        again.
        """
        with self._holding:
            self._released = True
            if self._held is not None:
                self._held.close()
                self._held = None
                with suppress(OSError):
                    self._path.unlink()


def _locked(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
    try:
        connection.execute(
            "PRAGMA journal_mode = MEMORY"
        )  # no second file: nothing is ever written
        connection.execute("BEGIN EXCLUSIVE")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


class PostgresLiveness:
    """Locks for the processes of several machines: PostgreSQL's session-level advisory
    locks, released with their connection.

    The connection must go directly to the database: behind a pooler that shares
    sessions, the locks have no effect.
    """

    def __init__(self, url: str, executor_id: str) -> None:
        # Imported only with the store: it comes with DBOS and costs 40 ms.
        import psycopg

        self._psycopg = psycopg
        self._url = url
        self._key = _lock_key(executor_id)
        self._connection: psycopg.Connection[tuple[bool]] | None = None
        self._holding = threading.Lock()
        self._released = False

    def hold(self) -> None:
        """Acquire this executor's lock; see ``Liveness.hold``."""
        with self._holding:
            if self._released:
                raise LivenessUnknownError("this executor has ended")
            try:
                if self._connection is not None:
                    with suppress(self._psycopg.OperationalError):
                        self._connection.execute("SELECT true")
                        return
                    self._disconnect()
                self._connection = self._connect()
                self._connection.execute("SELECT pg_advisory_lock(%s)", (self._key,))
            except self._psycopg.Error as error:
                self._disconnect()
                raise LivenessUnknownError("no connection for the executors' locks") from error

    @contextmanager
    def inherit(self, executor_id: str) -> Iterator[bool]:
        """Hold another executor's lock; see ``Liveness.inherit``."""
        key, connection = _lock_key(executor_id), self._connection
        if connection is None:
            raise LivenessUnknownError("no connection for the executors' locks")
        if not self._try_lock(connection, key):
            yield False
            return
        try:
            yield True
        finally:
            with suppress(self._psycopg.Error):  # without the connection the lock is released too
                connection.execute("SELECT pg_advisory_unlock(%s)", (key,))

    def release(self) -> None:
        """Release the lock. A late ``hold`` must not make this executor look alive
        again.
        """
        with self._holding:
            self._released = True
            if self._connection is not None:
                with suppress(
                    self._psycopg.Error
                ):  # closing releases it too, but only when the database notices
                    self._connection.execute("SELECT pg_advisory_unlock_all()")
            self._disconnect()

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _connect(self) -> "psycopg.Connection[tuple[bool]]":
        connection = self._psycopg.connect(
            self._url,
            autocommit=True,
            connect_timeout=_CONNECT_TIMEOUT_S,
            keepalives_idle=_KEEPALIVE_IDLE_S,
            keepalives_interval=_KEEPALIVE_IDLE_S,
            keepalives_count=_KEEPALIVE_COUNT,
        )
        try:
            connection.execute(f"SET lock_timeout = '{_CONNECT_TIMEOUT_S}s'")
            connection.execute(f"SET tcp_keepalives_idle = {_KEEPALIVE_IDLE_S}")
            connection.execute(f"SET tcp_keepalives_interval = {_KEEPALIVE_IDLE_S}")
            connection.execute(f"SET tcp_keepalives_count = {_KEEPALIVE_COUNT}")
        except self._psycopg.Error:
            connection.close()
            raise
        return connection

    def _try_lock(self, connection: "psycopg.Connection[tuple[bool]]", key: int) -> bool:
        try:
            row = connection.execute("SELECT pg_try_advisory_lock(%s)", (key,)).fetchone()
        except self._psycopg.Error as error:
            raise LivenessUnknownError("no connection for the executors' locks") from error
        return row is not None and row[0]


def _lock_key(executor_id: str) -> int:
    """Return the signed 64-bit number that names an executor's advisory lock."""
    digest = hashlib.sha256(f"voicechat task executor {executor_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)
