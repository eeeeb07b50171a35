"""A network in memory: connections with delay and jitter that are cut, that stay
half-open, and whose clients read slowly or not at all.

A connection carries whole messages. What its sender has handed over arrives in order;
on each way a message is never earlier than the one before it.
"""

import asyncio
import hashlib
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, cast

from aiohttp import HttpVersion11, StreamReader, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import RawRequestMessage
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from voicechat.dialects.base import Frame
from voicechat.runtime.socket import Control, Ping, Pong
from voicechat.session.limits import SessionLimits

WINDOW_BYTES = 32 * 1024
"""What the network takes of a server while the client reads nothing."""
LINGER_S = 2.0
"""How long a server waits for the client's answer to its close frame."""
LOST = 1006
"""The close code of a connection that is gone without a close frame (RFC 6455,
section 7.1.5).
"""


@dataclass(frozen=True, slots=True)
class LinkQuality:
    """How a connection behaves while nothing happens to it."""

    delay_s: float = 0.02
    """The time that a message takes, at least."""
    jitter_s: float = 0.0
    """The most that is added to it, evenly distributed."""


class Trace:
    """A digest of all that crosses the network: two runs that are alike have the same.
    ``keep`` keeps the text of each entry, too, to compare them.
    """

    def __init__(self, *, keep: bool = False) -> None:
        self._digest = hashlib.blake2b(digest_size=16)
        self.entries: list[str] | None = [] if keep else None

    def note(self, at_s: float, link: int, what: str, data: bytes) -> None:
        """Add one entry."""
        self._digest.update(b"%d %d %s %d " % (at_s * 1e6, link, what.encode(), len(data)))
        self._digest.update(data)
        if self.entries is not None:
            text = data[:200].decode(errors="replace")
            shown = text if text.isprintable() else f"{len(data)} bytes"
            self.entries.append(f"{at_s:.6f} {link} {what} {shown}")

    @property
    def digest(self) -> str:
        """The digest so far, in hexadecimal digits."""
        return self._digest.hexdigest()


