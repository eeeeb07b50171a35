"""What the parent and a worker say to each other: packets over a socket pair, some with
a connection attached.
"""

import array
import contextlib
import os
import socket
from dataclasses import dataclass
from enum import Enum

import orjson

from voicechat.errors import VoiceChatError

MAX_PACKET_BYTES = 64 * 1024
"""The longest payload is the head of a request whose connection is passed on; one that
is longer is refused.
"""
_MAX_FDS = 1


class ChannelClosedError(VoiceChatError):
    """The other side has closed the link, or its process has ended."""


class PacketKind(Enum):
    """What a packet is about; the comment says who sends it."""

    CONNECTION = b"c"  # the parent: serve this; the payload is what has been read of it already
    ALL_READY = b"a"  # the parent: whether every worker is ready
    DRAIN = b"d"  # the parent: end within so many seconds
    STOP = b"s"  # the parent: end now
    LISTENING = b"l"  # a worker: connections may come
    READY = b"r"  # a worker: sessions may come
    REPORT = b"o"  # a worker, again and again: how much it has to do
    PASS_ON = b"p"  # a worker: give this connection to the worker whose number begins the payload
    FAILED = b"f"  # a worker: why it cannot start


@dataclass(frozen=True, slots=True)
class Packet:
    """One thing said. Whoever receives it owns the descriptor ``fd``."""

    kind: PacketKind
    payload: bytes = b""
    fd: int | None = None


@dataclass(frozen=True, slots=True)
class LoadReport:
    """How much a worker has to do."""

    taken: int = 0
    """Connections that it was ever given."""
    open: int = 0
    """Those of them that are still open."""
    level: int = 0
    """Its `Level` of pressure."""

    def encode(self) -> bytes:
        """Write it as a payload."""
        return orjson.dumps([self.taken, self.open, self.level])

    @classmethod
    def decode(cls, payload: bytes) -> "LoadReport":
        """Read what ``encode`` has written."""
        return cls(*orjson.loads(payload))


def supports_channels() -> bool:
    """Whether this system can do it: it needs local packets in order, which Windows and
    macOS lack.
    """
    try:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    except (AttributeError, OSError):
        return False
    ours.close()
    theirs.close()
    return True


def open_channel() -> tuple["IpcChannel", socket.socket]:
    """Make a link: this process' end, and the one to give away."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return IpcChannel(ours), theirs


class IpcChannel:
    """One end. Nothing here waits."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock

    def fileno(self) -> int:
        """The descriptor, for an event loop that tells when something can be received."""
        return self._sock.fileno()

    def send_packet(self, kind: PacketKind, payload: bytes = b"", fd: int | None = None) -> bool:
        """Say something; ``fd`` stays the caller's. False: the other side is gone, or
        has not listened for long.
        """
        attached = (
            [] if fd is None else [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))]
        )
        try:
            self._sock.sendmsg([kind.value, payload], attached)
        except OSError:
            return False
        return True

    def receive_packet(self) -> Packet | None:
        """Take what has come; None when nothing has. Raises ``ChannelClosedError``."""
        try:
            said, fds, _, _ = socket.recv_fds(
                self._sock, 1 + MAX_PACKET_BYTES, _MAX_FDS, getattr(socket, "MSG_CMSG_CLOEXEC", 0)
            )
        except BlockingIOError:
            return None
        except OSError as error:
            raise ChannelClosedError("the link is broken") from error
        if not said:
            raise ChannelClosedError("the other side has closed the link")
        return Packet(PacketKind(said[:1]), said[1:], fds[0] if fds else None)

    def close(self) -> None:
        """Close this end. Idempotent."""
        self._sock.close()


def close_fd(fd: int) -> None:
    """Close a descriptor that nobody took."""
    with contextlib.suppress(OSError):
        os.close(fd)
