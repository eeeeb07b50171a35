"""The HTTP connections of one process: bounded while idle, and dropped when they stall.

Clients can open connections without a key. A connection that has not sent the head of a
request has a deadline, and there are limits for each address and for all together.
Beyond them the oldest idle connections are dropped, since an honest client sends its
request as soon as it is connected. Sessions and requests in progress are never dropped
for a new connection.
"""

import asyncio
import logging
import re
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, cast

from aiohttp import web

from voicechat.server import descriptors
from voicechat.server.access_log import AccessLogger, silence_subprotocols, without_request_text
from voicechat.server.auth_throttle import network_of

HEAD_S = 10.0
"""Time limit from the connection to the end of its first request's head."""
KEEP_ALIVE_S = 75.0
"""Time limit between two requests: longer than the 60 s of common reverse proxies, so
that the proxy closes first.
"""
UNREAD_S = 20.0
"""A client that reads nothing of its response for 20 s is cut off."""
SILENT_PER_ADDRESS = 512
"""Most connections of one address that have not sent a request yet. A few hundred
devices behind one router may reconnect at the same moment, and all are accepted before
the first is read.
"""
SWEEP_S = 1.0
PIECE_BYTES = 16 * 1024
"""Most bytes parsed in one iteration of the event loop: a body in chunks of one byte
takes 0.4 us a byte.
"""
LOG_INTERVAL_S = 60.0
"""Least time between two log lines about the same flood."""
MAX_LINE_BYTES = 8190
"""aiohttp's limit of a request line."""

_NOT_ASCII = re.compile(rb"[\x80-\xff]")
_access_log = logging.getLogger("voicechat.access")
_http_log = logging.getLogger("voicechat.http")
_http_log.addFilter(without_request_text)
silence_subprotocols()
_log = logging.getLogger(__name__)

HTTP_OPTIONS: dict[str, Any] = {
    "access_log": _access_log,
    "access_log_class": AccessLogger,
    "logger": _http_log,
    "keepalive_timeout": KEEP_ALIVE_S,
}
"""The arguments of aiohttp's connection handler."""


class ClientConnection(web.RequestHandler):
    """aiohttp's handler of one connection, registered with its ``Connections``."""

    def __init__(self, connections: "Connections", server: web.Server) -> None:
        super().__init__(server, loop=asyncio.get_running_loop(), **HTTP_OPTIONS)
        self.address = ""
        """The client's IPv4 address or IPv6 network."""
        self.begun_s = self._loop.time()
        self._connections = connections
        self._transport: asyncio.Transport | None = None
        self._line = b""
        self._has_line = False
        self._held = b""
        """Received bytes that later iterations of the event loop will parse."""
        self._due = False
        """Whether ``_go_on`` is scheduled for the next iteration."""
        self._unread_bytes = 0
        self._unread_since_s = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Register the connection, which may drop it or an older one."""
        super().connection_made(transport)
        self._transport = cast(
            asyncio.Transport, transport
        )  # uvloop's transports are not a subclass of it
        peer = transport.get_extra_info("peername")
        self.address = network_of(peer[0]) if peer else ""
        self._connections.add_connection(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Unregister the connection."""
        waiting = None if self._request_in_progress else self._task_handler
        super().connection_lost(exc)
        if waiting is not None:
            # aiohttp would begin a request that has arrived just before, and fail.
            waiting.cancel()
        self._transport = None
        self._connections.remove_connection(self)

    def data_received(self, data: bytes) -> None:
        """Pass data to aiohttp, with the raw characters of a request target
        percent-encoded.
        """
        if not self._has_line:
            data = self._line + data
            # Data that does not begin with a method is not HTTP (TLS, for example):
            # aiohttp reports it at once.
            if b"\n" not in data and len(data) <= MAX_LINE_BYTES and data[:1].isalpha():
                self._line = data
                return
            self._line, self._has_line = b"", True
            data = encode_target(data)
        elif data and self._connections.is_idle(self):
            data = encode_target(data)
        if self._held and data:
            self._held += data
        elif len(data) > PIECE_BYTES:
            self._held = data
            # Stop reading: what arrives now cannot be parsed before the held bytes.
            self._pause_reading_for_buffer()
            self._go_on()
        else:
            super().data_received(data)

    def _go_on(self) -> None:
        """Parse the next piece of the held bytes, unless aiohttp's own queue is
        full.
        """
        self._due = False
        if self.transport is None or self._reading_paused:
            return
        if len(self._messages) >= self._max_msg_queue_size:
            return
        piece, self._held = self._held[:PIECE_BYTES], self._held[PIECE_BYTES:]
        super().data_received(piece)
        if self._held:
            self._go_on_soon()
        else:
            self._resume_reading_if_drained()

    def _go_on_soon(self) -> None:
        if not self._due:
            self._due = True
            self._loop.call_soon(self._go_on)

    def resume_reading(self, resume_parser: bool = True) -> None:
        """Resume reading a body, because aiohttp has room for more."""
        super().resume_reading(resume_parser)
        if self._held:
            self._go_on_soon()

    def _resume_reading_for_buffer(self) -> None:
        if self._held:
            self._go_on_soon()
        else:
            super()._resume_reading_for_buffer()

    def set_parser(self, parser: Any, data_received_cb: Callable[[], None] | None = None) -> None:
        """Switch to another parser: the bytes held and those to come are no longer
        HTTP.
        """
        super().set_parser(parser, data_received_cb)
        held, self._held = self._held, b""
        if held:
            parser.feed_data(held)
            self._resume_reading_if_drained()

    @property
    def unparsed(self) -> bytes:
        """The bytes received after an upgrade request that is not answered yet."""
        return self._message_tail + self._held

    def request_in_progress(self) -> AbstractContextManager[None]:
        """Mark a request as in progress; see ``Connections.request_in_progress``."""
        return self._connections.request_in_progress(self)

    def is_write_stalled(self, now_s: float) -> bool:
        """Return whether the client has read nothing of its pending data for
        ``UNREAD_S``.
        """
        if self._transport is None:
            return False
        unread_bytes = self._transport.get_write_buffer_size()
        if not unread_bytes or unread_bytes < self._unread_bytes or not self._unread_bytes:
            self._unread_since_s = now_s
        self._unread_bytes = unread_bytes
        return unread_bytes > 0 and now_s - self._unread_since_s >= UNREAD_S

    def abort(self) -> None:
        """Close the connection at once."""
        if self._transport is not None:
            self._transport.abort()


