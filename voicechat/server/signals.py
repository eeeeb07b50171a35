"""SIGTERM, SIGINT and Windows' SIGBREAK: the first one starts a drain, the second stops
at once.
"""

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGBREAK") if hasattr(signal, name)
)


class StopSignals:
    """What the received signals request.

    ``requested`` is set by the first signal, once ``may_drain`` is true.
    """

    def __init__(self, task: "asyncio.Task[object]") -> None:
        self.requested = asyncio.Event()
        self.may_drain = False
        self.at_once = False
        self._task = task

    def received(self) -> None:
        """Handle a signal: request a drain if that is possible and not requested yet,
        else cancel the task.
        """
        if self.may_drain and not self.requested.is_set():
            self.requested.set()
        else:
            self.at_once = True
            self._task.cancel()


@contextmanager
def stop_on_signals() -> Iterator[StopSignals]:
    """Handle the signals while the context lasts; a cancellation that they caused ends
    there.
    """
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    if task is None:
        raise RuntimeError("signals are handled inside a task")
    stop = StopSignals(task)
    try:
        with _handled_by(loop, stop.received):
            yield stop
    except asyncio.CancelledError:
        if not stop.at_once:
            raise
        task.uncancel()


@contextmanager
def _handled_by(loop: asyncio.AbstractEventLoop, received: Callable[[], None]) -> Iterator[None]:
    """Call ``received`` on the loop for each signal while the context lasts."""
    try:
        for number in _SIGNALS:
            loop.add_signal_handler(number, received)
    except NotImplementedError:
        with _handled_by_python(loop, received):
            yield
        return
    try:
        yield
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)


@contextmanager
def _handled_by_python(
    loop: asyncio.AbstractEventLoop, received: Callable[[], None]
) -> Iterator[None]:
    """Do the same on a loop without signal handlers, as on Windows; signals wake such a
    loop up.
    """

    def handle(_number: int, _frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(received)

    before = {number: signal.signal(number, handle) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
