"""The interface of a task store."""

import math
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol, TypeAlias

from voicechat.errors import AdmissionError, Status, VoiceChatError

Payload: TypeAlias = Mapping[str, str | int | float | bool | None]
"""The input of the work, stored as JSON."""

MAX_ATTEMPTS = 5
"""Attempts that may die with their process before a task counts as poison."""


class TaskStatus(Enum):
    """The state of a task, by the wire contract's names."""

    WAITING = "waiting"
    DOING = "doing"
    SUCCESS = "success"
    FAILED = "failed"

    @property
    def finished(self) -> bool:
        """Whether the state is final."""
        return self in (TaskStatus.SUCCESS, TaskStatus.FAILED)


def may_see(owner: str, owned_by: str) -> bool:
    """Return whether ``owner`` may see a task of ``owned_by``: its own tasks and those
    of its sub-owners.
    """
    return owned_by == owner or owned_by.startswith(f"{owner}/")


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """A task to submit."""

    owner: str
    """The owner of the task. The task is visible to it and to its parent: the owner
    whose name, plus a slash, begins this name.
    """
    share: str = ""
    """The share of the workers that the task uses; empty: the owner's."""
    payload: Payload
    fingerprint: str
    """A digest of the whole request. Two requests with the same idempotency key must
    have the same digest.
    """
    idempotency_key: str = ""
    """If empty, submitting the same request twice creates two tasks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTask:
    """A task as its owner sees it.

    ``progress`` is 0 to 1; ``attempt`` counts from 1 once the work has begun.
    """

    id: str
    owner: str
    payload: Payload
    status: TaskStatus
    created_s: int
    progress: float = 0.0
    attempt: int = 0
    result: str = ""
    """The result of the work; empty until it has succeeded."""
    error: str = ""
    """Why it failed: one of this server's codes, such as ``undecodable``."""


@dataclass(frozen=True, slots=True)
class TaskSummary:
    """A summary of all stored tasks."""

    values: set[str] = field(default_factory=set)
    """Values of their payloads, such as the files that are still needed."""
    tasks_of: Counter[str] = field(default_factory=Counter)
    """The number of each owner's tasks."""
    recent: set[str] = field(default_factory=set)
    """Ids of recently submitted tasks."""


class TaskFailedError(VoiceChatError):
    """The work cannot succeed, however often it is retried. ``reason`` is shown to the
    owner.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class IdempotencyConflictError(AdmissionError):
    """The idempotency key has been used for another request."""

    def __init__(self) -> None:
        super().__init__(Status.NOT_ALLOWED_NOW, "Idempotency-Key: it was used for another request")


ReportProgress: TypeAlias = Callable[[float], None]
"""Reports progress from 0 to 1. Returns at once; frequent reports are thinned out."""

Work: TypeAlias = Callable[[StoredTask, ReportProgress], Awaitable[str]]
"""Performs a task and returns its result.

It may be called again from the start when a process dies, and must then return the same
result. Raises ``TaskFailedError``; any other exception is a bug and fails the task as
``internal``. It is cancelled when the task is deleted or the store closes.
"""


class TaskStore(Protocol):
    """Tasks that survive their processes. Without a database all methods raise
    ``AdmissionError`` (``AT_CAPACITY``).

    Every task that ``submit_task`` has returned ends in exactly one result, unless it
    is deleted before. No share of the workers can keep the tasks of other shares from
    being started.
    """

    async def submit_task(self, submission: Submission) -> tuple[StoredTask, bool]:
        """Store a task, and return it when it is durable, with False if it existed
        already.

        Raises ``IdempotencyConflictError``. After a cancellation the task may or may
        not exist.
        """

    async def find_task(self, owner: str, task_id: str) -> StoredTask | None:
        """Return a task that an owner may see; None if it does not exist or belongs to
        another.
        """

    async def newest_tasks(self, owner: str, limit: int) -> list[StoredTask]:
        """Return the newest tasks of exactly this owner, the newest first."""

    async def delete_task(self, owner: str, task_id: str) -> StoredTask | None:
        """Delete a task, stopping its work, and return it; None if it does not
        exist.
        """

    async def expire_tasks(self, finished_before_s: float) -> None:
        """Delete tasks that were finished, or deleted, before that Unix time."""

    async def count_tasks(self, key: str, since_s: float = math.inf) -> "TaskSummary":
        """Scan all tasks, and collect the values of their payloads under ``key``.

        ``since_s`` is the Unix time from which on a task counts as recent. Tasks that
        appear or disappear meanwhile may or may not be counted.
        """

    async def aclose(self) -> None:
        """Stop the work in progress. Another process or the next start repeats it."""
