"""SIGTERM and SIGINT: the first asks the server to drain, the second to stop at once."""

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopSignals:
    """What has been asked for so far. ``requested`` is set by the first signal, once ``may_drain`` is true."""

    def __init__(self, task: "asyncio.Task[object]") -> None:
        self.requested = asyncio.Event()
        self.may_drain = False
        self.at_once = False
        self._task = task

    def received(self) -> None:
        """Take a signal: ask for draining if that is possible and new, else cancel the task."""
        if self.may_drain and not self.requested.is_set():
            self.requested.set()
        else:
            self.at_once = True
            self._task.cancel()


@contextmanager
def stop_on_signals() -> Iterator[StopSignals]:
    """Handle the signals while the context lasts; a cancellation that they caused ends there."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    if task is None:
        raise RuntimeError("signals are handled inside a task")
    stop = StopSignals(task)
    for number in _SIGNALS:
        loop.add_signal_handler(number, stop.received)
    try:
        yield stop
    except asyncio.CancelledError:
        if not stop.at_once:
            raise
        task.uncancel()
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)
