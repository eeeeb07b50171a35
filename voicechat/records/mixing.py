"""Makes the audio file of a record: Ogg Opus in stereo, the user left, and right the
replies as they were heard.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, BinaryIO

import av
import numpy as np

from voicechat.audio.encode import OPUS_RATE_HZ
from voicechat.audio.ogg_pages import OggWriter
from voicechat.audio.resample import RateConverter
from voicechat.records.folder import USER_RATE_HZ, ReplySound, UserSound, read_sounds
from voicechat.records.heard import Placement

RATE_HZ = USER_RATE_HZ
BITRATE_BPS = 32_000
FRAME_MS = 20
PAGE_MS = 1000
"""A page for each second: a file that is cut off can be played to its last page."""
PIECE_S = 10
MAX_HOURS = 24
"""Longer audio is cut: its samples are laid out in a file while it is mixed."""
_COMPLEXITY = "0"
"""libopus's complexity, 0 to 10. In stereo at 16 kHz a second of audio takes 1.4 ms of
CPU with 0, 2.6 ms with 5.
"""
_TAGS = b"OpusTags\x09\x00\x00\x00voicechat\x00\x00\x00\x00"


def mix(sound: BinaryIO, heard: Sequence[Placement], scratch: Path) -> Iterator[bytes]:
    """Yield the pages of the file; nothing if there is no audio.

    ``sound`` holds the chunks of ``folder.SOUND``. ``scratch`` is a folder for
    temporary files, which are removed.
    """
    with TemporaryFile(dir=scratch) as left, TemporaryFile(dir=scratch) as right:
        end = max(_lay_user(sound, left), _lay_replies(sound, heard, right))
        if end:
            yield from _encoded(left, right, end)


def _lay_user(sound: BinaryIO, left: BinaryIO) -> int:
    """Write the user's samples to their places; return where the last one ends."""
    sound.seek(0)
    end = 0
    for chunk in read_sounds(sound):
        if isinstance(chunk, UserSound) and chunk.at_sample < MAX_HOURS * 3600 * RATE_HZ:
            left.seek(chunk.at_sample * 2)
            left.write(chunk.pcm[: len(chunk.pcm) // 2 * 2])
            end = max(end, chunk.at_sample + len(chunk.pcm) // 2)
    return end


def _lay_replies(sound: BinaryIO, heard: Sequence[Placement], right: BinaryIO) -> int:
    """Write what was heard of the replies; return where the last one ends."""
    parts: defaultdict[int, list[Placement]] = defaultdict(list)
    for part in heard:
        parts[part.reply].append(part)
    sound.seek(0)
    chunks: defaultdict[int, list[tuple[int, int, int]]] = defaultdict(list)
    for chunk in read_sounds(sound):
        if isinstance(chunk, ReplySound) and chunk.reply in parts:
            at = sound.tell() - len(chunk.pcm)
            chunks[chunk.reply].append((at, len(chunk.pcm), chunk.rate_hz))
    end = 0
    for reply, places in chunks.items():
        converter = RateConverter(RATE_HZ)
        pieces = []
        for at, size, rate_hz in places:
            sound.seek(at)
            pieces.append(converter.push_audio(sound.read(size), rate_hz))
        speech = np.frombuffer(b"".join([*pieces, converter.finish_stream()]), "<i2")
        for part in parts[reply]:
            piece = speech[_samples(part.from_ms) : _samples(part.to_ms)]
            end = max(end, _add(right, max(0, _samples(part.at_ms)), piece))
    return end


def _add(right: BinaryIO, at: int, samples: "np.ndarray[Any, Any]") -> int:
    """Add samples to those at a place: replies beside the conversation may sound at the
    same time. Return where they end.
    """
    if at >= MAX_HOURS * 3600 * RATE_HZ:
        return 0
    right.seek(at * 2)
    there = np.frombuffer(right.read(len(samples) * 2), "<i2")
    mixed = samples.astype(np.int32)
    mixed[: len(there)] += there
    right.seek(at * 2)
    right.write(np.clip(mixed, -32768, 32767).astype("<i2").tobytes())
    return at + len(samples)


def _samples(length_ms: int) -> int:
    return length_ms * RATE_HZ // 1000


def _encoded(left: BinaryIO, right: BinaryIO, end: int) -> Iterator[bytes]:
    encoder = _StereoOpus()
    left.seek(0)
    right.seek(0)
    for at in range(0, end, PIECE_S * RATE_HZ):
        count = min(end - at, PIECE_S * RATE_HZ)
        both = np.zeros((count, 2), "<i2")
        for side, file in enumerate((left, right)):
            samples = np.frombuffer(file.read(count * 2), "<i2")
            both[: len(samples), side] = samples
        yield from encoder.encode(both.tobytes())
    yield from encoder.finish()


class _StereoOpus:
    """One stream of Ogg Opus (RFC 7845)."""

    def __init__(self) -> None:
        codec = av.CodecContext.create("libopus", "w")
        codec.sample_rate = RATE_HZ
        codec.layout = "stereo"
        codec.format = "s16"
        codec.bit_rate = BITRATE_BPS
        codec.options = {"frame_duration": str(FRAME_MS), "compression_level": _COMPLEXITY}
        codec.open()
        assert codec.extradata is not None, "libopus makes an OpusHead"
        self._codec = codec
        self._head = bytes(codec.extradata)
        self._skip = int.from_bytes(self._head[10:12], "little")
        self._ogg = OggWriter(serial=1)
        self._packets: list[bytes] = []
        self._taken = 0
        self._packed = 0
        self._begun = False

    def encode(self, pcm: bytes) -> Iterator[bytes]:
        self._taken += len(pcm) // 4
        frame = av.AudioFrame("s16", "stereo", len(pcm) // 4)
        frame.sample_rate = RATE_HZ
        frame.planes[0].update(pcm)
        self._packets += map(bytes, self._codec.encode(frame))
        whole = PAGE_MS // FRAME_MS
        while len(self._packets) > whole:  # one packet stays for the last page
            page, self._packets = self._packets[:whole], self._packets[whole:]
            yield self._page(page)

    def finish(self) -> Iterator[bytes]:
        self._packets += map(bytes, self._codec.encode(None))
        position = self._skip + self._taken * OPUS_RATE_HZ // RATE_HZ
        yield self._page(self._packets, last=position)

    def _page(self, packets: Sequence[bytes], last: int | None = None) -> bytes:
        headers = b""
        if not self._begun:
            self._begun = True
            headers = self._ogg.pages([self._head], 0) + self._ogg.pages([_TAGS], 0)
        self._packed += len(packets) * FRAME_MS * OPUS_RATE_HZ // 1000
        position = self._packed if last is None else last
        return headers + self._ogg.pages(packets, position, last=last is not None)
