"""Retries after failures that may be temporary: a busy recogniser, a lost decoder
process.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from voicechat.errors import ProviderError
from voicechat.runtime.decoding import DecoderLostError

T = TypeVar("T")


async def with_retries(attempt: Callable[[], Awaitable[T]], waits_s: Sequence[float]) -> T:
    """Call ``attempt``, and call it again after each wait while retrying can help.

    Raises what the last attempt raised. Cancelling stops attempt or wait.
    """
    for wait_s in waits_s:
        try:
            return await attempt()
        except ProviderError as error:
            if not error.retryable:
                raise
        except DecoderLostError:
            pass  # the next attempt has its own process
        await asyncio.sleep(wait_s)
    return await attempt()
