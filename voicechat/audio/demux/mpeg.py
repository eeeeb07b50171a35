"""Streamed MPEG audio layer III: frames, with ID3 tags before, between and after them.

Headers after ISO/IEC 11172-3 and 13818-3; tags after "ID3 tag version 2.4.0", section
3.1.
"""

from collections.abc import Iterator

from voicechat.audio.demux.framed import FrameDemuxer, FrameFormat, FrameHead
from voicechat.audio.demux.stream import DemuxedItem, StreamStart
from voicechat.errors import Fault, RemoteProtocolError

MAX_TAG_BYTES = 2 * 1024 * 1024
"""Maximum size of all tags of a stream: a large picture."""

_ID3_HEAD_BYTES = 10
_KBPS = {
    3: (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    2: (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_RATES_HZ = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
_INFO_TAGS = (b"Xing", b"Info", b"VBRI")


def _read_head(head: bytes) -> FrameHead | None:
    bits = int.from_bytes(head, "big")
    version, layer = bits >> 19 & 3, bits >> 17 & 3
    bitrate_index, rate_index, padding = bits >> 12 & 15, bits >> 10 & 3, bits >> 9 & 1
    if (
        bits >> 21 != 0x7FF
        or version == 1
        or layer != 1
        or not 1 <= bitrate_index <= 14
        or rate_index == 3
    ):
        return None
    bitrate_bps = _KBPS[3 if version == 3 else 2][bitrate_index - 1] * 1000
    rate_hz = _RATES_HZ[version][rate_index]
    return (144 if version == 3 else 72) * bitrate_bps // rate_hz + padding, (version, rate_index)


def _is_audio(frame: bytes) -> bool:
    # Encoders store the length of the stream in a silent first frame.
    return not any(tag in frame[4:48] for tag in _INFO_TAGS)


FRAMING = FrameFormat("mp3", StreamStart("mp3float"), 4, _read_head, _is_audio)


class Mp3Demuxer:
    """Skips ID3v2 tags at the start by their length, which is bounded, and then
    searches for frames.
    """

    def __init__(self) -> None:
        self._frames = FrameDemuxer(FRAMING)
        self._start = b""
        self._at_start = True
        self._skip_bytes = 0
        self._tag_bytes = 0

    def push_bytes(self, data: bytes) -> Iterator[DemuxedItem]:
        """Yield the frames that these bytes complete. Tags in the middle of a stream
        count as garbage, whose length is bounded.
        """
        while self._at_start:
            skipped = min(self._skip_bytes, len(data))
            self._skip_bytes -= skipped
            self._start += data[skipped:]
            data = b""
            if self._skip_bytes or len(self._start) < _ID3_HEAD_BYTES:
                return
            tag_bytes = id3_tag_bytes(self._start)
            self._at_start = tag_bytes > 0
            data, self._start = self._start, b""
            self._skip_bytes = tag_bytes
            self._tag_bytes += tag_bytes
            if self._tag_bytes > MAX_TAG_BYTES:
                raise RemoteProtocolError(
                    Fault.TOO_LARGE,
                    f"mp3: {self._tag_bytes} bytes of ID3 tags; allowed: {MAX_TAG_BYTES}",
                )
        yield from self._frames.push_bytes(data)

    def finish_stream(self) -> Iterator[DemuxedItem]:
        """Yield the items that the end of input completes."""
        data, self._start = self._start, b""
        self._at_start = False
        yield from self._frames.push_bytes(data)
        yield from self._frames.finish_stream()


def id3_tag_bytes(start: bytes) -> int:
    """Return the length of the ID3v2 tag that begins here, with header and footer; 0 if
    there is none.
    """
    if len(start) < _ID3_HEAD_BYTES or start[:3] != b"ID3" or max(start[6:10]) > 127:
        return 0
    size_bytes = start[6] << 21 | start[7] << 14 | start[8] << 7 | start[9]
    return _ID3_HEAD_BYTES * (2 if start[5] & 0x10 else 1) + size_bytes
