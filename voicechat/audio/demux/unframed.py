"""Compressed audio without any framing of its own: one Opus packet per frame, and
G.722.
"""

from collections.abc import Iterator

from voicechat.audio.demux.ogg import OPUS_RATE_HZ
from voicechat.audio.demux.stream import DemuxedItem, StreamStart, undecodable

MAX_OPUS_PACKET_BYTES = 48 * 1275 + 98
"""RFC 6716, section 3.2.5: 48 frames of 1275 bytes, and their lengths."""
G722_RATE_HZ = 16000


class OpusPackets:
    """Each push is one Opus packet (``opus_raw``), as devices send them."""

    def __init__(self) -> None:
        self._started = False

    def push_bytes(self, data: bytes) -> Iterator[DemuxedItem]:
        """See ``Demuxer.push_bytes``; here the cut is all the framing there is."""
        if len(data) > MAX_OPUS_PACKET_BYTES:
            raise undecodable(
                "opus_raw", f"a packet of {len(data)} bytes; allowed: {MAX_OPUS_PACKET_BYTES}"
            )
        if data[:4] in (b"OggS", b"RIFF"):
            raise undecodable("opus_raw", "the audio is in a container; declare opus or wav")
        if not self._started:
            self._started = True
            # Two channels hold one as well: a packet says for itself which it has.
            yield StreamStart("libopus", OPUS_RATE_HZ, 2)
        if data:
            yield data

    def finish_stream(self) -> Iterator[DemuxedItem]:
        """See ``Demuxer.finish_stream``."""
        return iter(())


class G722Bytes:
    """G.722 at 64 kbit/s: every byte is two samples."""

    def __init__(self) -> None:
        self._started = False

    def push_bytes(self, data: bytes) -> Iterator[DemuxedItem]:
        """See ``Demuxer.push_bytes``."""
        if not self._started:
            self._started = True
            yield StreamStart("g722", G722_RATE_HZ, 1)
        if data:
            yield data

    def finish_stream(self) -> Iterator[DemuxedItem]:
        """See ``Demuxer.finish_stream``."""
        return iter(())
