"""The two ways in which RTVI is carried on a WebSocket: messages as JSON text, or in
binary frames of Protocol Buffers, as Pipecat's JavaScript transport sends them.

A binary frame is a ``Frame`` (from Pipecat's ``frames.proto``; other fields are
ignored)::

    message Frame { oneof frame { AudioRawFrame audio = 2; MessageFrame message = 4; } }
    message AudioRawFrame {
        bytes audio = 3; uint32 sample_rate = 4; uint32 num_channels = 5;
    }
    message MessageFrame { string data = 1; }
"""

from collections.abc import Iterator
from dataclasses import dataclass

from voicechat.errors import RemoteProtocolError, Status

_VARINT, _I64, _LENGTH, _I32 = 0, 1, 2, 5
_MOST_VARINT_BYTES = 10
_AUDIO_OF_FRAME = 2
_MESSAGE_OF_FRAME = 4
_DATA_OF_MESSAGE = 1
_AUDIO_OF_AUDIO, _RATE_OF_AUDIO, _CHANNELS_OF_AUDIO = 3, 4, 5


@dataclass(frozen=True, slots=True)
class RawAudio:
    """Audio of the client, s16le."""

    pcm: bytes
    sample_rate_hz: int
    channels: int


def read_frame(frame: bytes) -> RawAudio | str | None:
    """Read a binary frame: audio, the JSON of a message, or None for any other kind.

    Raises ``RemoteProtocolError`` if the frame is not a Protocol Buffers message.
    """
    for number, value in _fields(frame):
        if number == _AUDIO_OF_FRAME and isinstance(value, bytes):
            inner = dict(_fields(value))
            pcm, rate_hz = inner.get(_AUDIO_OF_AUDIO, b""), inner.get(_RATE_OF_AUDIO, 0)
            channels = inner.get(_CHANNELS_OF_AUDIO, 1)
            if isinstance(pcm, bytes) and isinstance(rate_hz, int) and isinstance(channels, int):
                return RawAudio(pcm, rate_hz, channels)
            raise _malformed()
        if number == _MESSAGE_OF_FRAME and isinstance(value, bytes):
            text = dict(_fields(value)).get(_DATA_OF_MESSAGE, b"")
            try:
                return text.decode() if isinstance(text, bytes) else ""
            except UnicodeDecodeError:
                raise _malformed() from None
    return None


def write_message(text: str) -> bytes:
    """Return a message as a binary frame."""
    return _field(_MESSAGE_OF_FRAME, _field(_DATA_OF_MESSAGE, text.encode()))


def write_audio(pcm: bytes, sample_rate_hz: int) -> bytes:
    """Return audio, s16le mono, as a binary frame."""
    inner = (
        _field(_AUDIO_OF_AUDIO, pcm)
        + _varint(_RATE_OF_AUDIO << 3 | _VARINT)
        + _varint(sample_rate_hz)
        + _varint(_CHANNELS_OF_AUDIO << 3 | _VARINT)
        + _varint(1)
    )
    return _field(_AUDIO_OF_FRAME, inner)


def _field(number: int, payload: bytes) -> bytes:
    return _varint(number << 3 | _LENGTH) + _varint(len(payload)) + payload


def _varint(value: int) -> bytes:
    written = bytearray()
    while value > 0x7F:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    written.append(value)
    return bytes(written)


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield each field's number and value: a number, or bytes."""
    place = 0
    while place < len(message):
        tag, place = _read_varint(message, place)
        number, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            value, place = _read_varint(message, place)
            yield number, value
            continue
        if kind == _LENGTH:
            length, place = _read_varint(message, place)
        elif kind in (_I64, _I32):
            length = 8 if kind == _I64 else 4
        else:
            raise _malformed()
        if place + length > len(message):
            raise _malformed()
        yield number, message[place : place + length]
        place += length


def _read_varint(message: bytes, place: int) -> tuple[int, int]:
    value = 0
    for count in range(_MOST_VARINT_BYTES):
        if place + count >= len(message):
            break
        byte = message[place + count]
        value |= (byte & 0x7F) << 7 * count
        if byte < 0x80:
            return value, place + count + 1
    raise _malformed()


def _malformed() -> RemoteProtocolError:
    return RemoteProtocolError(Status.MALFORMED, "not a binary frame of this protocol")
