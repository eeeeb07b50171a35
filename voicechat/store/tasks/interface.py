"""What a task is, and what a store of tasks must promise."""

import math
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol, TypeAlias

from voicechat.errors import AdmissionError, Status, VoiceChatError

Payload: TypeAlias = Mapping[str, str | int | float | bool | None]
"""What the work needs to know; kept as JSON."""

MAX_ATTEMPTS = 5
"""Attempts that may die with their process before a task counts as poison."""


class TaskStatus(Enum):
    """Where a task stands, by the wire contract's names."""

    WAITING = "waiting"
    DOING = "doing"
    SUCCESS = "success"
    FAILED = "failed"

    @property
    def finished(self) -> bool:
        """Whether it will stay so."""
        return self in (TaskStatus.SUCCESS, TaskStatus.FAILED)


def may_see(owner: str, owned_by: str) -> bool:
    """Whether ``owner`` may see a task of ``owned_by``: its own, and those of whom it
    vouches for.
    """
    return owned_by == owner or owned_by.startswith(f"{owner}/")


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """A task as it is handed in."""

    owner: str
    """Whose task it is: nobody else can see it, but an owner whose name and a slash it
    begins with.
    """
    share: str = ""
    """Whose share of the workers the task takes; empty: the owner's."""
    payload: Payload
    fingerprint: str
    """A digest of the whole request: two of one idempotency key must agree in it."""
    idempotency_key: str = ""
    """Empty: the same request twice makes two tasks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTask:
    """A task as its owner sees it. ``progress`` is 0 to 1; ``attempt`` counts from 1
    once the work has begun.
    """

    id: str
    owner: str
    payload: Payload
    status: TaskStatus
    created_s: int
    progress: float = 0.0
    attempt: int = 0
    result: str = ""
    """What the work gave; empty until then."""
    error: str = ""
    """Why it failed: one of our own words, such as ``undecodable``."""


@dataclass(frozen=True, slots=True)
class Stock:
    """What there is of tasks."""

    values: set[str] = field(default_factory=set)
    """Of their payloads: whose files are still needed."""
    tasks_of: Counter[str] = field(default_factory=Counter)
    """How many each owner has."""
    recent: set[str] = field(default_factory=set)
    """Ids of those that were handed in lately."""


class TaskFailedError(VoiceChatError):
    """The work cannot be done, however often it is tried. ``reason`` is shown to the
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
"""Tells how far the work is, 0 to 1. Returns at once; what is told too often is thinned
out.
"""

Work: TypeAlias = Callable[[StoredTask, ReportProgress], Awaitable[str]]
"""Does a task and gives its result. It may be done again from the start, when a process
dies, and must then give the same. Raises ``TaskFailedError``; anything else is a bug
and fails the task as ``internal``. It is cancelled when the task is deleted or the
store closes.
"""


class TaskStore(Protocol):
    """Tasks that survive their processes. All methods raise ``AdmissionError``
    (``AT_CAPACITY``) without a database.

    Every task that ``submit_task`` has returned ends in exactly one result, unless it is
    deleted before. No share of the workers can keep the tasks of the others from being
    begun.
    """

    async def submit_task(self, submission: Submission) -> tuple[StoredTask, bool]:
        """Write a task down, and return it when it is durable; the second is False when
        it was there already.

        Raises ``IdempotencyConflictError``. Cancelling leaves open whether the task
        exists.
        """

    async def find_task(self, owner: str, task_id: str) -> StoredTask | None:
        """Return one task that an owner may see; None also for what belongs to another."""

    async def newest_tasks(self, owner: str, limit: int) -> list[StoredTask]:
        """Return the newest tasks of an owner itself, newest first."""

    async def delete_task(self, owner: str, task_id: str) -> StoredTask | None:
        """Delete a task, stopping its work, and return what it was; None: there is
        none.
        """

    async def expire_tasks(self, finished_before_s: float) -> None:
        """Forget tasks that were finished, or deleted, before that Unix time."""

    async def count_tasks(self, key: str, since_s: float = math.inf) -> "Stock":
        """Look through all tasks that exist, and collect what their payloads hold under
        ``key``.

        ``since_s`` is the Unix time from which on a task counts as recent. Tasks that
        come or go meanwhile may be counted or not.
        """

    async def aclose(self) -> None:
        """Stop the work in progress, which another process or the next start does
        again.
        """
