"""A worker's connections: received from the parent, served like accepted ones,
sometimes passed on to another worker.
"""

import asyncio
import hashlib
import logging
import math
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from voicechat.errors import AtCapacityError
from voicechat.server.connections import LOG_INTERVAL_S, ClientConnection, Connections
from voicechat.server.listener import handling
from voicechat.server.load_shedding import CAPACITY_RETRY_S
from voicechat.server.load_signals import LoadLevel
from voicechat.server.workers.ipc_channel import (
    MAX_PACKET_BYTES,
    IpcChannel,
    LoadReport,
    Packet,
    PacketKind,
    close_fd,
)

POLL_S = 0.02
"""Interval between checks for a change of load. The parent counts an ended connection
as open for at most 20 ms.
"""
REPORT_POLLS = 10
"""After this many polls without a change a report is sent anyway, as a heartbeat."""

_log = logging.getLogger(__name__)


class WorkerConnections:
    """The connections of worker ``number`` of ``workers``, counted from 0."""

    def __init__(self, channel: IpcChannel, number: int, workers: int, port: int) -> None:
        """``port`` is where the parent listens."""
        self._channel = channel
        self._number = number
        self._workers = workers
        self._port = port
        self._connections: Connections | None = None
        """None while no connections are served."""
        self._logged_s = -math.inf
        self._received = 0
        self._connecting: set[asyncio.Task[None]] = set()
        self._level = LoadLevel.CALM
        self._reported = LoadReport()

    @asynccontextmanager
    async def listening(self, app: web.Application) -> AsyncIterator[int]:
        """Serve the connections that the parent sends while the context lasts; yields
        the parent's port.

        The counterpart of `listener.listening`.
        """
        async with handling(app) as self._connections:
            self._channel.send_packet(PacketKind.LISTENING)
            reporting = asyncio.get_running_loop().create_task(
                self._report_regularly(), name="report to the parent"
            )
            try:
                yield self._port
            finally:
                self._connections = None
                reporting.cancel()
                await asyncio.wait([reporting])

    def adopt_connection(self, packet: Packet) -> None:
        """Serve the connection that comes with a packet, beginning with the bytes
        already read from it.
        """
        self._received += 1
        if packet.fd is None:
            # The kernel passes no descriptor to a process that has none left. The
            # parent closes its own copy when the report counts the connection as
            # received.
            self._log_lost()
        elif self._connections is None:
            close_fd(packet.fd)
        else:
            connecting = self._serve(self._connections, packet.fd, packet.payload)
            task = asyncio.get_running_loop().create_task(connecting, name="welcome")
            self._connecting.add(task)
            task.add_done_callback(self._connecting.discard)
        # Report at once: until then the parent would send the connection to another
        # worker if this process died.
        self._report()

    def _log_lost(self) -> None:
        now_s = asyncio.get_running_loop().time()
        if now_s - self._logged_s >= LOG_INTERVAL_S:
            self._logged_s = now_s
            _log.error("connections are lost: this process has no descriptor left for them")

    async def _serve(self, connections: Connections, fd: int, head: bytes) -> None:
        connection = socket.socket(fileno=fd)
        connection.setblocking(False)
        try:
            _, protocol = await asyncio.get_running_loop().connect_accepted_socket(
                connections, connection
            )
        except OSError:
            connection.close()  # the client has gone already
            return
        if head:
            protocol.data_received(head)

    def set_load_level(self, level: LoadLevel) -> None:
        """Set the level that the reports to the parent carry."""
        self._level = level

    def pass_on(self, request: web.Request, session: str) -> bool:
        """Pass a connection on to the worker that serves the stream ``session``; see
        `voicechat.server.mount.PassOn`.

        The worker is a hash of the name. No list of streams is kept, and two
        connections that open the same stream at once reach the same worker. Raises
        ``AtCapacityError`` when the connection cannot be passed on now.
        """
        host = (
            int.from_bytes(hashlib.blake2b(session.encode(), digest_size=8).digest())
            % self._workers
        )
        if host == self._number:
            return False
        transport = request.transport
        connection = transport.get_extra_info("socket") if transport is not None else None
        if transport is None or connection is None:
            raise ConnectionResetError("the client has gone")
        payload = bytes([host]) + _head_of(request)
        if len(payload) > MAX_PACKET_BYTES or not self._channel.send_packet(
            PacketKind.PASS_ON, payload, connection.fileno()
        ):
            raise AtCapacityError("the stream cannot be reached now", CAPACITY_RETRY_S)
        # Closes this process' descriptor without sending anything: the parent has its
        # own.
        transport.abort()
        return True

    async def _report_regularly(self) -> None:
        while True:
            self._report()
            for _ in range(REPORT_POLLS):
                await asyncio.sleep(POLL_S)
                if self._state() != self._reported:
                    break

    def _report(self) -> None:
        self._reported = self._state()
        self._channel.send_packet(PacketKind.REPORT, self._reported.encode())

    def _state(self) -> LoadReport:
        is_open = 0 if self._connections is None else len(self._connections)
        return LoadReport(self._received, is_open + len(self._connecting), self._level)


def _head_of(request: web.Request) -> bytes:
    """Rebuild the request as it was received, followed by the bytes that the client
    sent without waiting for the response.
    """
    version = request.version
    lines = [f"{request.method} {request.raw_path} HTTP/{version.major}.{version.minor}".encode()]
    lines += [name + b": " + value for name, value in request.raw_headers]
    early = request.protocol.unparsed if isinstance(request.protocol, ClientConnection) else b""
    return b"\r\n".join([*lines, b"", early])
