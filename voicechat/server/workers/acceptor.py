"""The parent's listening sockets: accepts connections and passes them on, unread."""

import asyncio
import logging
import math
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from voicechat.server.connections import LOG_INTERVAL_S
from voicechat.server.listener import bind

ACCEPTS_IN_A_ROW = 64
BACKOFF_S = 0.1
"""Pause after ``accept`` failed for lack of descriptors or memory, or after no worker
could take a connection.
"""

SendConnection = Callable[[int], bool]
"""Sends a connection, given by its descriptor, to a worker; False when no worker can
take it now.
"""

_log = logging.getLogger(__name__)


@asynccontextmanager
async def open_acceptor(host: str, port: int) -> AsyncIterator["Acceptor"]:
    """Hold the port while the context lasts. Raises ConfigError when it cannot be
    bound.
    """
    sockets = await bind(host, port)
    try:
        for listener in sockets:
            listener.setblocking(False)
        yield Acceptor(sockets)
    finally:
        for listener in sockets:
            listener.close()


class Acceptor:
    """Accepts connections while a worker can take them.

    When none can, accepting pauses and the kernel's backlog holds the clients.
    """

    def __init__(self, listeners: list[socket.socket]) -> None:
        self._listeners = listeners
        self._send_connection: SendConnection | None = None
        self._waiting: socket.socket | None = None
        self._retry_timer: asyncio.TimerHandle | None = None
        self._logged_s = -math.inf
        self.port = int(listeners[0].getsockname()[1])

    def start_accepting(self, send_connection: SendConnection) -> None:
        """Start accepting; each connection goes to ``send_connection``."""
        self._send_connection = send_connection
        self._watch()

    def stop_accepting(self) -> None:
        """Stop accepting. Idempotent."""
        self._send_connection = None
        self._unwatch()
        if self._retry_timer is not None:
            self._retry_timer.cancel()
            self._retry_timer = None
        if self._waiting is not None:
            self._waiting.close()
            self._waiting = None

    def retry_accepting(self) -> None:
        """End the pause early: a worker may be able to take connections again."""
        if self._send_connection is None or self._retry_timer is None:
            return
        self._retry_timer.cancel()
        self._retry_timer = None
        if self._waiting is not None and not self._hand_over(self._waiting):
            self._back_off()
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
            if self._retry_timer is not None:
                return  # the other listener has found that no worker takes connections
            try:
                connection, _ = listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as error:
                self._log_failure(error)
                self._back_off()
                return
            if not self._hand_over(connection):
                self._waiting = connection
                self._back_off()
                return

    def _hand_over(self, connection: socket.socket) -> bool:
        if self._send_connection is None or not self._send_connection(connection.fileno()):
            return False
        connection.detach()
        return True

    def _log_failure(self, error: OSError) -> None:
        """Log why connections cannot be accepted, at most once in
        ``LOG_INTERVAL_S``.
        """
        now_s = asyncio.get_running_loop().time()
        if now_s - self._logged_s >= LOG_INTERVAL_S:
            self._logged_s = now_s
            _log.error("connections cannot be accepted now: %s", error.strerror)

    def _back_off(self) -> None:
        self._unwatch()
        self._retry_timer = asyncio.get_running_loop().call_later(BACKOFF_S, self.retry_accepting)