class OneWay:
    """One direction of a connection: delivers in order, each message after a delay."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        quality: LinkQuality,
        random: Random,
        deliver: Callable[[Any], None],
    ) -> None:
        self._loop = loop
        self._quality = quality
        self._random = random
        self._deliver = deliver
        self._under_way: deque[tuple[float, Any]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._last_s = 0.0

    def put(self, message: Any) -> None:
        """Send a message on its way."""
        jitter_s = self._quality.jitter_s
        due_s = self._loop.time() + self._quality.delay_s
        if jitter_s:
            due_s += self._random.random() * jitter_s
        self._last_s = due_s = max(due_s, self._last_s)
        self._under_way.append((due_s, message))
        if self._timer is None:
            self._timer = self._loop.call_at(due_s, self._arrive)

    def drop(self) -> None:
        """Lose what is under way."""
        self._under_way.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arrive(self) -> None:
        self._timer = None
        now_s = self._loop.time() + 1e-9
        while self._under_way and self._under_way[0][0] <= now_s:
            self._deliver(self._under_way.popleft()[1])
        if self._under_way and self._timer is None:
            self._timer = self._loop.call_at(self._under_way[0][0], self._arrive)


@dataclass(frozen=True, slots=True)
class _CloseFrame:
    code: int
    reason: str


class _Lost:
    """The connection is gone: what arrives last."""


_LOST = _Lost()


class SimulatedLink:
    """One connection between a client and a server. Its methods are the client's side;
    ``ServerEnd`` is the server's.
    """

    def __init__(
        self, number: int, quality: LinkQuality, random: Random, trace: Trace, address: str
    ) -> None:
        """Within a running loop. ``address`` is the client's."""
        self.number = number
        self.address = address
        self.on_frame: Callable[[Frame], None] = lambda _frame: None
        """Called with each frame that the client reads."""
        self.on_end: Callable[[int], None] = lambda _code: None
        """Called once, when the client learns that the connection is over, with the
        close code, ``LOST``, or the HTTP status of a refusal without an upgrade.
        """
        self._loop = asyncio.get_running_loop()
        self._trace = trace
        self._up = OneWay(self._loop, quality, random, self._reach_server)
        self._down = OneWay(self._loop, quality, random, self._reach_client)
        self._unread: deque[Frame | _CloseFrame | Ping] = deque()
        self._unread_bytes = 0
        self._reading = True
        self._client_over = False
        """The client has left or knows that the connection is gone."""
        self._vanished = False
        """Nothing reaches the other end any more, and neither end is told."""
        self._server_over = False
        """The server has dropped the connection, or knows that it is gone."""
        self._arrived: deque[Frame | Control | Ping] = deque()
        self._has_arrived = asyncio.Event()
        self._has_room = asyncio.Event()
        self._has_room.set()
        self.take: Callable[[Frame], bool] | None = None
        """See ``Socket.offer``."""

    # --- the client's side ------------------------------------------------------------

    @property
    def open(self) -> bool:
        """Whether the client believes that it is connected."""
        return not self._client_over

    @property
    def half_open(self) -> bool:
        """Whether what either end sends is lost."""
        return self._vanished

    def send(self, frame: Frame | Ping) -> None:
        """Send a frame. On a connection that is gone it is lost."""
        if self._client_over or self._vanished:
            return
        self._note("up", frame)
        self._up.put(frame)

    def leave(self, code: int = 1000) -> None:
        """Close the connection as the protocol wants it."""
        if not self._client_over:
            self._note("leaves", b"")
            if not self._vanished:
                self._up.put(_CloseFrame(code, ""))
            self._end_client(code)

    def cut(self) -> None:
        """Lose the connection. Both ends learn of it, and what is under way is lost."""
        if self._client_over and self._server_over:
            return
        self._note("cut", b"")
        self._up.drop()
        self._down.drop()
        if not self._vanished:
            self._up.put(_LOST)
        self._end_client(LOST)

    def vanish(self) -> None:
        """Become half-open: what either end sends is lost, and nobody is told."""
        self._note("vanishes", b"")
        self._vanished = True
        self._up.drop()
        self._down.drop()

    def stop_reading(self) -> None:
        """Leave what arrives unread: after ``WINDOW_BYTES`` the server must wait."""
        self._reading = False

    def resume_reading(self) -> None:
        """Read again, first what has arrived meanwhile."""
        self._reading = True
        while self._unread and self._reading and not self._client_over:
            self._read(self._unread.popleft())

    # --- the server's side ------------------------------------------------------------

    def crash(self, *, told: bool) -> None:
        """The server's machine dies: nothing more leaves it. ``told``: its system
        still resets the connection; else the client learns nothing.
        """
        self._server_over = True
        self._up.drop()
        if told:
            self._down.put(_LOST)
        else:
            self.vanish()
        self._arrived.append(Control.CLOSED)
        self._has_arrived.set()
        self._has_room.set()

    def refuse(self, http_status: int) -> None:
        """Answer the request without an upgrade."""
        self._server_over = True
        self._down.put(_CloseFrame(http_status, ""))

    def hand_over(self, frame: Frame | Pong | Ping | _CloseFrame) -> None:
        """Take a message of the server. Raises ``ConnectionResetError`` when it knows
        that the connection is gone.
        """
        if self._server_over:
            raise ConnectionResetError("gone")
        self._unread_bytes += _size(frame)
        if self._unread_bytes > WINDOW_BYTES:
            self._has_room.clear()
        if not self._vanished and not isinstance(frame, Pong):
            self._down.put(frame)

    def drop(self) -> None:
        """The server drops the connection at once."""
        if not self._server_over:
            self._server_over = True
            self._up.drop()
            if not self._vanished:
                self._down.put(_LOST)
        if not self._arrived or self._arrived[-1] is not Control.CLOSED:
            self._arrived.append(Control.CLOSED)
        self._has_arrived.set()
        self._has_room.set()

    async def receive(self) -> Frame | Control | Ping:
        """Wait for the next message of the client."""
        while not self._arrived:
            self._has_arrived.clear()
            await self._has_arrived.wait()
        if self._arrived[0] is Control.CLOSED:
            return Control.CLOSED
        return self._arrived.popleft()

    @property
    def has_room(self) -> bool:
        """Whether the network takes more of the server."""
        return self._unread_bytes <= WINDOW_BYTES

    async def drained(self) -> None:
        """Wait until ``has_room``. Raises ``ConnectionResetError`` when the server
        knows that the connection is gone.
        """
        while not self.has_room:
            if self._server_over:
                raise ConnectionResetError("gone")
            self._has_room.clear()
            await self._has_room.wait()

    async def closed(self) -> None:
        """Wait until nothing more can come from the client."""
        while not (self._arrived and self._arrived[-1] is Control.CLOSED):
            self._has_arrived.clear()
            await self._has_arrived.wait()

    # --- what arrives -----------------------------------------------------------------

    def _reach_server(self, message: Any) -> None:
        if self._server_over:
            return
        if isinstance(message, _CloseFrame | _Lost):
            self._server_over = True
            self._arrived.append(Control.CLOSED)
            self._has_room.set()
        elif (
            self.take is not None
            and not self._arrived
            and message
            and not isinstance(message, Ping | Control)
            and self.take(message)
        ):
            return
        else:
            self._arrived.append(message)
        self._has_arrived.set()

    def _reach_client(self, message: Any) -> None:
        if self._client_over:
            return
        if isinstance(message, _Lost):
            self._note("lost", b"")
            self._end_client(LOST)
        elif self._reading:
            self._read(message)
        else:
            self._unread.append(message)

    def _read(self, message: Frame | Ping | _CloseFrame) -> None:
        self._unread_bytes -= _size(message)
        if self._unread_bytes <= WINDOW_BYTES:
            self._has_room.set()
        if isinstance(message, Ping):
            self._up.put(Control.PONG)
        elif isinstance(message, _CloseFrame):
            self._note(f"closed {message.code}", b"")
            self._up.put(_CloseFrame(message.code, ""))
            self._end_client(message.code)
        else:
            self._note("down", message)
            self.on_frame(message)

    def _end_client(self, code: int) -> None:
        if not self._client_over:
            self._client_over = True
            self._unread.clear()
            self._unread_bytes = 0
            self._has_room.set()
            self.on_end(code)

    def _note(self, what: str, frame: Frame | Ping) -> None:
        data = frame.payload if isinstance(frame, Ping) else frame
        if isinstance(data, str):
            data = data.encode("utf-8", "surrogatepass")
        self._trace.note(self._loop.time(), self.number, what, data)


