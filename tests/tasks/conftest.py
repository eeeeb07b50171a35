"""StoredTask stores for the tests: in SQLite always, in PostgreSQL where there is
one.
"""

import asyncio
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from tests.postgres import postgres_url
from voicechat.store.tasks.interface import ReportProgress, StoredTask
from voicechat.store.tasks.on_demand import DATABASE_FILE, TaskSettings, open_task_store

__all__ = ["postgres_url"]
PREPARED = "prepared"
"""The PostgreSQL database that new ones are copied from."""


def _prepare(settings: TaskSettings) -> None:
    """Make the tables and the queue once: a store that finds them takes up its first
    task a second sooner.
    """

    async def no_work(task: StoredTask, report: ReportProgress) -> str:
        raise AssertionError("nothing is submitted")

    async def open_and_close() -> None:
        store = await open_task_store(settings, no_work)
        await store.aclose()

    # In a thread, so that pytest's own event loop stays what it is.
    with ThreadPoolExecutor(1) as threads:
        threads.submit(lambda: asyncio.run(open_and_close())).result()


@pytest.fixture(scope="session")
def _prepared_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prepared")
    _prepare(TaskSettings(folder=folder))
    assert not folder.joinpath(DATABASE_FILE + "-wal").exists()
    return folder / DATABASE_FILE


@pytest.fixture
def tasks_folder(tmp_path: Path, _prepared_database: Path) -> Path:
    """A folder for a SQLite task store, with its empty database."""
    folder = tmp_path / "tasks"
    folder.mkdir(mode=0o700)
    shutil.copy(_prepared_database, folder)
    return folder


@pytest.fixture(scope="session")
def prepared_postgres_url(postgres_url: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The server's address, once it has the database ``PREPARED``."""
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {PREPARED}".encode())
    prepared = postgres_url.rpartition("/")[0] + f"/{PREPARED}"
    _prepare(TaskSettings(folder=tmp_path_factory.mktemp("postgres"), database_url=prepared))
    return postgres_url
