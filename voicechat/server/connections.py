"""The connections of one process: bounded while they ask for nothing, and dropped when
they stall.

Anybody can open connections, without a key. So one that has not sent the head of a
request has a deadline, and there are bounds for each address and for all together; past
them the oldest that ask for nothing are dropped, since an honest client sends its
request as soon as it is connected. Sessions and requests in progress are never dropped
for a newcomer.
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
"""From the connection to the head of its first request."""
KEEP_ALIVE_S = 75.0
"""Between two requests: longer than the 60 s of usual reverse proxies, so that they
close first.
"""
UNREAD_S = 20.0
"""A client that reads nothing of its answer for so long is cut off."""
SILENT_PER_ADDRESS = 64
"""Connections of one address that have not sent a request yet."""
SWEEP_S = 1.0
PIECE_BYTES = 16 * 1024
"""Parsed in one pass of the event loop: a body in chunks of one byte takes 0.4 us a
byte.
"""
LOG_INTERVAL_S = 60.0
"""A flood is told of once in so long."""
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
"""What aiohttp's handler of a connection is made with."""


class ClientConnection(web.RequestHandler):
    """aiohttp's handler of one connection, which its ``Connections`` know of."""

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
        """Has been received, and is parsed in later passes of the event loop."""
        self._due = False
        """``_go_on`` will be called in the next pass."""
        self._unread_bytes = 0
        self._unread_since_s = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, unless there are too many."""
        super().connection_made(transport)
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are no subclass of it
        peer = transport.get_extra_info("peername")
        self.address = network_of(peer[0]) if peer else ""
        self._connections.add_connection(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Forget it."""
        waiting = None if self._request_in_progress else self._task_handler
        super().connection_lost(exc)
        if waiting is not None:
            # aiohttp would begin a request that has come just before, and fail.
            waiting.cancel()
        self._transport = None
        self._connections.remove_connection(self)

    def data_received(self, data: bytes) -> None:
        """Hand data to aiohttp; what is raw in a target is encoded before."""
        if not self._has_line:
            data = self._line + data
            # What begins with no method is no request (TLS, say): aiohttp says so at
            # once.
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
            # What is received in the meantime could not be parsed before this.
            self._pause_reading_for_buffer()
            self._go_on()
        else:
            super().data_received(data)

    def _go_on(self) -> None:
        """Parse a piece of what is held, unless aiohttp has enough to do."""
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
        """See aiohttp: there is room for more of a body."""
        super().resume_reading(resume_parser)
        if self._held:
            self._go_on_soon()

    def _resume_reading_for_buffer(self) -> None:
        if self._held:
            self._go_on_soon()
        else:
            super()._resume_reading_for_buffer()

    def set_parser(self, parser: Any, data_received_cb: Callable[[], None] | None = None) -> None:
        """See aiohttp: what comes now, and what has come, is no HTTP."""
        super().set_parser(parser, data_received_cb)
        held, self._held = self._held, b""
        if held:
            parser.feed_data(held)
            self._resume_reading_if_drained()

    @property
    def unparsed(self) -> bytes:
        """What has come after an upgrade that is not answered yet."""
        return self._message_tail + self._held

    def request_in_progress(self) -> AbstractContextManager[None]:
        """See ``Connections.requesting``."""
        return self._connections.request_in_progress(self)

    def is_write_stalled(self, now_s: float) -> bool:
        """Whether the client has read nothing for ``UNREAD_S`` of what waits for it."""
        if self._transport is None:
            return False
        unread_bytes = self._transport.get_write_buffer_size()
        if not unread_bytes or unread_bytes < self._unread_bytes or not self._unread_bytes:
            self._unread_since_s = now_s
        self._unread_bytes = unread_bytes
        return unread_bytes > 0 and now_s - self._unread_since_s >= UNREAD_S

    def drop(self) -> None:
        """Close it at once."""
        if self._transport is not None:
            self._transport.abort()


