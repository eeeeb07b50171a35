"""AMR with its magic number (RFC 4867, section 5): narrow-band 8 kHz or wide-band 16
kHz, one channel.
"""

from collections.abc import Iterator

from voicechat.audio.demux.framed import FrameDemuxer, FrameFormat, FrameHead
from voicechat.audio.demux.stream import DemuxedItem, StreamStart, undecodable, unsupported

_MULTICHANNEL = b"#!AMR_MC1.0\n"
_MULTICHANNEL_WIDE = b"#!AMR-WB_MC1.0\n"

# Bytes of a frame by its type, the header byte included: tables 1 of 3GPP TS 26.101 and
# 26.201, section A.
_NARROW_BYTES = (13, 14, 16, 18, 20, 21, 27, 32, 6, 0, 0, 0, 0, 0, 0, 1)
_WIDE_BYTES = (18, 24, 33, 37, 41, 47, 51, 59, 61, 6, 0, 0, 0, 0, 1, 1)


def _framing(codec: str, rate_hz: int, frame_bytes: tuple[int, ...]) -> FrameFormat:
    def read_head(head: bytes) -> FrameHead | None:
        size_bytes = frame_bytes[head[0] >> 3 & 15]
        # The padding bits around the type and the quality bit must be 0.
        return None if head[0] & 0x83 or not size_bytes else (size_bytes, codec)

    return FrameFormat("amr", StreamStart(codec, rate_hz, 1), 1, read_head)


_STREAMS = {
    b"#!AMR\n": _framing("libopencore_amrnb", 8000, _NARROW_BYTES),
    b"#!AMR-WB\n": _framing("libopencore_amrwb", 16000, _WIDE_BYTES),
}


class AmrDemuxer:
    """Reads the magic, then frames."""

    def __init__(self) -> None:
        self._start = b""
        self._frames: FrameDemuxer | None = None

    def push_bytes(self, data: bytes) -> Iterator[DemuxedItem]:
        """Yield the items that these bytes complete."""
        if self._frames is None:
            self._start += data
            magic = self._magic()
            if magic is None:
                return
            data, self._start = self._start[len(magic) :], b""
            self._frames = FrameDemuxer(_STREAMS[magic])
        yield from self._frames.push_bytes(data)

    def finish_stream(self) -> Iterator[DemuxedItem]:
        """Yield the items that the end of input completes."""
        if self._frames is not None:
            yield from self._frames.finish_stream()

    def _magic(self) -> bytes | None:
        """Return the magic number of the stream; None while it is incomplete."""
        for magic in _STREAMS:
            if self._start.startswith(magic):
                return magic
        for magic in (_MULTICHANNEL, _MULTICHANNEL_WIDE):
            if self._start.startswith(magic):
                raise unsupported("amr", "several channels are not supported; send one")
        if not any(
            magic.startswith(self._start)
            for magic in (*_STREAMS, _MULTICHANNEL, _MULTICHANNEL_WIDE)
        ):
            raise undecodable("amr", "the audio does not begin with '#!AMR' and a line feed")
        return None
