"""Polls jobs that another service performs, with a time limit."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from voicechat.errors import FailureKind, ProviderError

MAX_POLLS_LOST = 5
"""Consecutive polls that may fail before the job counts as lost."""
IDEMPOTENCY_KEY = "Idempotency-Key"
"""The header (draft-ietf-httpapi-idempotency-key-header) by which a service recognises
a request that it has had before. Services that do not know it ignore it.
"""

T = TypeVar("T")


@asynccontextmanager
async def within(provider: str, total_s: float) -> AsyncGenerator[None, None]:
    """Limit the time of a block. Raises `ProviderError` (TIMEOUT)."""
    try:
        async with asyncio.timeout(total_s):
            yield
    except TimeoutError as error:
        message = f"the job did not end within {total_s:g} s"
        raise ProviderError(provider, FailureKind.TIMEOUT, message) from error


async def poll_until_ended(look: Callable[[], Awaitable[T | None]], poll_s: float) -> T:
    """Call ``look`` every ``poll_s`` until it returns a value other than None, and
    return that.

    A poll that fails and may succeed later is repeated up to ``MAX_POLLS_LOST`` times.
    After that, and for any other failure, its `ProviderError` is raised. Bound the time
    with `within`.
    """
    lost = 0
    while True:
        try:
            found = await look()
            lost = 0
        except ProviderError as error:
            lost += 1
            if lost > MAX_POLLS_LOST or not error.retryable:
                raise
            found = None
        if found is not None:
            return found
        await asyncio.sleep(poll_s)
