"""A resumption store in a SQLite file, for the processes of one machine.

The states survive the end of every process. They may not survive a power failure, which
lasts longer than clients wait.
"""

import asyncio
import os
import sqlite3
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from voicechat.errors import ConfigError
from voicechat.store.resumption.interface import (
    LEASE_LOST,
    MAX_STATE_BYTES,
    Lease,
    LeaseLostError,
    Renewal,
    ResumptionStore,
    StateTooLargeError,
    StoreUnavailableError,
)

FILE = "resumption.sqlite3"
MAX_FILE_BYTES = 2 << 30
"""Bound of the file: 10,000 conversations of 200 KB."""
_PAGE_BYTES = 4096
_LOCK_TIMEOUT_S = 1.0
"""How long to wait for another process that writes."""
_TOO_LATE = 2
"""Lifetimes. A state that expires later than in two was saved before a reboot. One
lifetime would be too few: another process may have read the clock a moment later.
"""
_SCHEMA = """
CREATE TABLE IF NOT EXISTS counter (id INTEGER PRIMARY KEY CHECK (id = 1), fence INTEGER NOT NULL);
INSERT OR IGNORE INTO counter VALUES (1, 0);
CREATE TABLE IF NOT EXISTS conversation (
    name TEXT PRIMARY KEY, fence INTEGER NOT NULL, owner TEXT NOT NULL, state BLOB,
    ended INTEGER NOT NULL, expires_s REAL NOT NULL);
CREATE INDEX IF NOT EXISTS conversation_by_expiry ON conversation (expires_s);
"""
_PURGE = "DELETE FROM conversation WHERE expires_s <= ? OR expires_s > ?"
_KEEP = "INSERT OR REPLACE INTO conversation VALUES (?, ?, ?, ?, ?, ?)"

T = TypeVar("T")


