import sqlite3
from datetime import UTC, datetime

from voicechat.store.tasks.sqlite_clock import define_unixepoch


def test_sqlite_of_any_version_tells_fractions_of_a_second() -> None:
    connection = sqlite3.connect(":memory:")
    define_unixepoch(connection, None)
    before_s = datetime.now(UTC).timestamp()
    connection.execute("CREATE TABLE t (ms INTEGER NOT NULL DEFAULT (unixepoch('subsec') * 1000))")
    connection.execute("INSERT INTO t DEFAULT VALUES")
    ((stored_ms,),) = connection.execute("SELECT ms FROM t")
    connection.close()
    assert before_s <= stored_ms / 1000 <= datetime.now(UTC).timestamp()
