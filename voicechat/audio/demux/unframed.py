"""Compressed audio without framing: one Opus packet per message, and G.722."""

from collections.abc import Iterator

from voicechat.audio.demux.ogg import OPUS_RATE_HZ
from voicechat.audio.demux.stream import DemuxedItem, StreamStart, undecodable

MAX_OPUS_PACKET_BYTES = 48 * 1275 + 98
"""The largest packet (RFC 6716, section 3.2.5): 48 frames of 1275 bytes, and their
lengths.
"""
STEREO = 0x04
"""The bit of a packet's first byte that declares stereo (RFC 6716, section 3.1)."""
G722_RATE_HZ = 16000


class OpusPackets:
    """Each call of ``push_bytes`` passes one Opus packet (``opus_raw``)."""

    def __init__(self) -> None:
        self._channels = 0
        """The channel count of the decoder; 0: none is open."""

    def push_bytes(self, data: bytes) -> Iterator[DemuxedItem]:
        """Yield ``data`` as one packet."""
        if len(data) > MAX_OPUS_PACKET_BYTES:
            raise undecodable(
                "opus_raw", f"a packet of {len(data)} bytes; allowed: {MAX_OPUS_PACKET_BYTES}"
            )
        if data[:4] in (b"OggS", b"RIFF"):
            raise undecodable("opus_raw", "the audio is in a container; declare opus or wav")
        # Each packet declares its own channel count. A stereo decoder accepts both, and
        # takes 1.5 times as long for mono packets.
        channels = 2 if data and data[0] & STEREO else 1
        if channels > self._channels:
            self._channels = channels
            yield StreamStart("libopus", OPUS_RATE_HZ, channels)
        if data:
            yield data

    def finish_stream(self) -> Iterator[DemuxedItem]:
        """Yield the items that the end of input completes."""
        return iter(())


class G722Bytes:
    """G.722 at 64 kbit/s: every byte is two samples."""

    def __init__(self) -> None:
        self._started = False

    def push_bytes(self, data: bytes) -> Iterator[DemuxedItem]:
        """Yield the items that these bytes complete."""
        if not self._started:
            self._started = True
            yield StreamStart("g722", G722_RATE_HZ, 1)
        if data:
            yield data

    def finish_stream(self) -> Iterator[DemuxedItem]:
        """Yield the items that the end of input completes."""
        return iter(())
