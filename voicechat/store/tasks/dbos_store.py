"""Tasks on DBOS Transact: one workflow each, in SQLite (one machine) or PostgreSQL
(several machines).

DBOS provides: a row that is committed before a task is acknowledged, a queue that hands
each task to one executor, and outcomes that only the execution which owns the task can
write, so that a result is written once even if an execution is late. DBOS leaves one
thing to its paid service, and this module does it: finding the tasks of executors that
died (`liveness`).

Importing this module costs 0.4 s and 45 MB. A process has one DBOS, and therefore at
most one open store.
"""

import asyncio
import hashlib
import json
import logging
import math
import secrets
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar

from dbos import DBOS, DBOSPortableJSONSerializer, EnqueueOptions, WorkflowStatus, error
from sqlalchemy.exc import SQLAlchemyError

from voicechat.errors import AdmissionError, Status
from voicechat.store.tasks.interface import (
    MAX_ATTEMPTS,
    IdempotencyConflictError,
    Payload,
    StoredTask,
    Submission,
    TaskFailedError,
    TaskSummary,
    Work,
    may_see,
)
from voicechat.store.tasks.liveness import Liveness, LivenessUnknownError
from voicechat.store.tasks.sqlite_clock import mend_sqlite_clock
from voicechat.store.tasks.workflows import (
    STATUS,
    as_task,
    attributes_of,
    payload_of,
    without_contents,
)

QUEUE = "voicechat-tasks"
WORKFLOW = "voicechat-task"
FORMAT_VERSION = "1"
"""Version of payloads and results, and DBOS' application version: executors take only
tasks of their own version.
"""
ANSWER_S = 10.0
"""How long a caller waits for the database; DBOS itself would retry without limit."""
RETRY_S = 1.0
CLOSE_S = 2.0
CALL_THREADS = 4
PROGRESS_S = 1.0
"""Least time between two writes of progress."""
PAGE_TASKS = 500
SHARES = 4
"""Shares of the workers that can be fully busy at once."""

T = TypeVar("T")
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreSettings:
    """Where tasks are stored, and how they are performed."""

    database_url: str
    """``sqlite:///PATH`` or ``postgresql://...``."""
    executor_id: str
    """This process' name, which no earlier process may have used."""
    workers: int = 2
    """Tasks of one share that this process performs at once."""
    max_attempts: int = MAX_ATTEMPTS
    poll_s: float = 0.5
    """How often the queue is polled."""
    adopt_s: float = 5.0
    """How often to search for tasks of dead executors."""


