"""The tasks of one session: started here, and all stopped with it, in bounded time."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from voicechat.runtime.error_location import location_of

logger = logging.getLogger(__name__)


class SessionTasks:
    """Owns tasks whose failures must not become each other's.

    An ``asyncio.TaskGroup`` would wait without bound for a provider that does not react
    to being cancelled; a session must be gone within a second whatever its providers
    do.
    """

    def __init__(self, on_fault: Callable[[], None]) -> None:
        """``on_fault`` is called when a task fails with an exception that nobody
        foresaw: a bug.
        """
        self._on_fault = on_fault
        self._tasks: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Start ``work``; it is owned until it ends."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._on_done)
        return task

    async def close(self, timeout_s: float) -> int:
        """Cancel everything and wait for it, ``timeout_s`` at most; give how many tasks
        would not end.
        """
        for task in self._tasks:
            task.cancel()
        if not self._tasks:
            return 0
        _, stuck = await asyncio.wait(self._tasks, timeout=timeout_s)
        for task in stuck:
            logger.error(
                "task %s did not end within %.1f s of being cancelled", task.get_name(), timeout_s
            )
        return len(stuck)

    def _on_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            _forget_traceback(task)
            return
        error = task.exception()
        if error is not None:
            logger.error(
                "task %s failed: %s at %s",
                task.get_name(),
                type(error).__name__,
                location_of(error),
            )
            self._on_fault()


def _forget_traceback(task: "asyncio.Task[None]") -> None:
    """Take the exception of a cancelled task from it, and what the exception remembers.

    Its traceback keeps the frames that it went through. Where one of them knows the
    task or the exception, as that of a ``TaskGroup`` does, a cancelled task would keep
    itself and all that its frames hold, until a full collection of garbage.
    """
    try:
        task.exception()
    except asyncio.CancelledError as error:
        cause: BaseException | None = error
        while cause is not None:
            cause.__traceback__ = None
            cause = cause.__context__
