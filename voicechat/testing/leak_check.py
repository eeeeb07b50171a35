"""Leak checks: tasks, sockets, threads and child processes that code leaves behind."""

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

_DESCRIPTORS = Path("/proc/self/fd")
_TASKS = Path("/proc/self/task")
_POLL_S = 0.01
_watched: ContextVar["TaskTracker | None"] = ContextVar("watched", default=None)


class TaskTracker:
    """Tracks the tasks started by ``start_task`` and by their descendants, and no other
    tasks of the loop.
    """

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def start_task(self, work: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        """Run ``work`` as a tracked task."""
        context = copy_context()
        context.run(_watched.set, self)
        return asyncio.get_running_loop().create_task(work, context=context)

    def add_task(self, task: "asyncio.Task[Any]") -> None:
        """Track a task."""
        self._tasks.add(task)

    @property
    def left(self) -> list[str]:
        """The names of the coroutines of tracked tasks that have not ended."""
        return sorted(_name(task) for task in self._tasks if not task.done())


@contextmanager
def tracking_tasks() -> Iterator[TaskTracker]:
    """Install a task factory that feeds the tracker. Cannot be nested."""
    loop = asyncio.get_running_loop()
    before = loop.get_task_factory()
    create: Callable[..., asyncio.Future[Any]] = before or _plain_task

    def factory(loop: asyncio.AbstractEventLoop, work: Any, **how: Any) -> Any:
        task = create(loop, work, **how)
        context = how.get("context")
        watch = context.get(_watched) if context is not None else _watched.get()
        if watch is not None and isinstance(task, asyncio.Task):
            watch.add_task(task)
        return task

    loop.set_task_factory(factory)
    try:
        yield TaskTracker()
    finally:
        loop.set_task_factory(before)


def _plain_task(loop: asyncio.AbstractEventLoop, work: Any, **how: Any) -> "asyncio.Task[Any]":
    return asyncio.Task(work, loop=loop, **how)


def _name(task: "asyncio.Task[Any]") -> str:
    return str(getattr(task.get_coro(), "__qualname__", task.get_name()))


@dataclass(frozen=True, slots=True)
class HeldResources:
    """Counts of the process's open resources. Sockets and children are counted on Linux
    only, and 0 elsewhere.
    """

    sockets: int
    threads: int
    children: int

    def excess_over(self, before: "HeldResources") -> str:
        """Describe the resources in excess of ``before``; empty if there are none."""
        more = {
            kind.name: getattr(self, kind.name) - getattr(before, kind.name)
            for kind in fields(self)
        }
        return ", ".join(f"{count} {kind}" for kind, count in more.items() if count > 0)


def held_resources() -> HeldResources:
    """Count the open resources of the process."""
    return HeldResources(sockets=_sockets(), threads=threading.active_count(), children=_children())


async def wait_for_release(before: HeldResources, within_s: float) -> HeldResources:
    """Wait at most ``within_s`` until nothing exceeds ``before``. Returns the counts
    then.
    """
    loop = asyncio.get_running_loop()
    until_s = loop.time() + within_s
    while (now := held_resources()).excess_over(before) and loop.time() < until_s:  # noqa: ASYNC110 - there is no event to wait for
        await asyncio.sleep(_POLL_S)
    return now


def _sockets() -> int:
    count = 0
    for entry in _DESCRIPTORS.iterdir() if _DESCRIPTORS.is_dir() else ():
        try:
            count += os.readlink(entry).startswith("socket:")
        except OSError:  # closed meanwhile: it was the descriptor of this very listing
            continue
    return count


def _children() -> int:
    count = 0
    for path in _TASKS.glob("*/children"):
        try:
            count += len(path.read_text().split())
        except OSError:  # the thread has ended meanwhile
            continue
    return count
