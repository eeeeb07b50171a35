"""A task store that is loaded with the first task: only then is DBOS imported and are
its threads started.
"""

import asyncio
import importlib
import logging
import math
import secrets
from dataclasses import dataclass
from pathlib import Path

from voicechat.errors import AdmissionError, Status
from voicechat.store.tasks.interface import (
    MAX_ATTEMPTS,
    StoredTask,
    Submission,
    TaskStore,
    TaskSummary,
    Work,
)
from voicechat.store.tasks.liveness import FileLiveness, PostgresLiveness

logger = logging.getLogger(__name__)

DATABASE_FILE = "tasks.sqlite3"
LOCK_FOLDER = "executors"


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSettings:
    """Where tasks are stored, and how many are performed at once."""

    folder: Path
    """For the SQLite file and the executors' locks; readable by this user only."""
    database_url: str = ""
    """``postgresql://...`` for several machines; empty: SQLite in ``folder``."""
    workers: int = 2
    """Tasks of one share that one process performs at once; all shares together may
    have ``SHARES`` times as many.
    """
    max_attempts: int = MAX_ATTEMPTS
    poll_s: float = 0.5
    adopt_s: float = 5.0

    @property
    def used_before(self) -> bool:
        """Whether there may be stored tasks."""
        return bool(self.database_url) or (self.folder / DATABASE_FILE).exists()


class OnDemandTaskStore:
    """A ``TaskStore`` that ``start`` opens if there may be stored tasks; otherwise the
    first submission does.
    """

    def __init__(self, settings: TaskSettings, work: Work) -> None:
        self._settings = settings
        self._work = work
        self._opening = asyncio.Lock()
        self._store: TaskStore | None = None
        self._closed = False

    async def start(self) -> None:
        """Resume stored tasks. Raises ``AdmissionError`` when the database cannot be
        used.
        """
        await self._opened_if_used()

    async def submit_task(self, submission: Submission) -> tuple[StoredTask, bool]:
        """Store a task; see ``TaskStore.submit_task``. The first one takes about 1 s
        longer.
        """
        return await (await self._opened()).submit_task(submission)

    async def find_task(self, owner: str, task_id: str) -> StoredTask | None:
        """Return a task that an owner may see; see ``TaskStore.find_task``."""
        store = await self._opened_if_used()
        return await store.find_task(owner, task_id) if store else None

    async def newest_tasks(self, owner: str, limit: int) -> list[StoredTask]:
        """Return an owner's newest tasks; see ``TaskStore.newest_tasks``."""
        store = await self._opened_if_used()
        return await store.newest_tasks(owner, limit) if store else []

    async def delete_task(self, owner: str, task_id: str) -> StoredTask | None:
        """Delete a task; see ``TaskStore.delete_task``."""
        store = await self._opened_if_used()
        return await store.delete_task(owner, task_id) if store else None

    async def expire_tasks(self, finished_before_s: float) -> None:
        """Delete old finished tasks; see ``TaskStore.expire_tasks``."""
        if store := await self._opened_if_used():
            await store.expire_tasks(finished_before_s)

    async def count_tasks(self, key: str, since_s: float = math.inf) -> TaskSummary:
        """Scan all tasks; see ``TaskStore.count_tasks``."""
        store = await self._opened_if_used()
        return await store.count_tasks(key, since_s) if store else TaskSummary()

    async def aclose(self) -> None:
        """Stop the work in progress; see ``TaskStore.aclose``."""
        self._closed = True
        async with self._opening:
            if self._store is not None:
                await self._store.aclose()
                self._store = None

    async def _opened_if_used(self) -> TaskStore | None:
        return await self._opened() if self._store or self._settings.used_before else None

    async def _opened(self) -> TaskStore:
        async with self._opening:
            if self._closed:
                raise RuntimeError("the task store is closed")
            if self._store is None:
                # Import in a thread: it takes 0.4 s, which would stall this process'
                # conversations.
                await asyncio.to_thread(importlib.import_module, "voicechat.store.tasks.dbos_store")
                self._store = await open_task_store(self._settings, self._work)
            return self._store


async def open_task_store(settings: TaskSettings, work: Work) -> TaskStore:
    """Open the store that the settings describe. Raises ``AdmissionError`` when the
    database cannot be used.
    """
    from voicechat.store.tasks.dbos_store import DbosTaskStore, StoreSettings

    # A new id for each start: tasks with an old id belong to a dead executor.
    executor_id = secrets.token_hex(8)
    database_url = settings.database_url
    if database_url:
        liveness: FileLiveness | PostgresLiveness = PostgresLiveness(database_url, executor_id)
    else:
        try:
            await asyncio.to_thread(_make_private_file, settings.folder / DATABASE_FILE)
        except OSError as error:
            logger.error("the task database cannot be made: %s", error.strerror)
            raise AdmissionError(
                Status.AT_CAPACITY, "tasks cannot be taken now; try again"
            ) from error
        database_url = f"sqlite:///{settings.folder / DATABASE_FILE}"
        liveness = FileLiveness(settings.folder / LOCK_FOLDER, executor_id)
    store = DbosTaskStore(
        StoreSettings(
            database_url=database_url,
            executor_id=executor_id,
            workers=settings.workers,
            max_attempts=settings.max_attempts,
            poll_s=settings.poll_s,
            adopt_s=settings.adopt_s,
        ),
        liveness,
        work,
    )
    await store.open()
    return store


def _make_private_file(path: Path) -> None:
    """Create the file before SQLite does: it will hold results, so only this user may
    read it.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.touch(mode=0o600)