class Connections:
    """All connections of a server in this process, and the limits on them.

    An instance is the protocol factory of the accepted sockets.
    """

    def __init__(self, server: web.Server, most: int | None = None) -> None:
        """``most``: the largest number of connections; by default half of the process'
        descriptors.
        """
        self._server = server
        self._most = descriptors.for_clients() if most is None else most
        self._open: dict[ClientConnection, None] = {}
        self._idle: dict[ClientConnection, None] = {}
        """Connections without a request in progress, the longest idle first."""
        self._silent: defaultdict[str, dict[ClientConnection, None]] = defaultdict(dict)
        """By address, connections that have never sent a request, the oldest first."""
        self._sweeping: asyncio.TimerHandle | None = None
        self._logged_s: float | None = None

    def __len__(self) -> int:
        """The number of open connections."""
        return len(self._open)

    def __call__(self) -> ClientConnection:
        """Create the handler of a connection."""
        return ClientConnection(self, self._server)

    def add_connection(self, connection: ClientConnection) -> None:
        """Register a new connection; beyond the limits the oldest idle one is
        dropped.
        """
        self._open[connection] = None
        self._idle[connection] = None
        silent = self._silent[connection.address]
        silent[connection] = None
        if len(silent) > SILENT_PER_ADDRESS:
            self._drop(next(iter(silent)), f"more than {SILENT_PER_ADDRESS} of an address wait")
        elif len(self._open) > self._most:
            # Drop the newcomer itself if all others have a request in progress.
            self._drop(next(iter(self._idle)), f"there are more than {self._most}")
        if self._sweeping is None:
            self._sweep_later()

    def remove_connection(self, connection: ClientConnection) -> None:
        """Unregister a connection. Idempotent."""
        self._open.pop(connection, None)
        self._idle.pop(connection, None)
        self._mark_active(connection)

    def is_idle(self, connection: ClientConnection) -> bool:
        """Return whether the connection has no request in progress."""
        return connection in self._idle

    @contextmanager
    def request_in_progress(self, connection: ClientConnection) -> Iterator[None]:
        """Mark a request as in progress while the context lasts."""
        self._idle.pop(connection, None)
        self._mark_active(connection)
        try:
            yield
        finally:
            if connection in self._open:
                self._idle[connection] = None

    def _mark_active(self, connection: ClientConnection) -> None:
        silent = self._silent[connection.address]
        silent.pop(connection, None)
        if not silent:
            del self._silent[connection.address]

    def _drop(self, connection: ClientConnection, why: str) -> None:
        self._log_drop(connection, why)
        self.remove_connection(connection)
        connection.abort()

    def _log_drop(self, connection: ClientConnection, why: str) -> None:
        now_s = asyncio.get_running_loop().time()
        if self._logged_s is None or now_s - self._logged_s >= LOG_INTERVAL_S:
            self._logged_s = now_s
            _log.warning(
                "connections without a request are dropped: %s; the oldest comes from %s (%d open)",
                why,
                connection.address,
                len(self._open),
            )

    def _sweep_later(self) -> None:
        self._sweeping = asyncio.get_running_loop().call_later(SWEEP_S, self._sweep)

    def _sweep(self) -> None:
        """Drop the connections whose deadline has passed."""
        self._sweeping = None
        now_s = asyncio.get_running_loop().time()
        for silent in list(self._silent.values()):
            for connection in list(silent):
                if now_s - connection.begun_s < HEAD_S:
                    break
                self.remove_connection(connection)
                connection.abort()
        for connection in list(self._open):
            if connection.is_write_stalled(now_s):
                self.remove_connection(connection)
                connection.abort()
        if self._open:
            self._sweep_later()


@web.middleware
async def track_requests(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Register each request with its connection while it is handled."""
    connection = request.protocol
    if not isinstance(connection, ClientConnection):
        return await handler(request)
    with connection.request_in_progress():
        return await handler(request)


def encode_target(data: bytes) -> bytes:
    """Percent-encode the raw characters in the target of the request line that begins
    ``data``.

    Clients that build URLs by hand send ``?token=Bearer KEY`` or a Chinese project name
    as it stands. HTTP does not allow it (RFC 9112, 3.2), but the meaning is
    unambiguous.
    """
    line, newline, rest = data.partition(b"\n")
    if not newline or (line.count(b" ") <= 2 and line.isascii()):
        return data
    # The rest of a body that was not read may arrive here, followed by the next
    # request.
    method, _, tail = line.partition(b" ")
    words, _, version = tail.rpartition(b" ")
    if not words or not method.isalpha() or not version.startswith(b"HTTP/1."):
        return data
    target = _NOT_ASCII.sub(lambda found: b"%%%02X" % found[0][0], words.replace(b" ", b"%20"))
    return b" ".join([method, target, version]) + newline + rest
