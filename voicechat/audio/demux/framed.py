"""Codecs whose frames say how long they are: MPEG layer III, AAC in ADTS, AMR.

They share one search: a frame begins where its header is right and, when neither the
stream began nor the last frame ended there, where another right header stands at the
end of it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from voicechat.audio.demux.stream import DemuxedItem, GarbageCounter, StreamStart

FrameHead = tuple[int, object]
"""Length of the whole frame in bytes, and what must be equal in neighbouring frames."""


@dataclass(frozen=True, slots=True)
class FrameFormat:
    """How the frames of one codec are recognised."""

    name: str
    start: StreamStart
    head_bytes: int
    """What ``read_head`` must be given."""
    read_head: Callable[[bytes], FrameHead | None]
    """Understand a header; None if it is none."""
    is_audio: Callable[[bytes], bool] = lambda frame: True
    """False: the frame is about the stream, and is no audio."""


class FrameDemuxer:
    """Finds frames one after the other. A frame is given as soon as its last byte has
    come.
    """

    def __init__(self, framing: FrameFormat) -> None:
        self._framing = framing
        self._pending = bytearray()
        self._garbage = GarbageCounter(framing.name)
        self._locked: object = None
        """What the frames have in common; None: it is not known yet, or no more."""
        self._in_place = True
        """Whether a frame is expected just here."""
        self._started = False

    def push_bytes(self, data: bytes) -> Iterator[DemuxedItem]:
        """See ``Demuxer.push_bytes``."""
        self._pending += data
        return self._frames(at_end=False)

    def finish_stream(self) -> Iterator[DemuxedItem]:
        """See ``Demuxer.finish_stream``: the only frame of a stream needs no successor."""
        return self._frames(at_end=True)

    def _frames(self, at_end: bool) -> Iterator[DemuxedItem]:
        position = 0
        while (size_bytes := self._frame_size(position, at_end)) is not None:
            if size_bytes == 0:
                # To the next byte that can begin a header: all of these begin with a
                # known one.
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
        """The length of the frame at ``position``; 0: none begins here; None: more
        bytes must come first.
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
        """What stands at ``position``; length 0: no header; None: more bytes must come
        first.
        """
        head = bytes(self._pending[position : position + self._framing.head_bytes])
        if len(head) < self._framing.head_bytes:
            return None
        return self._framing.read_head(head) or (0, None)
