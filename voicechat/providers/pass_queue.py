"""Orders the passes of all streams over one model.

A pass over a complete utterance has precedence, because its user has finished speaking
and waits. It also preempts a pass that only makes a partial result. Passes of the same
kind are served in order of arrival, and each stream has one at a time, so no session is
served twice while another one waits.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

from voicechat.errors import FailureKind, ProviderError

R = TypeVar("R")


@dataclass(slots=True, eq=False)
class _Pass:
    complete: bool
    turn: asyncio.Future[None] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )
    task: asyncio.Task[object] | None = None
    preempted: bool = False


class PassQueue:
    """Runs one pass at a time. Used on the event loop only."""

    def __init__(self, provider: str) -> None:
        self._provider = provider
        self._complete: deque[_Pass] = deque()
        self._partial: deque[_Pass] = deque()
        self._running: _Pass | None = None

    @property
    def waiting(self) -> int:
        """How many complete utterances wait for the model."""
        return len(self._complete)

    async def run(self, work: Callable[[], Awaitable[R]], *, complete: bool) -> R:
        """Wait for the model and run ``work``. Cancelling leaves the queue.

        Raises the errors of ``work``, and `ProviderError` (RATE_LIMIT) if a complete
        utterance has preempted this pass or waits before it.
        """
        own = _Pass(complete)
        if not complete and (self._complete or (self._running and self._running.complete)):
            # A partial result would come only after the final ones of others.
            raise self._busy()
        (self._complete if complete else self._partial).append(own)
        if complete:
            self._preempt()
        self._next()
        try:
            await own.turn
            own.task = asyncio.current_task()
            if own.preempted:
                raise self._busy()
            return await work()
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if own.preempted and current is not None and current.uncancel() == 0:
                raise self._busy() from None
            raise
        finally:
            if self._running is own:
                self._running = None
            for waiting in (self._complete, self._partial):
                if own in waiting:
                    waiting.remove(own)
            self._next()

    def _next(self) -> None:
        if self._running is not None:
            return
        waiting = self._complete or self._partial
        while waiting:
            first = waiting.popleft()
            if not first.turn.done():
                self._running = first
                first.turn.set_result(None)
                return

    def _preempt(self) -> None:
        """Stop the running pass if it only makes a partial result."""
        running = self._running
        if running is None or running.complete or running.preempted:
            return
        running.preempted = True
        if running.task is not None:
            running.task.cancel()

    def _busy(self) -> ProviderError:
        message = "the model is needed for complete utterances"
        return ProviderError(self._provider, FailureKind.RATE_LIMIT, message, of_service=False)