class DbosTaskStore:
    """A ``TaskStore``. Between ``open`` and ``aclose`` it also performs tasks."""

    def __init__(self, settings: StoreSettings, liveness: Liveness, work: Work) -> None:
        self._settings = settings
        self._liveness = liveness
        self._work = work
        self._threads = ThreadPoolExecutor(CALL_THREADS, "tasks")
        self._loop: asyncio.AbstractEventLoop | None = None
        self._adopting: asyncio.Task[None] | None = None
        self._attempts: dict[str, int] = {}
        self._dbos: DBOS | None = None

    async def open(self) -> None:
        """Migrate the database and start performing tasks.

        Raises ``AdmissionError`` when the database cannot be used.
        """
        global _open_store
        if _open_store is not None:
            raise RuntimeError("another task store is open in this process")
        self._loop = asyncio.get_running_loop()
        _open_store = self
        try:
            await self._call(self._launch, timeout_s=6 * ANSWER_S)
        except BaseException:
            await self.aclose()
            raise
        self._adopting = self._loop.create_task(
            self._adopt_regularly(), name="adopt tasks of the dead"
        )

    async def aclose(self) -> None:
        """Stop the work in progress; see ``TaskStore.aclose``. Idempotent."""
        global _open_store
        if self._loop is None:
            return
        try:
            if self._adopting is not None:
                self._adopting.cancel()
                await asyncio.wait([self._adopting])
            await asyncio.to_thread(self._stop_dequeuing)
            with suppress(AdmissionError):
                # A clean shutdown is not a failed attempt: only a task that kills its
                # process counts as poison.
                await self._call(self._take_attempts_back, timeout_s=CLOSE_S)
            await asyncio.to_thread(DBOS.destroy)
            await asyncio.to_thread(self._liveness.release)
        finally:
            self._threads.shutdown(wait=False, cancel_futures=True)
            self._loop = _open_store = None

    # --- requests of clients ----------------------------------------------------------

    async def submit_task(self, submission: Submission) -> tuple[StoredTask, bool]:
        """Store a task; see ``TaskStore.submit_task``."""
        task_id = _task_id(submission)
        options: EnqueueOptions = {
            "workflow_name": WORKFLOW,
            "queue_name": QUEUE,
            "workflow_id": task_id,
            "workflow_id_reuse_policy": "reject",
            "app_version": FORMAT_VERSION,
            "authenticated_user": submission.owner,
            "queue_partition_key": submission.share or submission.owner,
            "attributes": {"fingerprint": submission.fingerprint},
        }
        is_new = await self._call(lambda: _enqueue(options, submission.payload))
        (workflow,) = await self._find(task_id, submission.owner) or (None,)
        if workflow is None or workflow.status == "CANCELLED":
            raise AdmissionError(Status.NOT_ALLOWED_NOW, "the task has just been deleted")
        if attributes_of(workflow).get("fingerprint") != submission.fingerprint:
            raise IdempotencyConflictError
        return as_task(workflow), is_new

    async def find_task(self, owner: str, task_id: str) -> StoredTask | None:
        """Return a task that an owner may see; see ``TaskStore.find_task``."""
        found = await self._find(task_id, owner)
        return as_task(found[0]) if found and found[0].status != "CANCELLED" else None

    async def newest_tasks(self, owner: str, limit: int) -> list[StoredTask]:
        """Return an owner's newest tasks; see ``TaskStore.newest_tasks``."""
        found = await self._call(
            lambda: DBOS.list_workflows(
                user=owner, name=WORKFLOW, status=list(STATUS), sort_desc=True, limit=limit
            )
        )
        return [as_task(workflow) for workflow in found]

    async def delete_task(self, owner: str, task_id: str) -> StoredTask | None:
        """Delete a task; see ``TaskStore.delete_task``."""
        task = await self.find_task(owner, task_id)
        if task is None:
            return None
        if task.status.finished:
            await self._call(lambda: DBOS.delete_workflow(task_id))
        else:
            # The row stays until it expires, so that the executor sees the
            # cancellation.
            await self._call(lambda: DBOS.cancel_workflow(task_id))
        return task

    async def expire_tasks(self, finished_before_s: float) -> None:
        """Delete old finished tasks; see ``TaskStore.expire_tasks``."""
        before = datetime.fromtimestamp(finished_before_s, UTC).isoformat()
        while ids := await self._call(lambda: _finished_before(before)):
            await self._call(lambda ids=ids: DBOS.delete_workflows(ids))  # type: ignore[misc]

    async def count_tasks(self, key: str, since_s: float = math.inf) -> TaskSummary:
        """Scan all tasks; see ``TaskStore.count_tasks``."""
        summary = TaskSummary()
        offset = 0
        while page := await self._call(lambda offset=offset: _page(offset)):  # type: ignore[misc]
            summary.values.update(
                str(payload_of(workflow)[key]) for workflow in page if key in payload_of(workflow)
            )
            summary.tasks_of.update(workflow.authenticated_user or "" for workflow in page)
            recent = [workflow for workflow in page if (workflow.created_at or 0) >= since_s * 1000]
            summary.recent.update(workflow.workflow_id for workflow in recent)
            offset += len(page)
        return summary

    async def _find(self, task_id: str, owner: str) -> list[WorkflowStatus]:
        found = await self._call(lambda: DBOS.list_workflows(workflow_ids=[task_id], name=WORKFLOW))
        return [workflow for workflow in found if may_see(owner, workflow.authenticated_user or "")]

    async def _call(self, call: Callable[[], T], timeout_s: float = ANSWER_S) -> T:
        """Call the database in a thread. After a cancellation the call finishes by
        itself.
        """
        try:
            async with asyncio.timeout(timeout_s):
                return await asyncio.get_running_loop().run_in_executor(self._threads, call)
        except (
            TimeoutError,
            SQLAlchemyError,
            error.DBOSException,
            LivenessUnknownError,
        ) as failure:
            logger.error("the task database does not answer: %s", type(failure).__name__)
            raise AdmissionError(
                Status.AT_CAPACITY, "tasks cannot be reached now; try again"
            ) from failure

    async def _call_until_answered(self, call: Callable[[], T]) -> T:
        """Retry until the database answers, because the work must not fail while the
        database is unreachable.

        Ends when the task is cancelled.
        """
        while True:
            with suppress(AdmissionError):
                return await self._call(call)
            await asyncio.sleep(RETRY_S)

    # --- performing tasks -------------------------------------------------------------

    def _launch(self) -> None:
        settings = self._settings
        self._liveness.hold()
        mend_sqlite_clock()
        self._dbos = DBOS(
            config={
                "name": "voicechat",
                "system_database_url": settings.database_url,
                "executor_id": settings.executor_id,
                "application_version": FORMAT_VERSION,
                "serializer": DBOSPortableJSONSerializer(),
                "log_level": "ERROR",
                # Notifications are not used; the interval only bounds how long closing
                # takes.
                "notification_listener_polling_interval_sec": 2 * settings.poll_s,
                "max_executor_threads": SHARES * settings.workers + CALL_THREADS,
            }
        )
        logging.getLogger("dbos").addFilter(without_contents)
        DBOS.launch()
        DBOS.register_queue(
            QUEUE,
            worker_concurrency=SHARES * settings.workers,
            partition_worker_concurrency=settings.workers,
            polling_interval_sec=settings.poll_s,
            on_conflict="always_update",
        )

    def _stop_dequeuing(self) -> None:
        """Stop the queue threads: one that handed a task to a stopped event loop would
        log an error.
        """
        if self._dbos is not None:
            for event in self._dbos.background_thread_stop_events:
                event.set()
        for thread in threading.enumerate():
            # A thread that is listed but not running yet cannot be joined, and will
            # find the event set.
            if thread.name.startswith("queue-worker-") and thread.is_alive():
                thread.join(CLOSE_S)

    def _take_attempts_back(self) -> None:
        for task_id, attempt in list(self._attempts.items()):
            DBOS.update_workflow_attributes(task_id, {"attempt": attempt - 1}, merge=True)

    async def perform(self, task_id: str) -> dict[str, str]:
        """Perform one task on this store's event loop, and return its outcome.

        Called on DBOS' own loop.
        """
        assert self._loop is not None
        return await asyncio.wrap_future(
            asyncio.run_coroutine_threadsafe(self._perform(task_id), self._loop)
        )

    async def _perform(self, task_id: str) -> dict[str, str]:
        workflow = await self._call_until_answered(lambda: DBOS.get_workflow_status(task_id))
        if workflow is None:
            raise asyncio.CancelledError
        task = as_task(workflow)
        # Count the attempt before the work begins, so that it counts even if it kills
        # the process.
        attempt = task.attempt + 1
        if attempt > self._settings.max_attempts:
            return {"error": "attempts_exhausted"}
        await self._call_until_answered(
            lambda: DBOS.update_workflow_attributes(task_id, {"attempt": attempt}, merge=True)
        )
        self._attempts[task_id] = attempt
        try:
            progress = _Progress()
            async with asyncio.TaskGroup() as group:
                writing = group.create_task(self._write_progress(task_id, progress))
                outcome = await self._outcome(task, progress)
                writing.cancel()
            return outcome
        finally:
            self._attempts.pop(task_id, None)

    async def _outcome(self, task: StoredTask, progress: "_Progress") -> dict[str, str]:
        try:
            return {"result": await self._work(task, progress.report)}
        except TaskFailedError as failure:
            return {"error": failure.reason}
        except Exception as failure:  # noqa: BLE001 - whatever it is, it is this task's alone
            # Do not log the message, which may contain what a person said.
            logger.error("task %s failed: %s", task.id, type(failure).__name__)
            return {"error": "internal"}

    async def _write_progress(self, task_id: str, progress: "_Progress") -> None:
        while True:
            await asyncio.sleep(PROGRESS_S)
            attributes = {"progress": round(progress.done, 3)}
            with suppress(AdmissionError):  # the next write may succeed
                update = partial(DBOS.update_workflow_attributes, task_id, attributes, merge=True)
                await self._call(update)

    # --- tasks of dead executors ------------------------------------------------------

    async def _adopt_regularly(self) -> None:
        while True:
            try:
                await self._call(self._adopt)
            except AdmissionError:
                logger.warning("dead executors cannot be told from living ones now")
            await asyncio.sleep(self._settings.adopt_s)

    def _adopt(self) -> None:
        """Requeue the tasks of executors that have died."""
        self._liveness.hold()
        executors = {workflow.executor_id or "" for workflow in _doing()}
        for executor_id in executors - {self._settings.executor_id}:
            with self._liveness.inherit(executor_id) as is_dead:
                # No other process can inherit meanwhile, so none of the tasks listed
                # now can have been restarted.
                orphans = (
                    [workflow.workflow_id for workflow in _doing(executor_id)] if is_dead else []
                )
                if orphans:
                    logger.warning("taking over %d tasks of an executor that died", len(orphans))
                    DBOS.resume_workflows(orphans, queue_name=QUEUE)


