"""Between the task that keeps a connection and the caller who iterates over what came
through it.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Generic, TypeVar

from voicechat.errors import VoiceChatError

T = TypeVar("T")

QUEUED_ITEMS = 256
"""Received and not yet taken; past it the server's messages wait in the network."""


class ReceiveQueue(Generic[T]):
    """A bounded queue that ends, normally or with an error; the error comes after
    everything that was put before.
    """

    def __init__(self) -> None:
        self._items: deque[T] = deque()
        self._changed = asyncio.Condition()
        self._ended = False
        self.error: VoiceChatError | None = None

    async def put_item(self, item: T) -> None:
        """Append; waits while the queue is full."""
        async with self._changed:
            await self._changed.wait_for(lambda: len(self._items) < QUEUED_ITEMS)
            self._items.append(item)
            self._changed.notify_all()

    async def close(self, error: VoiceChatError | None = None) -> None:
        """Say that nothing more comes."""
        async with self._changed:
            self._ended, self.error = True, error
            self._changed.notify_all()

    async def get_item(self) -> T:
        """Wait for the next item. At the end raises the error, or
        ``StopAsyncIteration``, as often as it is asked.
        """
        async with self._changed:
            await self._changed.wait_for(lambda: self._items or self._ended)
            if not self._items:
                raise self.error or StopAsyncIteration
            self._changed.notify_all()
            return self._items.popleft()


@asynccontextmanager
async def background_task(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run ``work`` while the context lasts, then cancel it. What the caller raises
    comes out as itself, no group.
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
