"""A knowledge store in PostgreSQL with pgvector, for several machines."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from voicechat.errors import ConfigError
from voicechat.knowledge import statements
from voicechat.knowledge.interface import Vector
from voicechat.knowledge.ranking import Ranked
from voicechat.knowledge.sql_store import SqlKnowledgeStore

if TYPE_CHECKING:
    import psycopg

SCHEMA_NAME = "voicechat_knowledge"
CONNECT_S = 10
STATEMENT_S = 60
"""How long a statement may take. The longest writes the words of a file of 100 MB."""
_MIGRATION_LOCK = 0x766F6963_6B6E6F77
"""The key of the advisory lock under which one process makes the tables."""
_TYPES = {
    "key": "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY",
    "real": "DOUBLE PRECISION",
    "blob": "BYTEA",
    "vector": "vector",
    "clustered": "",
}


class PostgresKnowledgeStore(SqlKnowledgeStore):
    """A `KnowledgeStore` in a schema of its own, which many processes may use."""

    def __init__(self, url: str) -> None:
        """``url``: ``postgresql://...``. Its user may create a schema, and the
        extension ``vector`` unless it exists.
        """
        # Imported here, because it costs 40 ms and only this store needs it.
        import psycopg

        super().__init__((psycopg.Error, OSError))
        self._psycopg = psycopg
        self._url = url
        self._of_thread = threading.local()
        self._all: list[psycopg.Connection[Any]] = []

    @property
    def in_use(self) -> bool:
        """True: other machines may have stored something."""
        return True

    def open(self) -> None:
        """Make the tables, unless another process has. Raises ``ConfigError`` without
        pgvector.
        """
        with self._connected() as database, database.transaction():
            database.execute("SELECT pg_advisory_xact_lock(%s)", (_MIGRATION_LOCK,))
            self._ensure_extension(database)
            database.execute(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA_NAME}".encode())
            made = database.execute(
                "SELECT 1 FROM pg_tables WHERE schemaname = %s AND tablename = 'shelf'",
                (SCHEMA_NAME,),
            )
            if made.fetchone() is None:
                for statement in statements.SCHEMA:
                    database.execute(statement.format(**_TYPES).encode())

    def _ensure_extension(self, database: "psycopg.Connection[Any]") -> None:
        found = database.execute("SELECT 1 FROM pg_extension WHERE extname = 'vector'").fetchone()
        if found is not None:
            return
        try:
            database.execute("CREATE EXTENSION vector SCHEMA public")
        except self._psycopg.Error as error:
            raise ConfigError(
                "knowledge.database_url: the database needs the extension pgvector, and its "
                "user may not or cannot create it: install pgvector on its server, and run "
                "CREATE EXTENSION vector as its superuser"
            ) from error

    @contextmanager
    def transaction(self, *, writes: bool) -> Iterator["PostgresConnection"]:
        """See ``SqlKnowledgeStore.transaction``."""
        with self._connected() as database, database.transaction():
            if not writes:
                # All that one search reads is of one moment.
                database.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            yield PostgresConnection(database)

    def close(self) -> None:
        """See ``SqlKnowledgeStore.close``."""
        for connection in self._all:
            connection.close()
        self._all.clear()

    @contextmanager
    def _connected(self) -> Iterator["psycopg.Connection[Any]"]:
        """Return this thread's connection, made anew after it was lost."""
        connection: psycopg.Connection[Any] | None = getattr(self._of_thread, "connection", None)
        if connection is None or connection.closed or self._is_stale(connection):
            connection = self._connect()
            self._of_thread.connection = connection
            self._all = [known for known in self._all if not known.closed] + [connection]
        yield connection

    def _is_stale(self, connection: "psycopg.Connection[Any]") -> bool:
        """Whether the server has ended the connection, as at its restart."""
        try:
            connection.execute("SELECT 1")
        except self._psycopg.OperationalError:
            connection.close()
            return True
        return False

    def _connect(self) -> "psycopg.Connection[Any]":
        return self._psycopg.connect(
            self._url,
            autocommit=True,
            connect_timeout=CONNECT_S,
            options=(
                f"-c search_path={SCHEMA_NAME},public -c statement_timeout={STATEMENT_S}s "
                f"-c lock_timeout={STATEMENT_S}s"
            ),
        )


class PostgresConnection:
    """A `SqlConnection`."""

    def __init__(self, database: "psycopg.Connection[Any]") -> None:
        self._database = database

    def execute(self, statement: str, values: Sequence[Any] = ()) -> Any:
        """See ``SqlConnection.execute``."""
        return self._database.execute(_translated(statement), values)

    def executemany(self, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        """See ``SqlConnection.executemany``."""
        with self._database.cursor() as cursor:
            cursor.executemany(_translated(statement), rows)

    def stored_vector(self, vector: Vector) -> str:
        """See ``SqlConnection.stored_vector``."""
        return _written(vector)

    def nearest(
        self, shelves: Sequence[int], vector: Vector, limit: int, embedder: str
    ) -> list[Ranked]:
        """See ``SqlConnection.nearest``. All vectors of the shelves are compared."""
        rows = self._database.execute(
            # Materialized, so that cosines are sorted by passage and not the vectors.
            "WITH near AS MATERIALIZED ("
            "SELECT source, position, -(vector <#> %s::vector) AS cosine FROM passage_window"
            " WHERE source IN (SELECT number FROM source"
            " WHERE shelf = ANY(%s) AND status = 'ENABLED' AND embedder = %s))"
            " SELECT source, position, max(cosine) AS best FROM near"
            " GROUP BY source, position ORDER BY best DESC, source, position LIMIT %s",
            (_written(vector), list(shelves), embedder, limit),
        )
        return [Ranked(*row) for row in rows]


def _translated(statement: str) -> bytes:
    """Write the places for values as psycopg does."""
    return statement.replace("?", "%s").encode()


def _written(vector: Vector) -> str:
    """Write a vector as pgvector reads it, with all digits of float32."""
    return f"[{','.join(map(str, vector.astype(np.float32).tolist()))}]"
