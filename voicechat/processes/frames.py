"""The frames between a parent and a child process.

Little-endian: ``payload length (u32) | kind (u8) | channel (u32) | payload``. To the
child: OPEN (payload: the job's options), DATA, FINISH, CANCEL. From the child: READY
once, then MESSAGE, CONSUMED (payload: number of bytes of DATA processed, u32), ENDED
and FAILED (payload: the exception's type). A channel's number is used once.
"""

import struct
from asyncio import StreamReader
from dataclasses import dataclass
from enum import IntEnum
from typing import BinaryIO

from voicechat.errors import LocalProtocolError

MAX_PAYLOAD_BYTES = 1 << 24
"""A longer frame is rejected: something else wrote to the pipe."""

FORK_SERVER_READY = b"r"
"""The fork server sends this once on its control socket: it accepts requests."""
FORK_REQUEST = b"f"
"""Requests a process from the fork server. The message carries one descriptor, the
socket of the job.
"""

_HEADER = struct.Struct("<IBI")
_COUNT = struct.Struct("<I")


class FrameKind(IntEnum):
    """The type of a frame."""

    OPEN = 1
    DATA = 2
    FINISH = 3
    CANCEL = 4
    READY = 5
    MESSAGE = 6
    CONSUMED = 7
    ENDED = 8
    FAILED = 9


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame; ``channel`` is 0 for READY."""

    kind: FrameKind
    channel: int = 0
    payload: bytes = b""


def encode(frame: Frame) -> bytes:
    """Encode a frame. Raises `LocalProtocolError` if the payload is too long."""
    if len(frame.payload) > MAX_PAYLOAD_BYTES:
        raise LocalProtocolError(
            f"a frame of {len(frame.payload)} bytes; at most {MAX_PAYLOAD_BYTES} are allowed"
        )
    return _HEADER.pack(len(frame.payload), frame.kind, frame.channel) + frame.payload


def encode_count(count: int) -> bytes:
    """Encode the payload of CONSUMED."""
    return _COUNT.pack(count)


def decode_count(payload: bytes) -> int:
    """Decode the payload of CONSUMED. Raises `LocalProtocolError` if malformed."""
    if len(payload) != _COUNT.size:
        raise LocalProtocolError(f"a count of {len(payload)} bytes")
    count: int = _COUNT.unpack(payload)[0]
    return count


def encode_job(caller: str, options: bytes) -> bytes:
    """Encode the payload of a pool's OPEN."""
    return caller.replace("\0", "").encode() + b"\0" + options


def decode_job(payload: bytes) -> tuple[str, bytes]:
    """Decode the caller and the options of a pool's OPEN."""
    caller, _, options = payload.partition(b"\0")
    return caller.decode(errors="replace"), options


async def read_frame(stream: StreamReader) -> Frame:
    """Read the next frame.

    Raises `asyncio.IncompleteReadError` at the end of the stream and
    `LocalProtocolError` for a malformed frame. Cancelling may lose the bytes read so
    far: do not read from the stream afterwards.
    """
    length, kind, channel = _parse_header(await stream.readexactly(_HEADER.size))
    return Frame(kind, channel, await stream.readexactly(length))


def read_frame_blocking(stream: BinaryIO) -> Frame | None:
    """Read the next frame; None at the end of the stream.

    Raises `LocalProtocolError` for a malformed frame.
    """
    header = stream.read(_HEADER.size)
    if len(header) < _HEADER.size:
        return None
    length, kind, channel = _parse_header(header)
    payload = stream.read(length)
    return Frame(kind, channel, payload) if len(payload) == length else None


def _parse_header(header: bytes) -> tuple[int, FrameKind, int]:
    length, kind, channel = _HEADER.unpack(header)
    try:
        known_kind = FrameKind(kind)
    except ValueError:
        raise LocalProtocolError(f"no frame: kind {kind}") from None
    if length > MAX_PAYLOAD_BYTES:
        raise LocalProtocolError(f"no frame: length {length}")
    return length, known_kind, channel
