"""Opus in WebM, as sent by a browser's MediaRecorder (RFC 8794 for EBML, RFC 9559 for
Matroska).
"""

from collections.abc import Iterator

from voicechat.audio.demux.ogg import opus_packet_s, opus_start
from voicechat.audio.demux.stream import (
    MAX_GARBAGE_BYTES,
    DemuxedItem,
    PacketClock,
    StreamStart,
    undecodable,
    unsupported,
)

EBML_MAGIC = b"\x1a\x45\xdf\xa3"

_SEGMENT, _CLUSTER, _BLOCK_GROUP = 0x18538067, 0x1F43B675, 0xA0
_TRACKS, _TRACK_ENTRY, _SIMPLE_BLOCK, _BLOCK = 0x1654AE6B, 0xAE, 0xA3, 0xA1
_TRACK_NUMBER, _CODEC_ID, _CODEC_PRIVATE = 0xD7, 0x86, 0x63A2
_INFO, _TIMESTAMP_SCALE, _CLUSTER_TIMESTAMP = 0x1549A966, 0x2AD7B1, 0xE7
_ENTERED = frozenset({_SEGMENT, _INFO, _CLUSTER, _BLOCK_GROUP, _TRACKS})
"""Elements whose children are parsed. Their ends are ignored, because each child's
meaning does not depend on its parent.
"""
_READ = frozenset({_TRACK_ENTRY, _SIMPLE_BLOCK, _BLOCK, _TIMESTAMP_SCALE, _CLUSTER_TIMESTAMP})
_LACING = 0x06
_MAX_SKIPPED_BYTES = 16 * 1024 * 1024
"""Maximum size of a skipped element: blocks of a video track may be large."""


class WebmDemuxer:
    """Yields the packets of the first Opus track, each when its block is complete.

    If a block's timestamp shows that packets were omitted before it, ``Silence`` is
    yielded for them.
    """

    def __init__(self) -> None:
        self._pending = bytearray()
        self._skip_bytes = 0
        self._track: int | None = None
        self._begun = False
        self._tick_s = 0.001
        self._cluster_ticks = 0
        self._clock = PacketClock()

    def push_bytes(self, data: bytes) -> Iterator[DemuxedItem]:
        """Yield the items that these bytes complete."""
        skipped = min(self._skip_bytes, len(data))
        self._skip_bytes -= skipped
        self._pending += data[skipped:]
        if not self._begun:
            if not EBML_MAGIC.startswith(self._pending[:4]):
                raise undecodable("webm", "the audio does not begin with an EBML header")
            self._begun = len(self._pending) >= len(EBML_MAGIC)
        while (element := self._next_element()) is not None:
            kind, content = element
            if kind == _TRACK_ENTRY and self._track is None:
                yield from self._enter_track(dict(_children(content)))
            elif kind in (_SIMPLE_BLOCK, _BLOCK):
                yield from self._read_block(content)
            elif kind == _TIMESTAMP_SCALE:
                self._tick_s = int.from_bytes(content, "big") / 1e9
            elif kind == _CLUSTER_TIMESTAMP:
                self._cluster_ticks = int.from_bytes(content, "big")

    def finish_stream(self) -> Iterator[DemuxedItem]:
        """Yield nothing: a block that is cut off is dropped."""
        return iter(())

    def _next_element(self) -> tuple[int, bytes] | None:
        """Return the next element of interest, skipping others; None while it is
        incomplete.
        """
        while True:  # terminates: each iteration consumes bytes
            head = _element_head(self._pending, 0)
            if head is None:
                return None
            kind, size_bytes, head_bytes = head
            if kind in _ENTERED:
                del self._pending[:head_bytes]
                continue
            if size_bytes is None:
                raise undecodable("webm", f"element 0x{kind:X} has no size")
            if kind in _READ:
                if size_bytes > MAX_GARBAGE_BYTES and kind == _TRACK_ENTRY:
                    raise undecodable("webm", f"a track's description has {size_bytes} bytes")
                if size_bytes <= MAX_GARBAGE_BYTES:
                    return self._take_element(kind, head_bytes, size_bytes)
            if size_bytes > _MAX_SKIPPED_BYTES:
                raise undecodable("webm", f"element 0x{kind:X} has {size_bytes} bytes")
            taken = min(head_bytes + size_bytes, len(self._pending))
            self._skip_bytes = head_bytes + size_bytes - taken
            del self._pending[:taken]
            if self._skip_bytes:
                return None

    def _take_element(
        self, kind: int, head_bytes: int, size_bytes: int
    ) -> tuple[int, bytes] | None:
        end = head_bytes + size_bytes
        if len(self._pending) < end:
            return None
        content = bytes(self._pending[head_bytes:end])
        del self._pending[:end]
        return kind, content

    def _enter_track(self, fields: dict[int, bytes]) -> Iterator[StreamStart]:
        codec = fields.get(_CODEC_ID, b"").rstrip(b"\0").decode("ascii", "replace")
        if not codec.startswith("A_"):
            return
        if codec != "A_OPUS":
            raise unsupported("webm", f"it carries {codec[:32]}; supported: A_OPUS")
        start = opus_start(fields.get(_CODEC_PRIVATE, b""))
        if start is None:
            raise undecodable("webm", "its Opus track has no header")
        self._track = int.from_bytes(fields.get(_TRACK_NUMBER, b"\x01"), "big")
        yield start

    def _read_block(self, block: bytes) -> Iterator[DemuxedItem]:
        number = _sized_number(block, 0)
        if number is None or len(block) < number[1] + 3:
            raise undecodable("webm", "a block is shorter than its head")
        track, head_bytes = number
        if self._track is None or track != self._track:
            return
        if block[head_bytes + 2] & _LACING:
            raise unsupported("webm", "laced blocks are not supported")
        packet = block[head_bytes + 3 :]
        if packet:
            ticks = self._cluster_ticks + int.from_bytes(
                block[head_bytes : head_bytes + 2], "big", signed=True
            )
            yield from self._clock.silence_before(ticks * self._tick_s, opus_packet_s(packet))
            yield packet


def _children(content: bytes) -> Iterator[tuple[int, bytes]]:
    data, position = bytearray(content), 0
    while (head := _element_head(data, position)) is not None:
        kind, size_bytes, head_bytes = head
        if size_bytes is None:
            return
        position += head_bytes
        yield kind, content[position : position + size_bytes]
        position += size_bytes


def _element_head(data: bytearray, at: int) -> tuple[int, int | None, int] | None:
    """Parse identifier, size (None if unknown) and length of the head. None while it is
    incomplete.
    """
    if at >= len(data):
        return None
    id_bytes = 9 - data[at].bit_length()
    if id_bytes > 4:
        raise undecodable("webm", "what should be an element is none")
    if len(data) < at + id_bytes:
        return None
    kind = int.from_bytes(data[at : at + id_bytes], "big")
    size = _sized_number(bytes(data[at + id_bytes : at + id_bytes + 8]), 0)
    if size is None:
        return None
    value, size_bytes = size
    unknown = value == (1 << 7 * size_bytes) - 1
    return kind, None if unknown else value, id_bytes + size_bytes


def _sized_number(data: bytes, at: int) -> tuple[int, int] | None:
    """Read a variable-length number: its value and its length; None while it is
    incomplete.
    """
    if at >= len(data):
        return None
    size_bytes = 9 - data[at].bit_length()
    if size_bytes > 8:
        raise undecodable("webm", "a number has no length")
    if len(data) < at + size_bytes:
        return None
    value = int.from_bytes(data[at : at + size_bytes], "big") & ((1 << 7 * size_bytes) - 1)
    return value, size_bytes
