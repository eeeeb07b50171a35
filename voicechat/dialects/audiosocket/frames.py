"""The frames of AudioSocket: one byte for the kind, a length, and that many bytes.

A frame is passed on as its kind and its payload, without the length.
"""

from collections.abc import Mapping, Sequence

from typing_extensions import override

from voicechat.dialects.base import Frame, Framing

HANGUP, ID, DTMF, ERROR = 0x00, 0x01, 0x03, 0xFF
"""Kinds besides audio. Asterisk accepts none of them but HANGUP."""
ID_BYTES = 16
RATES_HZ: Mapping[int, int] = {
    0x10: 8_000,
    0x11: 12_000,
    0x12: 16_000,
    0x13: 24_000,
    0x14: 32_000,
    0x15: 44_100,
    0x16: 48_000,
    0x17: 96_000,
    0x18: 192_000,
}
"""The kinds of audio, 16-bit little-endian samples, and their rates. Versions of
Asterisk before October 2025 have only the first one.
"""
NARROW = 0x10
_HEAD_BYTES = 3


class AudioSocketFraming(Framing):
    """See ``Framing``. An unfinished frame is at most 65,538 bytes: its length has two
    bytes, and any kind is accepted, because Asterisk may add some.
    """

    def __init__(self) -> None:
        self._rest = bytearray()

    @override
    def push(self, data: bytes) -> Sequence[Frame]:
        self._rest += data
        frames: list[Frame] = []
        start = 0
        while len(self._rest) - start >= _HEAD_BYTES:
            end = start + _HEAD_BYTES + int.from_bytes(self._rest[start + 1 : start + 3], "big")
            if end > len(self._rest):
                break
            frames.append(bytes(self._rest[start : start + 1] + self._rest[start + 3 : end]))
            start = end
        del self._rest[:start]
        return frames

    @override
    def write(self, frame: Frame) -> bytes:
        assert isinstance(frame, bytes), "all frames of AudioSocket are binary"
        return frame[:1] + (len(frame) - 1).to_bytes(2, "big") + frame[1:]
