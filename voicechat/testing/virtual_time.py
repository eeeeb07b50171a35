"""An event loop whose clock jumps to the next timer: an hour passes at once, and a
deadlock fails at once.
"""

import asyncio
import selectors
from collections.abc import Callable
from typing import TypeVar, TypeVarTuple

T = TypeVar("T")
Arguments = TypeVarTuple("Arguments")


class StalledError(RuntimeError):
    """Every task waits and no timer is set: nothing can ever happen again."""


class _JumpingSelector(selectors.SelectSelector):
    """Selects without blocking; when nothing is ready, moves the clock instead of
    waiting.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready:
            return ready
        if timeout is None:
            # Only the loop's own wake-up socket is left, and without threads nobody
            # writes to it.
            raise StalledError(
                "every task is waiting and no timer is set (threads and sockets need a real-time test)"
            )
        self.now_s += max(timeout, 0.0)
        return []


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """For code that reads no clock but ``loop.time()`` and uses no sockets.

    What is handed to a thread by ``run_in_executor`` is done at once and takes no time:
    a thread lives in real time, and while it worked the clock would jump to any timer.
    """

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._jumping.now_s

    def run_in_executor(
        self, executor: object, func: Callable[[*Arguments], T], *args: *Arguments
    ) -> asyncio.Future[T]:
        """Do the work now."""
        done: asyncio.Future[T] = self.create_future()
        try:
            done.set_result(func(*args))
        except Exception as error:  # noqa: BLE001 - as an executor does: whoever awaits it is told
            done.set_exception(error)
        return done
