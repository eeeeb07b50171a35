"""The queue between the task that owns a connection and the caller that iterates over
its messages.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Generic, TypeVar

from voicechat.errors import VoiceChatError

T = TypeVar("T")

QUEUED_ITEMS = 256
"""Bound of the queue. When it is full the client stops reading from the network."""


class ReceiveQueue(Generic[T]):
    """A bounded queue that can be closed, normally or with an error. The error is
    raised after all queued items.
    """

    def __init__(self) -> None:
        self._items: deque[T] = deque()
        self._changed = asyncio.Condition()
        self._ended = False
        self.error: VoiceChatError | None = None

    async def put_item(self, item: T) -> None:
        """Append an item. Waits while the queue is full."""
        async with self._changed:
            await self._changed.wait_for(lambda: len(self._items) < QUEUED_ITEMS)
            self._items.append(item)
            self._changed.notify_all()

    async def close(self, error: VoiceChatError | None = None) -> None:
        """Mark the end of the queue. ``error`` is the reason of an abnormal end."""
        async with self._changed:
            self._ended, self.error = True, error
            self._changed.notify_all()

    async def get_item(self) -> T:
        """Wait for the next item. At the end every call raises the error, or
        ``StopAsyncIteration``.
        """
        async with self._changed:
            await self._changed.wait_for(lambda: self._items or self._ended)
            if not self._items:
                raise self.error or StopAsyncIteration
            self._changed.notify_all()
            return self._items.popleft()


@asynccontextmanager
async def background_task(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run ``work`` while the context lasts, then cancel it. An exception of the body
    propagates unchanged, not as an ExceptionGroup.
    """
    failure: Exception | None = None
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(work)
        try:
            yield
        except Exception as error:  # noqa: BLE001 - raised below: the task group would wrap it into a group
            failure = error
        finally:
            task.cancel()
    if failure is not None:
        raise failure
