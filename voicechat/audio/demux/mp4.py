"""Fragmented MP4 as sent by a browser's MediaRecorder: AAC, Opus or FLAC (ISO/IEC
14496-12).

The description of the tracks comes first, then fragments, each with an index of its
packets and the packets. An ordinary MP4 file has one index for the whole file, often
after the packets, so it cannot be decoded as a stream.
"""

import struct
from collections import deque
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field

from voicechat.audio.demux.ogg import opus_start
from voicechat.audio.demux.stream import (
    MAX_PACKET_BYTES,
    DemuxedItem,
    PacketClock,
    StreamStart,
    undecodable,
    unsupported,
)

MAX_INDEX_BYTES = 1 << 20
"""Maximum size of the track description, and of one fragment's index."""
MAX_SKIPPED_BYTES = 64 << 20
"""Maximum size of a skipped box: a fragment of video may be large."""
MAX_PACKETS = 50_000
"""Maximum number of packets in one fragment."""
MP4_STARTS = (b"ftyp", b"styp", b"moov")
"""The types of box that a stream may begin with."""
_HEAD_BYTES = 8
_LONG_HEAD_BYTES = 16
_SOUND = b"soun"
_ES, _DECODER_CONFIG, _DECODER_SPECIFIC = 3, 4, 5
_AAC_OBJECTS = (0x40, 0x66, 0x67, 0x68)
_MP3_OBJECTS = (0x69, 0x6B)

# Flags of a track fragment's header and of a run of packets: 14496-12, 8.8.7 and 8.8.8.
_BASE_OFFSET, _DESCRIPTION, _DURATION, _SIZE = 0x1, 0x2, 0x8, 0x10
_RUN_OFFSET, _RUN_FIRST_FLAGS = 0x1, 0x4
_RUN_DURATION, _RUN_SIZE, _RUN_FLAGS, _RUN_COMPOSITION = 0x100, 0x200, 0x400, 0x800


@dataclass(slots=True)
class _SoundTrack:
    """The audio track that is decoded."""

    number: int
    ticks_per_s: int
    packet_ticks: int = 0
    packet_bytes: int = 0


@dataclass(frozen=True, slots=True)
class _Packet:
    """The position of a packet in the stream and in time."""

    begin: int
    size_bytes: int
    begin_s: float
    length_s: float


@dataclass(slots=True)
class _FragmentRun:
    """The position of the next packet while a fragment's index is parsed."""

    position: int
    ticks: int
    packets: list[_Packet] = field(default_factory=list)


