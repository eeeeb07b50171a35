"""Trying again what may succeed the next time: a recogniser that is busy, a decoder
whose process was lost.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from voicechat.errors import ProviderError
from voicechat.runtime.decoding import DecoderLostError

T = TypeVar("T")


async def with_retries(attempt: Callable[[], Awaitable[T]], waits_s: Sequence[float]) -> T:
    """Make an attempt, and another one after each wait.

    Raises what the last attempt raises, at once if trying again cannot help. Cancelling
    stops attempt or wait.
    """
    for wait_s in waits_s:
        try:
            return await attempt()
        except ProviderError as error:
            if not error.retryable:
                raise
        except DecoderLostError:
            pass  # the next attempt has a process of its own
        await asyncio.sleep(wait_s)
    return await attempt()
