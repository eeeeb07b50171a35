"""Knowledge stores for the tests: SQLite always, PostgreSQL in the long ones."""

import secrets
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psycopg
import pytest

from tests.postgres import postgres_url
from voicechat.knowledge.interface import KnowledgeStore
from voicechat.knowledge.postgres_store import PostgresKnowledgeStore
from voicechat.knowledge.sqlite_store import SqliteKnowledgeStore

__all__ = ["postgres_url"]
CACHE_BYTES = 1 << 20
DATABASES = ["sqlite", pytest.param("postgresql", marks=pytest.mark.long)]

OpenStore = Callable[[], KnowledgeStore]


@pytest.fixture(params=DATABASES)
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> OpenStore:
    """Open a store of one database, as a process of its own would."""
    if request.param == "sqlite":
        return lambda: SqliteKnowledgeStore(tmp_path / "knowledge.sqlite3", CACHE_BYTES)
    address = new_database(request.getfixturevalue("postgres_url"))
    return lambda: PostgresKnowledgeStore(address)


@pytest.fixture
async def store(open_store: OpenStore) -> AsyncIterator[KnowledgeStore]:
    """A store that is empty."""
    opened = open_store()
    await opened.start()
    yield opened
    await opened.aclose()


def new_database(server: str) -> str:
    """Make an empty database; returns its address."""
    name = f"knowledge_{secrets.token_hex(4)}"
    with psycopg.connect(server, autocommit=True) as connection:
        if not connection.execute(
            "SELECT 1 FROM pg_available_extensions WHERE name = 'vector'"
        ).fetchone():
            pytest.skip("needs pgvector (Debian: apt-get install postgresql-17-pgvector)")
        connection.execute(f"CREATE DATABASE {name}".encode())
    return f"{server.rpartition('/')[0]}/{name}"
