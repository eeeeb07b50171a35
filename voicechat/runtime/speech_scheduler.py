"""Decides which replies continue while the event loop is late.

Each iteration of a late loop lasts as long as all the work that is ready for it, and an
answer passes through about 20 iterations before its first audio. Replies that are
already heard therefore make their next audio a few at a time: as many as keep the loop
on time, beginning with those whose listeners run out of audio first. Nothing is
dropped.
"""

import asyncio
import heapq
from itertools import count

from voicechat.runtime.loop_lateness import LATE_S

TICK_S = 0.02
LEAST = 8
"""Replies that continue with each tick however late the loop is. Each takes about 0.3
ms.
"""
MOST = 64


class SpeechScheduler:
    """The waiting replies of one process. Used on the event loop only."""

    def __init__(self) -> None:
        self._waiting: list[tuple[float, int, asyncio.Future[None]]] = []
        """A heap: when the listener runs out of audio, and the order of arrival."""
        self._numbers = count()
        self._allowed = LEAST
        self._due_s: float | None = None
        """When the next tick is due; None while no reply waits."""

    async def wait(self, in_hand_s: float) -> None:
        """Wait until a reply whose listener has ``in_hand_s`` of audio left may
        continue.

        Cancelling leaves the queue.
        """
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[None] = loop.create_future()
        heapq.heappush(self._waiting, (loop.time() + in_hand_s, next(self._numbers), turn))
        if self._due_s is None:
            self._tick_later(loop)
        await turn

    def _tick_later(self, loop: asyncio.AbstractEventLoop) -> None:
        self._due_s = loop.time() + TICK_S
        loop.call_at(self._due_s, self._tick, loop)

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        assert self._due_s is not None
        if loop.time() - self._due_s < LATE_S:
            self._allowed = min(self._allowed + self._allowed // 2, MOST)
        else:
            self._allowed = max(self._allowed // 2, LEAST)
        self._due_s = None
        left = self._allowed
        while self._waiting and left:
            _, _, turn = heapq.heappop(self._waiting)
            if not turn.done():  # its reply has not been stopped
                turn.set_result(None)
                left -= 1
        if self._waiting:
            self._tick_later(loop)