class Mp4Demuxer:
    """Yields the packets of the first audio track, each when it is complete.

    If a fragment's timestamp shows that packets were omitted before it, ``Silence`` is
    yielded for them.
    """

    def __init__(self) -> None:
        self._pending = bytearray()
        self._position = 0
        """The position of the first pending byte in the stream."""
        self._box_end = 0
        """The end of the box whose content is being read or skipped."""
        self._track: _SoundTrack | None = None
        self._expected: deque[_Packet] = deque()
        self._clock = PacketClock()

    def push_bytes(self, data: bytes) -> Iterator[DemuxedItem]:
        """Yield the items that these bytes complete."""
        self._pending += data
        while self._pending:
            if self._position < self._box_end:
                yield from self._packets()
                if self._position < self._box_end:
                    return
                continue
            if not (yield from self._next_box()):
                return

    def finish_stream(self) -> Iterator[DemuxedItem]:
        """Yield nothing: a packet that is cut off is dropped."""
        return iter(())

    def _next_box(self) -> Generator[DemuxedItem, None, bool]:
        """Parse the next box. Returns False if more bytes are needed."""
        if len(self._pending) < _HEAD_BYTES:
            return False
        size_bytes, kind = struct.unpack_from(">I4s", self._pending)
        head_bytes = _HEAD_BYTES
        if size_bytes == 1:
            if len(self._pending) < _LONG_HEAD_BYTES:
                return False
            (size_bytes,) = struct.unpack_from(">Q", self._pending, _HEAD_BYTES)
            head_bytes = _LONG_HEAD_BYTES
        if size_bytes < head_bytes or not kind.isascii():
            raise undecodable("mp4", "what should be a box is none")
        if kind not in (b"moov", b"moof"):
            if size_bytes > MAX_SKIPPED_BYTES:
                raise undecodable("mp4", f"a box {_name(kind)} has {size_bytes} bytes")
            if kind == b"mdat" and self._track is None:
                raise unsupported("mp4", _WHOLE)
            self._box_end = self._position + size_bytes
            self._drop(head_bytes)
            return True
        if size_bytes > MAX_INDEX_BYTES:
            raise undecodable("mp4", f"a box {_name(kind)} has {size_bytes} bytes")
        if len(self._pending) < size_bytes:
            return False
        content = bytes(self._pending[head_bytes:size_bytes])
        try:
            if kind == b"moov":
                yield self._read_tracks(content)
            else:
                self._expected.extend(self._read_fragment(content))
        except (struct.error, IndexError):
            raise undecodable("mp4", f"a box {_name(kind)} is shorter than its content") from None
        self._drop(size_bytes)
        return True

    def _drop(self, size_bytes: int) -> None:
        del self._pending[:size_bytes]
        self._position += size_bytes

    def _packets(self) -> Iterator[DemuxedItem]:
        """Yield the complete packets of the current box, and skip its other bytes."""
        while self._expected:
            packet = self._expected[0]
            if packet.begin < self._position:  # the index is wrong: skip the packet
                self._expected.popleft()
                continue
            if packet.begin >= self._box_end:
                break
            end = packet.begin + packet.size_bytes - self._position
            if len(self._pending) < end:
                return
            content = bytes(self._pending[end - packet.size_bytes : end])
            self._drop(end)
            self._expected.popleft()
            yield from self._clock.silence_before(packet.begin_s, packet.length_s)
            yield content
        self._drop(min(len(self._pending), self._box_end - self._position))

    # --- the description of the tracks ------------------------------------------------

    def _read_tracks(self, content: bytes) -> StreamStart:
        boxes = list(_boxes(content))
        defaults = [box for name, more in boxes if name == b"mvex" for box in _boxes(more)]
        if not defaults:
            raise unsupported("mp4", _WHOLE)
        for name, track in boxes:
            if name == b"trak" and (start := self._read_track(track)) is not None:
                self._read_defaults([box for kind, box in defaults if kind == b"trex"])
                self._expected.clear()
                self._clock = PacketClock()
                return start
        raise undecodable("mp4", "it has no sound")

    def _read_track(self, content: bytes) -> StreamStart | None:
        media = _only(content, b"mdia")
        if _only(media, b"hdlr")[8:12] != _SOUND:
            return None
        header, times = _only(content, b"tkhd"), _only(media, b"mdhd")
        (number,) = struct.unpack_from(">I", header, 20 if header[0] else 12)
        (ticks_per_s,) = struct.unpack_from(">I", times, 20 if times[0] else 12)
        descriptions = _only(_only(_only(media, b"minf"), b"stbl"), b"stsd")
        self._track = _SoundTrack(number, max(1, ticks_per_s))
        return _stream_start(descriptions[8:])

    def _read_defaults(self, defaults: list[bytes]) -> None:
        assert self._track is not None
        for content in defaults:
            number, _, ticks, size_bytes = struct.unpack_from(">4I", content, 4)
            if number == self._track.number:
                self._track.packet_ticks, self._track.packet_bytes = ticks, size_bytes

    # --- the index of a fragment ------------------------------------------------------

    def _read_fragment(self, content: bytes) -> list[_Packet]:
        track = self._track
        if track is None:
            raise undecodable("mp4", "a fragment comes before the description of the tracks")
        run = _FragmentRun(self._position, 0)
        for name, fragment in _boxes(content):
            if name == b"traf":
                self._read_track_fragment(fragment, track, run)
        return run.packets

    def _read_track_fragment(self, content: bytes, track: _SoundTrack, run: _FragmentRun) -> None:
        header = _only(content, b"tfhd")
        flags, number = struct.unpack_from(">II", header)
        if number != track.number:
            return
        base, ticks, size_bytes, at = self._position, track.packet_ticks, track.packet_bytes, 8
        if flags & _BASE_OFFSET:
            (base,) = struct.unpack_from(">Q", header, at)
            at += 8
        at += 4 * bool(flags & _DESCRIPTION)
        if flags & _DURATION:
            (ticks,) = struct.unpack_from(">I", header, at)
            at += 4
        if flags & _SIZE:
            (size_bytes,) = struct.unpack_from(">I", header, at)
        run.position = base
        for name, box in _boxes(content):
            if name == b"tfdt":
                (run.ticks,) = struct.unpack_from(">Q" if box[0] else ">I", box, 4)
            elif name == b"trun":
                _read_run(box, base, _SoundTrack(number, track.ticks_per_s, ticks, size_bytes), run)


_WHOLE = "the recording is not fragmented; send it as a whole recording, or record fragmented MP4"


