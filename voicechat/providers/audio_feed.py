"""The sending side of a recognition stream: a task that sends the audio to the service
while the results are read.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any


class AudioFeed:
    """Owns the sending task. It is not a context manager, because the block would
    contain a ``yield`` (PEP 789).
    """

    def __init__(self, work: Coroutine[Any, Any, None], on_failure: Callable[[], None]) -> None:
        """``on_failure`` must wake the reader, which then calls `raise_failure`."""
        self._on_failure = on_failure
        self._task = asyncio.get_running_loop().create_task(self._run(work))

    @property
    def done(self) -> bool:
        """Whether all audio was sent."""
        return self._task.done() and not self._task.cancelled() and self._task.exception() is None

    def raise_failure(self) -> None:
        """Raise the exception of the sending task, if it failed; it may come from the
        audio's source.
        """
        if (
            self._task.done()
            and not self._task.cancelled()
            and (error := self._task.exception()) is not None
        ):
            raise error

    async def stop(self) -> None:
        """Cancel the sending, and wait until the task has ended."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except BaseException:
            self._on_failure()
            raise
