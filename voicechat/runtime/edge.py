"""Where a provider's code is called: deadlines are kept, and whatever it raises becomes a ``ProviderError``."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Protocol, TypeVar, cast

from voicechat.errors import FailureKind, ProviderError
from voicechat.runtime.faults import where

logger = logging.getLogger(__name__)

T = TypeVar("T")


class _Closable(Protocol):
    async def aclose(self) -> None: ...


def closing(items: AsyncIterator[T]) -> "aclosing[_Closable]":
    """Close a provider's iterator at the end of the block: that is how it learns that it is cancelled."""
    return aclosing(cast("_Closable", items))


async def next_item(items: AsyncIterator[T], deadline_s: float | None, late: str) -> T | None:
    """The provider's next item; None at its end.

    Raises ``ProviderError`` past ``deadline_s`` (loop time; ``late`` says what was waited for), and in place of any
    exception the provider should not have raised, which is logged by its type and place, not by its text.
    """
    limit = asyncio.timeout_at(deadline_s)
    try:
        async with limit:
            return await anext(items, None)
    except ProviderError:
        raise
    except Exception as error:
        if limit.expired():
            raise ProviderError("provider", FailureKind.TIMEOUT, late) from None
        logger.error("a provider raised %s at %s", type(error).__name__, where(error))
        raise ProviderError("provider", FailureKind.BROKEN, f"raised {type(error).__name__}") from error