def _read_run(content: bytes, base: int, track: _SoundTrack, run: _FragmentRun) -> None:
    flags, count = struct.unpack_from(">II", content)
    if count + len(run.packets) > MAX_PACKETS:
        raise undecodable("mp4", f"a fragment has more than {MAX_PACKETS} packets")
    at = 8
    if flags & _RUN_OFFSET:
        (offset,) = struct.unpack_from(">i", content, at)
        run.position = base + offset
        at += 4
    at += 4 * bool(flags & _RUN_FIRST_FLAGS)
    for _ in range(count):
        ticks, size_bytes = track.packet_ticks, track.packet_bytes
        if flags & _RUN_DURATION:
            (ticks,) = struct.unpack_from(">I", content, at)
            at += 4
        if flags & _RUN_SIZE:
            (size_bytes,) = struct.unpack_from(">I", content, at)
            at += 4
        at += 4 * (bool(flags & _RUN_FLAGS) + bool(flags & _RUN_COMPOSITION))
        if size_bytes > MAX_PACKET_BYTES:
            raise undecodable("mp4", f"a packet has {size_bytes} bytes")
        if size_bytes:
            begin_s, length_s = run.ticks / track.ticks_per_s, ticks / track.ticks_per_s
            run.packets.append(_Packet(run.position, size_bytes, begin_s, length_s))
        run.position += size_bytes
        run.ticks += ticks


def _boxes(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield type and content of the boxes within a box."""
    at = 0
    while at + _HEAD_BYTES <= len(content):
        size_bytes, name = struct.unpack_from(">I4s", content, at)
        if not _HEAD_BYTES <= size_bytes <= len(content) - at:
            return
        yield name, content[at + _HEAD_BYTES : at + size_bytes]
        at += size_bytes


def _only(content: bytes, wanted: bytes) -> bytes:
    found = next((box for name, box in _boxes(content) if name == wanted), None)
    if found is None:
        raise undecodable("mp4", f"a box {_name(wanted)} is missing")
    return found


def _stream_start(descriptions: bytes) -> StreamStart:
    """Parse the sample description of a track; return its codec."""
    for name, entry in _boxes(descriptions):
        # Versions 1 and 2 are QuickTime's, with more fields before the boxes.
        more = entry[28 + {0: 0, 1: 16, 2: 36}.get(int.from_bytes(entry[8:10], "big"), 0) :]
        if name == b"mp4a":
            return _mpeg4_start(_only(more, b"esds")[4:])
        if name == b"Opus":
            if (start := opus_start(_opus_head(_only(more, b"dOps")))) is not None:
                return start
            raise undecodable("mp4", "its Opus track has no header")
        if name == b"fLaC":
            return StreamStart("flac", extradata=_only(more, b"dfLa")[8 : 8 + 34])
        raise unsupported("mp4", f"it carries {_name(name)}; supported: AAC, Opus and FLAC")
    raise undecodable("mp4", "its sound track is not described")


def _opus_head(box: bytes) -> bytes:
    """Build an ``OpusHead`` (RFC 7845, 5.1) from a ``dOps`` box."""
    _, channels, skip, rate_hz, gain, mapping = struct.unpack_from(">BBHIhB", box)
    return (
        b"OpusHead" + struct.pack("<BBHIhB", 1, channels, skip, rate_hz, gain, mapping) + box[11:]
    )


def _mpeg4_start(descriptors: bytes) -> StreamStart:
    """Parse the descriptor of an elementary stream (ISO/IEC 14496-1, 7.2.6.5)."""
    stream = _descriptor(descriptors, _ES)
    flags = stream[2]
    at = 3 + 2 * bool(flags & 0x80) + 2 * bool(flags & 0x20)
    if flags & 0x40:
        at += 1 + stream[at]
    config = _descriptor(stream[at:], _DECODER_CONFIG)
    if config[0] in _MP3_OBJECTS:
        return StreamStart("mp3float")
    if config[0] not in _AAC_OBJECTS:
        raise unsupported(
            "mp4", f"it carries codec 0x{config[0]:02X}; supported: AAC, Opus and FLAC"
        )
    return StreamStart("aac", extradata=_descriptor(config[13:], _DECODER_SPECIFIC))


def _descriptor(content: bytes, tag: int) -> bytes:
    """Parse the next descriptor, which must have this tag."""
    if content[0] != tag:
        raise undecodable("mp4", f"descriptor {tag} of its sound track is missing")
    size_bytes, at = 0, 1
    while True:  # terminates: each iteration consumes a byte
        byte = content[at]
        at += 1
        size_bytes = size_bytes << 7 | byte & 0x7F
        if not byte & 0x80:
            return content[at : at + size_bytes]


def _name(kind: bytes) -> str:
    return repr(kind.decode("latin-1"))
