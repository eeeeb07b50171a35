"""Finds out who opens a connection: by the request, or by the first frames."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from aiohttp import web

from voicechat.dialects.base import (
    Caller,
    Endpoint,
    Frame,
    Handshake,
)
from voicechat.errors import AdmissionError, RemoteProtocolError, Status
from voicechat.runtime.socket import Control, Ping, Pong, Socket
from voicechat.server.auth import SECRET_PARAMETERS, SECRET_PROTOCOL, offered_protocols
from voicechat.server.auth_throttle import network_of

GREETING_S = 10.0
"""How long a caller may take to identify itself."""
MOST_GREETING = 512
"""Most connections that have not identified themselves yet."""
GREETING_OF_ADDRESS = 128
"""Most of these from one address, so that it cannot use up the slots of the others. A
telephone system has one address for all its calls, and so has a reverse proxy.
"""
_SECRET_HEADERS = frozenset(
    {"authorization", "cookie", "proxy-authorization", "sec-websocket-protocol", "x-api-key"}
)


@dataclass(frozen=True, slots=True)
class RejectedCaller:
    """Why a caller's request is not acceptable."""

    status: Status
    message: str


class GreetingSlots:
    """Bounds how many connections have not identified themselves yet."""

    def __init__(self) -> None:
        self._by_address: Counter[str] = Counter()

    @contextmanager
    def taken(self, peer: str) -> Iterator[None]:
        """Take a slot for the peer's network while the context lasts. Raises
        ``AdmissionError`` if there is none.
        """
        address = network_of(peer)
        if (
            self._by_address.total() >= MOST_GREETING
            or self._by_address[address] >= GREETING_OF_ADDRESS
        ):
            raise AdmissionError(
                Status.AT_CAPACITY, "too many connections have not said who they are"
            )
        self._by_address[address] += 1
        try:
            yield
        finally:
            self._by_address[address] -= 1
            if not self._by_address[address]:
                del self._by_address[address]


class ReplayedSocket:
    """A ``Socket`` that first repeats frames that were already received."""

    def __init__(self, socket: Socket, frames: Sequence[Frame]) -> None:
        self._socket = socket
        self._frames = list(frames)
        self.send = socket.send
        self.drained = socket.drained
        self.send_now = socket.send_now
        self.ping = socket.ping
        self.close = socket.close
        self.abort = socket.abort
        self.pause_reading = socket.pause_reading
        self.resume_reading = socket.resume_reading

    async def receive(self) -> Frame | Control | Ping:
        """Receive the next of the first frames, then the socket's."""
        return self._frames.pop(0) if self._frames else await self._socket.receive()

    def offer(self, take: Callable[[Frame], bool]) -> None:
        """Offer the socket's frames to ``take``, once the first frames have been
        received.

        Earlier ones would overtake them.
        """
        self._socket.offer(lambda frame: not self._frames and take(frame))

    @property
    def has_room(self) -> bool:
        """Whether the socket has room for more."""
        return self._socket.has_room


def identify(
    endpoint: Endpoint, handshake: Handshake, frames: Sequence[Frame]
) -> "Caller | RejectedCaller | None":
    """Return the caller, None while it is not known, or why the request is not
    acceptable.
    """
    try:
        return endpoint.identify(handshake, frames)
    except RemoteProtocolError as error:
        # Not the error itself: kept in a frame of its own traceback it would be a
        # reference cycle.
        return RejectedCaller(error.status, error.message)


async def _receive_until_identified(
    endpoint: Endpoint, handshake: Handshake, socket: Socket
) -> tuple[Caller | None, list[Frame]]:
    """Receive frames until the caller is identified; None when the connection is
    lost.
    """
    frames: list[Frame] = []
    while (caller := identify(endpoint, handshake, frames)) is None:
        if len(frames) >= endpoint.greeting_frames:
            message = "the first frames do not say who is calling"
            raise AdmissionError(Status.MALFORMED, message)
        frame = await socket.receive()
        if frame is Control.CLOSED:
            return None, frames
        if isinstance(frame, Ping):
            await socket.send(Pong(frame.payload))
        elif not isinstance(frame, Control):
            frames.append(frame)
    if isinstance(caller, RejectedCaller):
        raise AdmissionError(caller.status, caller.message)
    return caller, frames


def handshake_of(request: web.Request, url: str) -> Handshake:
    """Return the request as a handshake, without secrets. ``url``: how the client
    reached the server.
    """
    return Handshake(
        url=url,
        variables=dict(request.match_info),
        query={key: value for key, value in request.query.items() if key not in SECRET_PARAMETERS},
        headers={
            name.lower(): value
            for name, value in request.headers.items()
            if name.lower() not in _SECRET_HEADERS
        },
        protocols=tuple(
            name for name in offered_protocols(request) if not name.startswith(SECRET_PROTOCOL)
        ),
        peer=request.remote or "",
    )


async def await_caller(
    slots: GreetingSlots, endpoint: Endpoint, handshake: Handshake, socket: Socket
) -> tuple[Caller | None, list[Frame]]:
    """Receive frames until the caller is identified, and return it with these frames;
    None when the connection is lost.

    Raises ``AdmissionError``, also when nobody identifies itself within ``GREETING_S``.
    """
    try:
        with slots.taken(handshake.peer):
            async with asyncio.timeout(GREETING_S):
                return await _receive_until_identified(endpoint, handshake, socket)
    except TimeoutError:
        message = f"nobody said who is calling for {GREETING_S:.0f} s"
        raise AdmissionError(Status.TIMEOUT, message) from None
