"""Codecs whose frames declare their length: MPEG layer III, AAC in ADTS, AMR.

They share one search for frames. At the start of the stream and after a frame, a valid
header is enough. Elsewhere a second valid header must follow at the end of the frame.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from voicechat.audio.demux.stream import DemuxedItem, GarbageCounter, StreamStart

FrameHead = tuple[int, object]
"""Length of the frame in bytes, and the fields that are equal in consecutive frames."""


@dataclass(frozen=True, slots=True)
class FrameFormat:
    """The frame format of one codec."""

    name: str
    start: StreamStart
    head_bytes: int
    """The number of bytes that ``read_head`` needs."""
    read_head: Callable[[bytes], FrameHead | None]
    """Parses a header; returns None if it is invalid."""
    is_audio: Callable[[bytes], bool] = lambda frame: True
    """Whether a frame holds audio, and not information about the stream."""


class FrameDemuxer:
    """Finds consecutive frames. A frame is yielded as soon as it is complete."""

    def __init__(self, framing: FrameFormat) -> None:
        self._framing = framing
        self._pending = bytearray()
        self._garbage = GarbageCounter(framing.name)
        self._locked: object = None
        """The fields shared by all frames; None while out of sync."""
        self._in_place = True
        """Whether a frame is expected at the current position."""
        self._started = False

    def push_bytes(self, data: bytes) -> Iterator[DemuxedItem]:
        """Yield the items that these bytes complete."""
        self._pending += data
        return self._frames(at_end=False)

    def finish_stream(self) -> Iterator[DemuxedItem]:
        """Yield the last frames, which need no successor."""
        return self._frames(at_end=True)

    def _frames(self, at_end: bool) -> Iterator[DemuxedItem]:
        position = 0
        while (size_bytes := self._frame_size(position, at_end)) is not None:
            if size_bytes == 0:
                # No frame begins here: resynchronise at the next byte.
                self._garbage.count_bytes(1)
                self._locked, self._in_place = None, False
                position += 1
                continue
            frame = bytes(self._pending[position : position + size_bytes])
            position += size_bytes
            self._garbage.reset()
            if not self._started:
                self._started = True
                yield self._framing.start
            if self._framing.is_audio(frame):
                yield frame
        del self._pending[:position]

    def _frame_size(self, position: int, at_end: bool) -> int | None:
        """Return the length of the frame at ``position``; 0 if there is none; None if
        more bytes are needed.
        """
        head = self._head(position)
        if head is None:
            return None
        size_bytes, kind = head
        if size_bytes == 0 or (self._locked is not None and kind != self._locked):
            return 0
        if position + size_bytes > len(self._pending):
            return None
        if not self._in_place:
            successor = self._head(position + size_bytes)
            if successor is None:
                if not at_end:
                    return None
            elif successor[0] == 0 or successor[1] != kind:
                return 0
        self._locked, self._in_place = kind, True
        return size_bytes

    def _head(self, position: int) -> FrameHead | None:
        """Parse the header at ``position``. The length is 0 if it is invalid. None if
        more bytes are needed.
        """
        head = bytes(self._pending[position : position + self._framing.head_bytes])
        if len(head) < self._framing.head_bytes:
            return None
        return self._framing.read_head(head) or (0, None)
