"""Opus and Speex in Ogg (RFC 3533, RFC 7845, the Speex manual's section 7)."""

import struct
from collections.abc import Callable, Iterator
from typing import TypeAlias

from voicechat.audio.demux.stream import (
    MAX_PACKET_BYTES,
    DemuxedItem,
    GarbageCounter,
    PacketClock,
    StreamStart,
    undecodable,
    unsupported,
)
from voicechat.audio.formats import LOWEST_RATE_HZ
from voicechat.audio.ogg_pages import CHECKSUM_AT, page_checksum

OPUS_RATE_HZ = 48000
_CAPTURE = b"OggS"
_HEAD_BYTES = 27
_CONTINUED, _FIRST, _LACED_FULL = 1, 2, 255
_OTHER_CODECS = {b"\x01vorbis": "Vorbis", b"\x7fFLAC": "FLAC", b"\x80theora": "Theora"}


class OggDemuxer:
    """Yields the packets of Opus or Speex streams. Chained streams are supported;
    multiplexed other streams are skipped.

    A packet is yielded when its page is complete, because the checksum covers the whole
    page. If a page's granule position shows that packets were omitted before it,
    ``Silence`` is yielded for them.
    """

    def __init__(self) -> None:
        self._pending = bytearray()
        self._garbage = GarbageCounter("ogg")
        self._serial: int | None = None
        self._header_packets_left = 0
        self._partial = b""
        self._clock = PacketClock()
        self._length: PacketLength = opus_packet_s
        self._rate_hz = OPUS_RATE_HZ

    def push_bytes(self, data: bytes) -> Iterator[DemuxedItem]:
        """Yield the items that these bytes complete."""
        self._pending += data
        while (size_bytes := self._page_size()) is not None:
            page = bytes(self._pending[:size_bytes])
            if page_checksum(page) != page[CHECKSUM_AT : CHECKSUM_AT + 4]:
                self._drop(1)
                continue
            del self._pending[:size_bytes]
            yield from self._take(page)

    def finish_stream(self) -> Iterator[DemuxedItem]:
        """Yield nothing: a page that is cut off is dropped."""
        return iter(())

    def _page_size(self) -> int | None:
        """Return the length of the page at the start of the pending bytes; None while
        it is incomplete.
        """
        found = self._pending.find(_CAPTURE)
        if found < 0:  # keep a possible beginning of the capture pattern
            self._drop(max(0, len(self._pending) - len(_CAPTURE) + 1))
            return None
        self._drop(found)
        if len(self._pending) < _HEAD_BYTES:
            return None
        lacing_end = _HEAD_BYTES + self._pending[26]
        if len(self._pending) < lacing_end:
            return None
        size_bytes = lacing_end + sum(self._pending[_HEAD_BYTES:lacing_end])
        return size_bytes if len(self._pending) >= size_bytes else None

    def _drop(self, size_bytes: int) -> None:
        if size_bytes:
            self._garbage.count_bytes(size_bytes)
            del self._pending[:size_bytes]

    def _take(self, page: bytes) -> Iterator[DemuxedItem]:
        flags, serial = page[5], int.from_bytes(page[14:18], "little")
        if flags & _FIRST:
            start = _stream_start(page[_HEAD_BYTES + page[26] :])
            if start is not None:
                self._serial, self._partial = serial, b""
                self._header_packets_left = 2  # this page's packet and the comments
                self._clock = PacketClock()
                self._length, self._rate_hz = _timing(start)
                yield start
        if serial != self._serial:
            self._garbage.count_bytes(len(page))
            return
        self._garbage.reset()
        if not flags & _CONTINUED:
            self._partial = b""  # the rest of the packet was lost
        packets = list(self._packets(page))
        yield from self._silence_before(packets, int.from_bytes(page[6:14], "little", signed=True))
        yield from packets

    def _silence_before(self, packets: list[bytes], position: int) -> Iterator[DemuxedItem]:
        """Yield the gap before a page's packets. ``position`` is the end of the last
        packet.
        """
        length_s = sum(map(self._length, packets))
        if position < 0:
            self._clock.skip_untimed(length_s)
        elif packets:
            yield from self._clock.silence_before(position / self._rate_hz - length_s, length_s)

    def _packets(self, page: bytes) -> Iterator[bytes]:
        position = _HEAD_BYTES + page[26]
        for lacing in page[_HEAD_BYTES : _HEAD_BYTES + page[26]]:
            self._partial += page[position : position + lacing]
            position += lacing
            if len(self._partial) > MAX_PACKET_BYTES:
                raise undecodable("ogg", f"a packet is longer than {MAX_PACKET_BYTES} bytes")
            if lacing == _LACED_FULL:
                continue
            packet, self._partial = self._partial, b""
            if self._header_packets_left:
                self._header_packets_left -= 1
            elif packet:
                yield packet