_open_store: DbosTaskStore | None = None


@DBOS.step(name="work", preemptible=True)
async def _step(task_id: str) -> dict[str, str]:
    if _open_store is None:  # the process is ending: another one will perform it
        raise asyncio.CancelledError
    return await _open_store.perform(task_id)


@DBOS.workflow(name=WORKFLOW, max_recovery_attempts=None)
async def _workflow(payload: dict[str, Any]) -> dict[str, str]:
    task_id = DBOS.workflow_id
    assert task_id is not None
    return await _step(task_id)


class _Progress:
    def __init__(self) -> None:
        self.done = 0.0

    def report(self, done: float) -> None:
        self.done = min(1.0, max(self.done, done))


def _enqueue(options: EnqueueOptions, payload: Payload) -> bool:
    try:
        DBOS.enqueue_workflow_with_options(options, dict(payload))
    except error.DBOSWorkflowIDInUseError:
        return False
    return True


def _doing(executor_id: str | None = None) -> list[WorkflowStatus]:
    return DBOS.list_workflows(
        status="PENDING",
        name=WORKFLOW,
        executor_id=executor_id,
        load_input=False,
        load_output=False,
    )


def _finished_before(before: str) -> list[str]:
    ended = ["SUCCESS", "ERROR", "MAX_RECOVERY_ATTEMPTS_EXCEEDED", "CANCELLED"]
    found = DBOS.list_workflows(
        status=ended,
        name=WORKFLOW,
        completed_before=before,
        limit=PAGE_TASKS,
        load_input=False,
        load_output=False,
    )
    return [workflow.workflow_id for workflow in found]


def _page(offset: int) -> list[WorkflowStatus]:
    return DBOS.list_workflows(name=WORKFLOW, limit=PAGE_TASKS, offset=offset, load_output=False)


def _task_id(submission: Submission) -> str:
    """Return a random id, or an id derived from owner and idempotency key if one is
    given.
    """
    if not submission.idempotency_key:
        return secrets.token_hex(16)
    name = json.dumps([submission.owner, submission.idempotency_key])
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:32]
