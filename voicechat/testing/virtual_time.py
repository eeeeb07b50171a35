"""An event loop with virtual time: its clock jumps to the next timer, so that an hour
passes at once and a deadlock fails at once.
"""

import asyncio
import selectors
from collections.abc import Callable
from typing import TypeVar, TypeVarTuple

T = TypeVar("T")
Arguments = TypeVarTuple("Arguments")


MOST_ROUNDS = 1_000_000
"""So many rounds of the event loop without any time passing are an endless loop."""


class StalledError(RuntimeError):
    """Deadlock: every task waits and no timer is set. Or livelock: tasks run and run,
    and no time passes.
    """


class _JumpingSelector(selectors.SelectSelector):
    """Selects without blocking. If nothing is ready, it advances the clock instead of
    waiting.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        self._rounds = 0
        """Rounds of the loop since time last passed."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self._rounds = self._rounds + 1 if timeout == 0 else 0
        if self._rounds > MOST_ROUNDS:
            raise StalledError(f"no time passes in {MOST_ROUNDS} rounds of the event loop")
        ready = super().select(0)
        if ready:
            return ready
        if timeout is None:
            # Only the loop's wake-up socket is registered, and without threads nothing
            # writes to it.
            raise StalledError(
                "every task is waiting and no timer is set "
                "(threads and sockets need a real-time test)"
            )
        self.now_s += max(timeout, 0.0)
        return []


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """For code whose only clock is ``loop.time()`` and that uses no sockets.

    ``run_in_executor`` calls the function at once, in no virtual time: a thread runs in
    real time, and the clock would jump to the next timer meanwhile.
    """

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        """Return the virtual seconds since the loop was created."""
        return self._jumping.now_s

    def run_in_executor(
        self, executor: object, func: Callable[[*Arguments], T], *args: *Arguments
    ) -> asyncio.Future[T]:
        """Call ``func`` now and return a finished future."""
        done: asyncio.Future[T] = self.create_future()
        try:
            done.set_result(func(*args))
        except Exception as error:  # noqa: BLE001 - like an executor: the future carries it
            done.set_exception(error)
        return done
