"""The protocol between the parent and a worker: packets over a socket pair, some with a
connection attached.
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
"""Largest payload. The longest one is the head of a request whose connection is passed
on; a longer head is refused.
"""
_MAX_FDS = 1


class ChannelClosedError(VoiceChatError):
    """The other side has closed the channel, or its process has ended."""


class PacketKind(Enum):
    """The kind of a packet; each comment names the sender."""

    CONNECTION = b"c"  # parent: serve this connection; payload: the bytes already read
    ALL_READY = b"a"  # parent: whether every worker is ready
    DRAIN = b"d"  # parent: drain within the given seconds
    STOP = b"s"  # parent: stop now
    LISTENING = b"l"  # worker: connections may come
    READY = b"r"  # worker: sessions may come
    REPORT = b"o"  # worker, repeatedly: its load
    PASS_ON = b"p"  # worker: send this connection to the worker whose number begins the payload
    FAILED = b"f"  # worker: why it cannot start


@dataclass(frozen=True, slots=True)
class Packet:
    """One packet. Its receiver owns the descriptor ``fd``."""

    kind: PacketKind
    payload: bytes = b""
    fd: int | None = None


@dataclass(frozen=True, slots=True)
class LoadReport:
    """A worker's load."""

    taken: int = 0
    """Connections that the worker has received since its start."""
    open: int = 0
    """Connections that are open."""
    level: int = 0
    """The worker's `LoadLevel`."""

    def encode(self) -> bytes:
        """Serialise the report as a payload."""
        return orjson.dumps([self.taken, self.open, self.level])

    @classmethod
    def decode(cls, payload: bytes) -> "LoadReport":
        """Parse a payload that ``encode`` has made."""
        return cls(*orjson.loads(payload))


def supports_channels() -> bool:
    """Return whether this system has ordered local packet sockets; Windows and macOS do
    not.
    """
    try:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    except (AttributeError, OSError):
        return False
    ours.close()
    theirs.close()
    return True


def open_channel() -> tuple["IpcChannel", socket.socket]:
    """Open a channel; returns this process' end, and the socket for the other
    process.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return IpcChannel(ours), theirs


class IpcChannel:
    """One end of a channel. No method blocks."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock

    def fileno(self) -> int:
        """Return the descriptor, for the event loop to watch."""
        return self._sock.fileno()

    def send_packet(self, kind: PacketKind, payload: bytes = b"", fd: int | None = None) -> bool:
        """Send a packet; ``fd`` stays the caller's.

        Returns False when the other side is gone, or when its buffer is full.
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
        """Receive a packet; None when none has arrived. Raises
        ``ChannelClosedError``.
        """
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
    """Close a descriptor that no worker has taken over."""
    with contextlib.suppress(OSError):
        os.close(fd)