PacketLength: TypeAlias = Callable[[bytes], float]
"""Returns the duration of a packet in seconds."""


def opus_packet_s(packet: bytes) -> float:
    """Return the duration of an Opus packet in seconds (RFC 6716, section 3.1)."""
    config, code = packet[0] >> 3, packet[0] & 3
    if config < 12:
        frame_ms: float = (10, 20, 40, 60)[config & 3]
    elif config < 16:
        frame_ms = (10, 20)[config & 1]
    else:
        frame_ms = (2.5, 5, 10, 20)[config & 3]
    frames = (1, 2, 2, packet[1] & 63 if len(packet) > 1 else 0)[code]
    return frames * frame_ms / 1000


def _timing(start: StreamStart) -> tuple[PacketLength, int]:
    """Return the duration function and the granule rate of a stream."""
    if start.codec != "speex":
        return opus_packet_s, OPUS_RATE_HZ
    rate_hz = start.rate_hz or 0
    if rate_hz < LOWEST_RATE_HZ:  # the codec will refuse it
        return lambda packet: 0.0, OPUS_RATE_HZ
    frame_samples, _, frames = struct.unpack_from("<3i", start.extradata, 56)
    packet_s = max(0, frame_samples * frames) / rate_hz
    return lambda packet: packet_s, rate_hz


def opus_start(head: bytes) -> StreamStart | None:
    """Parse an ``OpusHead`` (RFC 7845, section 5.1). None if it is invalid or of an
    unsupported version.
    """
    if len(head) < 19 or head[:8] != b"OpusHead" or head[8] & 0xF0:
        return None
    channels = head[9]
    if not 1 <= channels <= 8:
        raise undecodable("opus", f"its header names {channels} channels; allowed: 1 to 8")
    return StreamStart("libopus", OPUS_RATE_HZ, channels, head, opus_source_rate_hz(head))


def opus_source_rate_hz(head: bytes) -> int | None:
    """Return the original sample rate from an ``OpusHead``; None if it is unknown or
    not below 48 kHz.

    The field is informative (RFC 7845): Opus always decodes to 48 kHz.
    """
    rate_hz = int.from_bytes(head[12:16], "little")
    return rate_hz if LOWEST_RATE_HZ <= rate_hz < OPUS_RATE_HZ else None


def _stream_start(packet: bytes) -> StreamStart | None:
    """Parse the first packet of a stream; None if it is not audio."""
    if packet.startswith(b"Speex   ") and len(packet) >= 80:
        rate_hz, _, _, channels = struct.unpack_from("<4i", packet, 36)
        if channels not in (1, 2):
            raise undecodable("speex", f"its header names {channels} channels; allowed: 1 or 2")
        return StreamStart("speex", rate_hz, channels, packet[:80])
    for magic, name in _OTHER_CODECS.items():
        if packet.startswith(magic) and name != "Theora":
            raise unsupported("ogg", f"it carries {name}; supported: Opus and Speex")
    return opus_start(packet)
