"""Adds the clock function that DBOS needs to old SQLite libraries.

On Python 3.12 and later, DBOS reads the time as ``unixepoch('subsec')``. SQLite knows
``subsec`` since 3.42; an older library, such as the 3.40 of Debian 12, returns NULL,
and no task could be stored.
"""

import sqlite3
from datetime import UTC, datetime

from sqlalchemy import event
from sqlalchemy.engine import Engine

SUBSEC_SINCE = (3, 42, 0)
"""Version of SQLite that introduced ``subsec`` (its release notes of 2023-05-16)."""


def mend_sqlite_clock() -> None:
    """Define ``unixepoch('subsec')`` on SQLite connections opened from now on.

    Does nothing if the library supports it.
    """
    if sqlite3.sqlite_version_info < SUBSEC_SINCE and not event.contains(
        Engine, "connect", define_unixepoch
    ):
        event.listen(Engine, "connect", define_unixepoch)


def define_unixepoch(connection: object, _record: object) -> None:
    """Define ``unixepoch('subsec')``: Unix time in seconds, a real number."""
    if isinstance(connection, sqlite3.Connection):
        connection.create_function("unixepoch", 1, _unix_s)


def _unix_s(_modifier: str) -> float:
    return datetime.now(UTC).timestamp()
