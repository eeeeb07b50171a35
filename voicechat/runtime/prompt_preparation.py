"""Has a session's chat model process the likely prompt while the user speaks.

A model that computes on this machine takes longer for a prompt than for its first
token. The user need not wait for the part of the prompt that was processed before they
stopped.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeAlias

from voicechat.errors import ProviderError
from voicechat.providers.interfaces import ChatRequest, Provider

Spawn: TypeAlias = Callable[[Coroutine[Any, Any, None], str], asyncio.Task[None]]

PREPARE_S = 10.0
"""The longest time for one prompt. Then it is given up, so that no reply waits
longer.
"""


class PromptPreparation:
    """One prompt of a session at a time."""

    def __init__(self, spawn: Spawn) -> None:
        """``spawn`` starts a task of the session."""
        self._spawn = spawn
        self._running: asyncio.Task[None] | None = None

    def prepare(self, model: Provider, request: ChatRequest) -> None:
        """Have ``model`` process the prompt of ``request``. Never waits.

        While a prompt is being processed, others are dropped: the machine is slower
        than the user speaks, and a prompt that is begun late would delay the reply.
        """
        if self._running is None or self._running.done():
            self._running = self._spawn(_process(model, request), "prompt-preparation")

    async def then(self, reply: Callable[[], Awaitable[None]]) -> None:
        """Make a reply once no prompt is being processed, so that it can use what was
        computed.
        """
        if self._running is not None and not self._running.done():
            await asyncio.wait([self._running])
        await reply()


async def _process(model: Provider, request: ChatRequest) -> None:
    # Only an optimisation: the reply reports what is wrong with the model.
    with suppress(ProviderError, TimeoutError):
        async with asyncio.timeout(PREPARE_S):
            await model.prepare(request)
