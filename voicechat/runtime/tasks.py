"""The tasks of one session: started here, and all cancelled with it in bounded time."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from voicechat.runtime.error_location import location_of

logger = logging.getLogger(__name__)


class SessionTasks:
    """Owns tasks that must not fail because another one does.

    An ``asyncio.TaskGroup`` would wait without bound for a provider that ignores
    cancellation; a session must end within 1 s whatever its providers do.
    """

    def __init__(self, on_fault: Callable[[], None]) -> None:
        """``on_fault`` is called when a task raises an unexpected exception, which is a
        bug.
        """
        self._on_fault = on_fault
        self._tasks: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Start ``work`` as a task that is owned until it ends."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._on_done)
        return task

    async def close(self, timeout_s: float) -> int:
        """Cancel all tasks and wait for them, at most ``timeout_s``. Returns how many
        did not end.
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
    """Clear the tracebacks of a cancelled task's exception and of its context.

    A traceback keeps its frames alive. If one of them refers to the task or the
    exception, as a ``TaskGroup``'s does, the cancelled task would stay in a reference
    cycle with all that its frames hold, until a full garbage collection.
    """
    try:
        task.exception()
    except asyncio.CancelledError as error:
        cause: BaseException | None = error
        while cause is not None:
            cause.__traceback__ = None
            cause = cause.__context__