class SqliteResumptionStore(ResumptionStore):
    """States in a file that only its owner can read, used by one thread.

    The machine's monotonic clock decides what has expired, so setting the wall clock
    changes nothing. After a reboot, that clock begins anew: a state that seems to
    expire later than any can was saved before the reboot, and is dropped.
    """

    def __init__(
        self, path: Path, lifetime_s: float, now_s: Callable[[], float] | None = None
    ) -> None:
        """``lifetime_s``: how long a state is kept after its last save or renewal.
        ``now_s`` is the running event loop's clock unless given.
        """
        self._path = path
        self._lifetime_s = lifetime_s
        self._now_s = now_s or (lambda: asyncio.get_running_loop().time())
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="resumption")
        self._opened: sqlite3.Connection | None = None

    async def start(self) -> None:
        """Create the file. Raises ``ConfigError`` if it cannot be created or read."""
        try:
            await self._run(self._database)
        except StoreUnavailableError as error:
            raise ConfigError(
                f"resumption.store: the file {self._path} cannot be used: {error.__cause__}"
            ) from error

    async def acquire(self, conversation: str, owner: str) -> tuple[Lease, bytes | None]:
        """See ``ResumptionStore.acquire``."""
        now_s = self._now_s()
        return await self._run(lambda: self._acquire(conversation, owner, now_s))

    async def save(self, lease: Lease, state: bytes) -> None:
        """See ``ResumptionStore.save``."""
        if len(state) > MAX_STATE_BYTES:
            raise StateTooLargeError(len(state))
        now_s = self._now_s()
        await self._run(lambda: self._save(lease, state, now_s))

    async def renew(self, leases: Collection[Lease]) -> Renewal:
        """See ``ResumptionStore.renew``."""
        now_s, wanted = self._now_s(), tuple(leases)
        return await self._run(lambda: self._renew(wanted, now_s))

    async def end(self, lease: Lease) -> None:
        """See ``ResumptionStore.end``. That it was ended is kept for a lifetime."""
        now_s = self._now_s()
        await self._run(lambda: self._end(lease, now_s))

    async def aclose(self) -> None:
        """See ``ResumptionStore.aclose``. Waits for the statement in progress."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown(wait=False)

    # --- in the thread ----------------------------------------------------------------

    def _acquire(self, name: str, owner: str, now_s: float) -> tuple[Lease, bytes | None]:
        with self._transaction(now_s) as database:
            (fence,) = database.execute(
                "UPDATE counter SET fence = fence + 1 RETURNING fence"
            ).fetchone()
            kept = database.execute(
                "SELECT state FROM conversation WHERE name = ?", (name,)
            ).fetchone()
            state: bytes | None = kept[0] if kept is not None else None
            lease = Lease(name, owner, fence)
            self._keep(database, lease, state, now_s)
        return lease, state

    def _save(self, lease: Lease, state: bytes, now_s: float) -> None:
        with self._transaction(now_s) as database:
            if _is_lost(database, lease):
                raise LeaseLostError(LEASE_LOST)
            self._keep(database, lease, state, now_s)

    def _renew(self, leases: tuple[Lease, ...], now_s: float) -> Renewal:
        lost, missing = set(), set()
        with self._transaction(now_s) as database:
            for lease in leases:
                if _is_lost(database, lease):
                    lost.add(lease)
                    continue
                renewed = database.execute(
                    "UPDATE conversation SET expires_s = ? WHERE name = ? AND fence = ? "
                    "RETURNING state IS NULL",
                    (now_s + self._lifetime_s, lease.conversation, lease.fence),
                ).fetchone()
                if renewed is None:
                    self._keep(database, lease, None, now_s)
                if renewed is None or renewed[0]:
                    missing.add(lease)
        return Renewal(frozenset(lost), frozenset(missing))

    def _end(self, lease: Lease, now_s: float) -> None:
        with self._transaction(now_s) as database:
            if not _is_lost(database, lease):
                self._keep(database, lease, None, now_s, ended=True)

    def _keep(
        self,
        database: sqlite3.Connection,
        lease: Lease,
        state: bytes | None,
        now_s: float,
        *,
        ended: bool = False,
    ) -> None:
        expires_s = now_s + self._lifetime_s
        row = (lease.conversation, lease.fence, lease.owner, state, ended, expires_s)
        database.execute(_KEEP, row)

    @contextmanager
    def _transaction(self, now_s: float) -> Iterator[sqlite3.Connection]:
        """Run the body in a transaction that excludes other writers, after the expired
        states were deleted.
        """
        database = self._database()
        database.execute("BEGIN IMMEDIATE")
        try:
            database.execute(_PURGE, (now_s, now_s + _TOO_LATE * self._lifetime_s))
            yield database
        except BaseException:
            if database.in_transaction:  # a full disk has ended it already
                database.execute("ROLLBACK")
            raise
        database.execute("COMMIT")

    def _database(self) -> sqlite3.Connection:
        if self._opened is not None:
            return self._opened
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # SQLite gives its two other files the permissions of this one.
        os.close(os.open(self._path, os.O_CREAT | os.O_RDWR, 0o600))
        database = sqlite3.connect(
            self._path, timeout=_LOCK_TIMEOUT_S, isolation_level=None, check_same_thread=False
        )
        try:
            database.execute("PRAGMA journal_mode = WAL")
            # A killed process loses nothing; only a power failure may.
            database.execute("PRAGMA synchronous = NORMAL")
            database.execute("PRAGMA secure_delete = ON")
            database.execute(f"PRAGMA max_page_count = {MAX_FILE_BYTES // _PAGE_BYTES}")
            database.executescript(_SCHEMA)
        except BaseException:
            database.close()
            raise
        self._opened = database
        return database

    def _close(self) -> None:
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    async def _run(self, work: Callable[[], T]) -> T:
        """Run ``work`` in the store's thread. Cancelling leaves it undone, or done."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except (OSError, sqlite3.Error) as error:
            raise StoreUnavailableError(f"{type(error).__name__}: {error}") from error


def _is_lost(database: sqlite3.Connection, lease: Lease) -> bool:
    kept = database.execute(
        "SELECT fence, owner, ended FROM conversation WHERE name = ?", (lease.conversation,)
    ).fetchone()
    if kept is None or kept[0] < lease.fence:
        return False
    return (kept[0], kept[1]) != (lease.fence, lease.owner) or bool(kept[2])