def _size(message: Frame | Pong | Ping | _CloseFrame) -> int:
    return len(message) if isinstance(message, str | bytes) else 8


class ServerEnd:
    """The server's end of a ``SimulatedLink``: an ``UpgradedSocket``. The link comes
    with the request that is opened.
    """

    def __init__(self, limits: SessionLimits, protocols: Sequence[str] = ()) -> None:
        self._link: SimulatedLink | None = None

    @property
    def link(self) -> SimulatedLink:
        """The connection. Ask only after ``open``."""
        assert self._link is not None, "a socket is opened before it is used"
        return self._link

    async def open(self, request: web.Request) -> web.StreamResponse:
        """Take the connection of the request."""
        if not web.WebSocketResponse().can_prepare(request):
            raise web.HTTPUpgradeRequired
        self._link = cast(_LinkTransport, request.transport).link
        return web.Response()

    async def receive(self) -> Frame | Control | Ping:
        """Receive the next message; see ``Socket.receive``."""
        return await self.link.receive()

    def offer(self, take: Callable[[Frame], bool]) -> None:
        """Offer each frame to ``take``; see ``Socket.offer``."""
        self.link.take = take

    def pause_reading(self) -> None:
        """Do nothing: the simulated loop is never late."""

    def resume_reading(self) -> None:
        """Do nothing; see ``pause_reading``."""

    async def send(self, frame: Frame | Pong) -> None:
        """Send a frame, and wait while the client does not read."""
        self.link.hand_over(frame)
        await self.link.drained()

    async def drained(self) -> None:
        """Wait until there is room; see ``Socket.drained``."""
        await self.link.drained()

    @property
    def has_room(self) -> bool:
        """Whether there is room; see ``Socket.has_room``."""
        return self.link.has_room

    def send_now(self, frame: Frame | Pong) -> None:
        """Send a frame without waiting."""
        self.link.hand_over(frame)

    async def ping(self) -> None:
        """Send a ping, which the client's system answers."""
        self.link.hand_over(Ping(b""))

    async def close(self, code: int, reason: str) -> None:
        """Send a close frame and wait for the answer."""
        self.link.hand_over(_CloseFrame(code, reason))
        await self.link.closed()

    def abort(self) -> None:
        """Drop the connection."""
        if self._link is not None:
            self._link.drop()

    async def linger(self) -> None:
        """Do nothing: ``close`` has waited for the answer."""


class _LinkTransport(asyncio.Transport):
    """What a request knows of its connection."""

    def __init__(self, link: SimulatedLink) -> None:
        super().__init__({"peername": (link.address, 40_000 + link.number % 20_000)})
        self.link = link


class _LinkProtocol:
    """The part of aiohttp's protocol that a request looks at."""

    ssl_context = None
    sockname = None

    def __init__(self, transport: _LinkTransport) -> None:
        self.transport = transport
        self.peername = transport.get_extra_info("peername")


_WRITER = cast(AbstractStreamWriter, None)
_BODY = cast(StreamReader, None)
_UPGRADE = {
    "Host": "voice.example",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
}


def upgrade_request(
    link: SimulatedLink, target: str, headers: Mapping[str, str], task: "asyncio.Task[None]"
) -> web.Request:
    """Return the request for a WebSocket at ``target``, a path with its query."""
    fields = CIMultiDict({**_UPGRADE, **headers})
    raw = tuple((name.encode(), value.encode()) for name, value in fields.items())
    message = RawRequestMessage(
        "GET",
        target,
        HttpVersion11,
        CIMultiDictProxy(fields),
        raw,
        False,
        None,
        True,
        False,
        URL(target, encoded=True),
    )
    protocol = cast(web.RequestHandler, _LinkProtocol(_LinkTransport(link)))
    return web.Request(
        message, _BODY, protocol, _WRITER, task, asyncio.get_running_loop(), client_max_size=0
    )
