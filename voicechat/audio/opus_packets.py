"""Properties of an Opus packet that its header shows: its length, and whether it is
silent.

Source: RFC 6716, section 3.1 (the first byte) and 3.2 (the number of frames).
"""

_FRAME_US = (
    *(10_000, 20_000, 40_000, 60_000) * 3,
    *(10_000, 20_000) * 2,
    *(2_500, 5_000, 10_000, 20_000) * 4,
)
"""The length of a frame in each of the 32 configurations, in microseconds."""
LONGEST_US = 120_000
_DTX_BYTES = 2
"""Packets of at most this many bytes hold no sound: an encoder with DTX produces
them.
"""
_SILENT_FRAME = b"\xff\xfe"


def packet_us(packet: bytes) -> int:
    """Return the length of a packet in microseconds; 0 if it is not a packet."""
    if not packet:
        return 0
    code = packet[0] & 3
    if code == 3 and len(packet) < 2:
        return 0
    frames = (1, 2, 2, packet[1] & 63 if code == 3 else 0)[code]
    length_us = frames * _FRAME_US[packet[0] >> 3]
    return length_us if length_us <= LONGEST_US else 0


def is_silent(packet: bytes) -> bool:
    """Return whether a packet is certainly silent, without decoding it: a packet of
    DTX, or frames that the codec writes for digital silence.
    """
    if len(packet) <= _DTX_BYTES:
        return True
    frames = packet[2:] if packet[0] & 3 == 3 else packet[1:]
    return not frames.replace(_SILENT_FRAME, b"")