class Connections:
    """All connections of a server in this process, and the bounds on them.

    It is the protocol factory that accepted sockets are connected with.
    """

    def __init__(self, server: web.Server, most: int | None = None) -> None:
        """``most``: how many there may be; by default half of the process's
        descriptors.
        """
        self._server = server
        self._most = descriptors.for_clients() if most is None else most
        self._open: dict[ClientConnection, None] = {}
        self._idle: dict[ClientConnection, None] = {}
        """Those at which no request is in progress; the one that rests longest comes
        first.
        """
        self._silent: defaultdict[str, dict[ClientConnection, None]] = defaultdict(dict)
        """By address, those that have never sent a request; the oldest comes first."""
        self._sweeping: asyncio.TimerHandle | None = None
        self._told_s: float | None = None

    def __len__(self) -> int:
        """How many there are."""
        return len(self._open)

    def __call__(self) -> ClientConnection:
        """Make the handler of a connection."""
        return ClientConnection(self, self._server)

    def add_connection(self, connection: ClientConnection) -> None:
        """Count a new connection; one that asks for nothing may be dropped for it."""
        self._open[connection] = None
        self._idle[connection] = None
        silent = self._silent[connection.address]
        silent[connection] = None
        if len(silent) > SILENT_PER_ADDRESS:
            self._drop(next(iter(silent)), f"more than {SILENT_PER_ADDRESS} of an address wait")
        elif len(self._open) > self._most:
            # The newcomer itself, where all others are at a request.
            self._drop(next(iter(self._idle)), f"there are more than {self._most}")
        if self._sweeping is None:
            self._sweep_later()

    def remove_connection(self, connection: ClientConnection) -> None:
        """Count a connection no longer. Idempotent."""
        self._open.pop(connection, None)
        self._idle.pop(connection, None)
        self._mark_active(connection)

    def is_idle(self, connection: ClientConnection) -> bool:
        """Whether no request is in progress at it."""
        return connection in self._idle

    @contextmanager
    def request_in_progress(self, connection: ClientConnection) -> Iterator[None]:
        """Note that a request is in progress while the context lasts."""
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
        connection.drop()

    def _log_drop(self, connection: ClientConnection, why: str) -> None:
        now_s = asyncio.get_running_loop().time()
        if self._told_s is None or now_s - self._told_s >= LOG_INTERVAL_S:
            self._told_s = now_s
            _log.warning(
                "connections without a request are dropped: %s; the oldest comes from %s (%d open)",
                why,
                connection.address,
                len(self._open),
            )

    def _sweep_later(self) -> None:
        self._sweeping = asyncio.get_running_loop().call_later(SWEEP_S, self._sweep)

    def _sweep(self) -> None:
        """Drop the connections whose time is over."""
        self._sweeping = None
        now_s = asyncio.get_running_loop().time()
        for silent in list(self._silent.values()):
            for connection in list(silent):
                if now_s - connection.begun_s < HEAD_S:
                    break
                self.remove_connection(connection)
                connection.drop()
        for connection in list(self._open):
            if connection.is_write_stalled(now_s):
                self.remove_connection(connection)
                connection.drop()
        if self._open:
            self._sweep_later()


@web.middleware
async def track_requests(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Let the connections know at which of them a request is in progress."""
    connection = request.protocol
    if not isinstance(connection, ClientConnection):
        return await handler(request)
    with connection.request_in_progress():
        return await handler(request)


def encode_target(data: bytes) -> bytes:
    """Encode what is raw in the target of the request line that ``data`` begins with,
    if anything.

    Clients that build addresses by hand write ``?token=Bearer KEY`` or a project's
    Chinese name as it stands. HTTP has no place for that (RFC 9112, 3.2), but what is
    meant is certain.
    """
    line, newline, rest = data.partition(b"\n")
    if not newline or (line.count(b" ") <= 2 and line.isascii()):
        return data
    # The rest of a body that nobody waited for may come here, with the next request
    # behind it; so may bytes that are no HTTP at all.
    method, _, tail = line.partition(b" ")
    words, _, version = tail.rpartition(b" ")
    if not words or not method.isalpha() or not version.startswith(b"HTTP/1."):
        return data
    target = _NOT_ASCII.sub(lambda found: b"%%%02X" % found[0][0], words.replace(b" ", b"%20"))
    return b" ".join([method, target, version]) + newline + rest
