"""A worker's connections: given by the parent, served like those of a listener, now and then passed on."""

import asyncio
import hashlib
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from voicechat.errors import AtCapacityError
from voicechat.server.figures import Level
from voicechat.server.listener import app_runner
from voicechat.server.pressure import CAPACITY_RETRY_S
from voicechat.server.workers.link import MAX_PACKET_BYTES, Kind, Link, Packet, Report, close_fd

LOOK_S = 0.02
"""So long the parent takes a connection that has ended for open."""
REPORT_LOOKS = 10
"""After so many looks the parent is told although nothing has changed: that this process lives."""

_log = logging.getLogger(__name__)


class Guests:
    """The connections of worker ``number`` of ``workers``, counted from 0."""

    def __init__(self, link: Link, number: int, workers: int, port: int) -> None:
        """``port`` is where the parent listens."""
        self._link = link
        self._number = number
        self._workers = workers
        self._port = port
        self._server: web.Server | None = None
        self._taken = 0
        self._welcoming: set[asyncio.Task[None]] = set()
        self._level = Level.CALM
        self._reported = Report()

    @asynccontextmanager
    async def listening(self, app: web.Application) -> AsyncIterator[int]:
        """Serve what the parent gives while the context lasts; gives the parent's port. As `listener.listening`."""
        runner = app_runner(app)
        try:
            await runner.setup()
            self._server = runner.server
            self._link.send(Kind.LISTENING)
            reporting = asyncio.get_running_loop().create_task(self._report_for_ever(), name="report to the parent")
            try:
                yield self._port
            finally:
                reporting.cancel()
                await asyncio.wait([reporting])
        finally:
            self._server = None
            await runner.cleanup()

    def welcome(self, packet: Packet) -> None:
        """Serve the connection that comes with a packet; begin with what has been read of it already."""
        assert packet.fd is not None
        self._taken += 1
        if self._server is None:
            close_fd(packet.fd)
            return
        task = asyncio.get_running_loop().create_task(self._serve(packet.fd, packet.payload), name="welcome")
        self._welcoming.add(task)
        task.add_done_callback(self._welcoming.discard)
        self._report()  # at once: until then the parent would give the connection to another if this process died

    async def _serve(self, fd: int, head: bytes) -> None:
        connection = socket.socket(fileno=fd)
        connection.setblocking(False)
        try:
            assert self._server is not None
            _, protocol = await asyncio.get_running_loop().connect_accepted_socket(self._server, connection)
        except OSError:
            connection.close()  # gone before it was greeted
            return
        if head:
            protocol.data_received(head)

    def press(self, level: Level) -> None:
        """Let the parent know how much time there is here."""
        self._level = level

    def pass_on(self, request: web.Request, session: str) -> bool:
        """Give a connection to the worker that serves the stream ``session``; see `voicechat.server.sockets.PassOn`.

        The name alone says which worker that is: nobody keeps a list of streams, and two connections that open the same
        one at once meet. Raises ``AtCapacityError`` when it cannot be passed on now.
        """
        host = int.from_bytes(hashlib.blake2b(session.encode(), digest_size=8).digest()) % self._workers
        if host == self._number:
            return False
        transport = request.transport
        connection = transport.get_extra_info("socket") if transport is not None else None
        if transport is None or connection is None:
            raise ConnectionResetError("the client has gone")
        payload = bytes([host]) + _head_of(request)
        if len(payload) > MAX_PACKET_BYTES or not self._link.send(Kind.PASS_ON, payload, connection.fileno()):
            raise AtCapacityError("the stream cannot be reached now", CAPACITY_RETRY_S)
        # Closes this process' descriptor without a word to the client: the parent has one of its own now.
        transport.abort()
        return True

    async def _report_for_ever(self) -> None:
        while True:
            self._report()
            for _ in range(REPORT_LOOKS):
                await asyncio.sleep(LOOK_S)
                if self._state() != self._reported:
                    break

    def _report(self) -> None:
        self._reported = self._state()
        self._link.send(Kind.REPORT, self._reported.encode())

    def _state(self) -> Report:
        is_open = len(self._server.connections) if self._server is not None else 0
        return Report(self._taken, is_open + len(self._welcoming), self._level)


def _head_of(request: web.Request) -> bytes:
    """Write the request as it came. A client that opens a WebSocket sends nothing more before it is answered."""
    version = request.version
    lines = [f"{request.method} {request.raw_path} HTTP/{version.major}.{version.minor}".encode()]
    lines += [name + b": " + value for name, value in request.raw_headers]
    return b"\r\n".join([*lines, b"", b""])
