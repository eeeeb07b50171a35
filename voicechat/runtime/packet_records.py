"""The records between the server and the process that decodes single Opus packets. A
payload contains many records.

Little-endian. To the process: ``stream (u32) | kind (u8) | length (u16) | packet``.
From it, one for each packet and each FINISH: ``stream (u32) | outcome (u32) | length
(u32) | samples or message``.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

from voicechat.errors import Fault, RemoteProtocolError

_REQUEST = struct.Struct("<IBH")
_ANSWER = struct.Struct("<III")
_FINE = 0
_FAULTS = tuple(Fault)
"""A fault is sent as its index in this tuple, counted from 1."""
MAX_PACKET_BYTES = 0xFFFF


class RequestKind(IntEnum):
    """The kind of a request."""

    PACKET = 1
    FINISH = 2
    """Return the output that the decoder holds back."""
    CLOSE = 3
    """The stream has ended. This request is not answered."""


@dataclass(frozen=True, slots=True)
class Request:
    """One record to the process."""

    stream: int
    kind: RequestKind
    packet: bytes = b""


def write_request(request: Request) -> bytes:
    """Write a request; its packet has ``MAX_PACKET_BYTES`` at most."""
    head = _REQUEST.pack(request.stream, request.kind, len(request.packet))
    return head + request.packet


def read_requests(payload: bytes) -> Iterator[Request]:
    """Read the requests of a payload."""
    at = 0
    while at < len(payload):
        stream, kind, length = _REQUEST.unpack_from(payload, at)
        at += _REQUEST.size
        yield Request(stream, RequestKind(kind), payload[at : at + length])
        at += length


def write_answer(stream: int, pcm: bytes) -> bytes:
    """Write the samples that answer a request."""
    return _ANSWER.pack(stream, _FINE, len(pcm)) + pcm


def write_failure(stream: int, error: RemoteProtocolError) -> bytes:
    """Write that a stream cannot be decoded."""
    message = error.message.encode()
    return _ANSWER.pack(stream, 1 + _FAULTS.index(error.fault), len(message)) + message


def read_answers(payload: bytes) -> Iterator[tuple[int, bytes | RemoteProtocolError]]:
    """Read the answers of a payload. Yields each stream's number with its samples or
    its error.
    """
    at = 0
    while at < len(payload):
        stream, outcome, length = _ANSWER.unpack_from(payload, at)
        at += _ANSWER.size
        content = payload[at : at + length]
        at += length
        if outcome == _FINE:
            yield stream, content
        else:
            yield stream, RemoteProtocolError(_FAULTS[outcome - 1], content.decode())
