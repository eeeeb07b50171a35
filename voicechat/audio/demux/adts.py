"""AAC in ADTS frames (ISO/IEC 13818-7, 6.2): each has a header with the rate, the
channels and its length.
"""

from voicechat.audio.demux.framed import FrameDemuxer, FrameFormat, FrameHead
from voicechat.audio.demux.stream import StreamStart

_SYNC = 0xFFF
_RATES = 13


def _read_head(head: bytes) -> FrameHead | None:
    bits = int.from_bytes(head, "big")  # 56 of them
    size_bytes = bits >> 13 & 0x1FFF
    rate_index = bits >> 34 & 15
    if bits >> 44 != _SYNC or bits >> 41 & 3 or rate_index >= _RATES or size_bytes <= len(head):
        return None
    profile, channels = bits >> 38 & 3, bits >> 30 & 7
    return size_bytes, (profile, rate_index, channels)


FRAMING = FrameFormat("aac", StreamStart("aac"), 7, _read_head)


def open_demuxer() -> FrameDemuxer:
    """Create the demuxer of one stream."""
    return FrameDemuxer(FRAMING)
