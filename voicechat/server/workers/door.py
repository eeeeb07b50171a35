"""The parent's port: connections are accepted here and given away, unread."""

import asyncio
import logging
import math
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from voicechat.server.connections import TELL_S
from voicechat.server.listener import bind

ACCEPTS_IN_A_ROW = 64
REST_S = 0.1
"""After a connection that could not be accepted, for want of descriptors or memory, or
given away.
"""

Give = Callable[[int], bool]
"""Give a connection away, with its descriptor; False when nobody can take it now."""

_log = logging.getLogger(__name__)


@asynccontextmanager
async def opened_door(host: str, port: int) -> AsyncIterator["Door"]:
    """Hold the port while the context lasts. ConfigError when it cannot be had."""
    sockets = await bind(host, port)
    try:
        for listener in sockets:
            listener.setblocking(False)
        yield Door(sockets)
    finally:
        for listener in sockets:
            listener.close()


class Door:
    """Accepts while it is open and somebody takes; what is not accepted the kernel
    keeps.
    """

    def __init__(self, listeners: list[socket.socket]) -> None:
        self._listeners = listeners
        self._give: Give | None = None
        self._waiting: socket.socket | None = None
        self._resting: asyncio.TimerHandle | None = None
        self._told_s = -math.inf
        self.port = int(listeners[0].getsockname()[1])

    def open(self, give: Give) -> None:
        """Begin to accept."""
        self._give = give
        self._watch()

    def shut(self) -> None:
        """Accept no more. Idempotent."""
        self._give = None
        self._unwatch()
        if self._resting is not None:
            self._resting.cancel()
            self._resting = None
        if self._waiting is not None:
            self._waiting.close()
            self._waiting = None

    def look(self) -> None:
        """Somebody may take connections now."""
        if self._give is None or self._resting is None:
            return
        self._resting.cancel()
        self._resting = None
        if self._waiting is not None and not self._hand_over(self._waiting):
            self._rest()
            return
        self._waiting = None
        self._watch()

    def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        for listener in self._listeners:
            loop.add_reader(listener.fileno(), self._accept, listener)

    def _unwatch(self) -> None:
        loop = asyncio.get_running_loop()
        for listener in self._listeners:
            loop.remove_reader(listener.fileno())

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(ACCEPTS_IN_A_ROW):
            if self._resting is not None:
                return  # the other listener has found that nobody takes
            try:
                connection, _ = listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as error:
                self._tell(error)
                self._rest()
                return
            if not self._hand_over(connection):
                self._waiting = connection
                self._rest()
                return

    def _hand_over(self, connection: socket.socket) -> bool:
        if self._give is None or not self._give(connection.fileno()):
            return False
        connection.detach()
        return True

    def _tell(self, error: OSError) -> None:
        """Say why connections cannot be accepted, once in ``TELL_S``."""
        now_s = asyncio.get_running_loop().time()
        if now_s - self._told_s >= TELL_S:
            self._told_s = now_s
            _log.error("connections cannot be accepted now: %s", error.strerror)

    def _rest(self) -> None:
        self._unwatch()
        self._resting = asyncio.get_running_loop().call_later(REST_S, self.look)
