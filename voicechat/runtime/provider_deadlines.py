"""The boundary to provider code: enforces deadlines and turns every exception into a
``ProviderError``.
"""

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, contextmanager
from typing import Generic, Protocol, TypeVar, cast

from voicechat.errors import FailureKind, ProviderError
from voicechat.runtime.error_location import location_of

logger = logging.getLogger(__name__)

T = TypeVar("T")
_CLOCK_STEP_S = 0.001
"""Timers may fire this much early: uvloop's clock counts whole milliseconds."""


class _Closable(Protocol):
    async def aclose(self) -> None: ...


def closing(items: AsyncIterator[T]) -> "aclosing[_Closable]":
    """Close a provider's iterator at the end of the block. This is how a provider is
    cancelled.
    """
    return aclosing(cast("_Closable", items))


class TimedItems(Generic[T]):
    """Iterates over a provider's items with a deadline for each. A context manager that
    closes the iterator at its end.

    One timer serves all items, because starting a timer for each would take longer than
    most items do. It fires only inside ``next_item``, so a generator may yield within
    the context.
    """

    def __init__(self, items: AsyncIterator[T], late: str) -> None:
        """``late`` is the message of the timeout error."""
        self._items = items
        self._late = late
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.Handle | None = None
        self._timer_s = math.inf
        self._due_s = math.inf
        self._waiting: asyncio.Task[object] | None = None
        """The task that waits for an item until ``_due_s``."""
        self._expired = False

    async def __aenter__(self) -> "TimedItems[T]":
        return self

    async def __aexit__(self, *_raised: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
        await cast("_Closable", self._items).aclose()

    async def next_item(self, deadline_s: float) -> T | None:
        """Return the provider's next item, or None at its end.

        Raises ``ProviderError``: as the function ``next_item`` does, and ``TIMEOUT``
        after ``deadline_s`` (loop time). It may not be called again after that.
        """
        self._due_s, self._expired = deadline_s, False
        if deadline_s < self._timer_s:
            self._set_timer(deadline_s)
        # Pass the loop: on Python 3.11, current_task() without it asks the operating
        # system for the process id.
        waiting = self._waiting = asyncio.current_task(self._loop)
        assert waiting is not None
        cancels = waiting.cancelling()
        try:
            return await self._items.__anext__()
        except StopAsyncIteration:
            return None
        except ProviderError:
            raise
        except Exception as error:
            raise self._too_late() if self._expired else _broken(error) from error
        except asyncio.CancelledError:
            if self._expired and waiting.cancelling() - 1 <= cancels:
                raise self._too_late() from None
            raise
        finally:
            self._waiting = None
            if self._expired:
                waiting.uncancel()

    def _too_late(self) -> ProviderError:
        return ProviderError("provider", FailureKind.TIMEOUT, self._late)

    def _set_timer(self, at_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._timer_s = self._loop.call_at(at_s, self._on_timer), at_s

    def _on_timer(self) -> None:
        self._timer, self._timer_s = None, math.inf
        if self._waiting is None:
            return
        if self._loop.time() + _CLOCK_STEP_S < self._due_s:
            self._set_timer(self._due_s)
        else:
            self._expired = True
            self._waiting.cancel()


@contextmanager
def provider_errors() -> Iterator[None]:
    """Raise any other exception of a provider in the block as ``ProviderError``
    (BROKEN), and log it by type and place without its text.
    """
    try:
        yield
    except ProviderError:
        raise
    except Exception as error:
        raise _broken(error) from error


async def next_item(items: AsyncIterator[T]) -> T | None:
    """Return the provider's next item, however long it takes, or None at its end. With
    deadlines, use ``TimedItems``. Raises ``ProviderError``, as ``provider_errors``
    does.
    """
    try:
        return await anext(items, None)
    except ProviderError:
        raise
    except Exception as error:
        raise _broken(error) from error


def _broken(error: Exception) -> ProviderError:
    logger.error("a provider raised %s at %s", type(error).__name__, location_of(error))
    return ProviderError("provider", FailureKind.BROKEN, f"raised {type(error).__name__}")
