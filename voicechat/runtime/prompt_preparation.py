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
    """One prompt of a session at a time. A newer one replaces the one that waits."""

    def __init__(self, spawn: Spawn) -> None:
        """``spawn`` starts a task of the session."""
        self._spawn = spawn
        self._next: tuple[Provider, ChatRequest] | None = None
        self._running: asyncio.Task[None] | None = None

    def prepare(self, model: Provider, request: ChatRequest) -> None:
        """Have ``model`` process the prompt of ``request`` as soon as it has processed
        the current one. Never waits.
        """
        self._next = (model, request)
        if self._running is None or self._running.done():
            self._running = self._spawn(self._run(), "prompt-preparation")

    async def then(self, reply: Callable[[], Awaitable[None]]) -> None:
        """Make a reply once no prompt is being processed, so that it can use what was
        computed. A prompt that has not been begun is dropped.
        """
        self._next = None
        if self._running is not None and not self._running.done():
            await asyncio.wait([self._running])
        await reply()

    async def _run(self) -> None:
        while self._next is not None:
            (model, request), self._next = self._next, None
            # Only an optimisation: the reply reports what is wrong with the model.
            with suppress(ProviderError, TimeoutError):
                async with asyncio.timeout(PREPARE_S):
                    await model.prepare(request)
