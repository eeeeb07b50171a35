"""An incremental parser for the header of a RIFF/WAVE clip.

The layout follows Microsoft's "Multimedia Programming Interface and Data Specifications
1.0" and, for ``WAVE_FORMAT_EXTENSIBLE``, the Windows driver kit's ``mmreg.h``.
"""

import struct
from dataclasses import dataclass

from voicechat.audio.formats import HIGHEST_RATE_HZ, LOWEST_RATE_HZ
from voicechat.audio.samples import SampleEncoding, SampleLayout
from voicechat.errors import Fault, RemoteProtocolError

MAX_FORMAT_BYTES = 64 * 1024
"""Maximum size of the ``fmt`` chunk. Other chunks are skipped."""
MAX_CHANNELS = 8
MAX_CHUNKS = 1000
"""Maximum number of chunks before the samples. Prevents a frame of empty chunks from
blocking the event loop.
"""
SIGNATURE_BYTES = 12
UNKNOWN_SIZE = 0xFFFFFFFF
MAX_DATA_BYTES = 1 << 30
"""Maximum declared size of the samples: more than 9 h at 16 kHz. The maximum applies to
other chunks too.
"""
_UNKNOWN_SIZES = (range(0x7FFF0000, 0x80010000), range(0xFFFF0000, 0x100000000))
"""Sizes that recorders write if the size is unknown: the largest number, less the size
of one or two headers.
"""

_FORMS = (b"RIFF", b"RF64", b"BW64")
"""The last two are the 64-bit forms for long recordings: ITU-R BS.2088 and EBU Tech
3306.
"""
_SIZES_BYTES = 24
"""Length of the first fields of the 'ds64' chunk: the sizes of the form and of the
samples, and the number of samples.
"""
_EXTENSIBLE = 0xFFFE
_EXTENSIBLE_GUID_TAIL = bytes.fromhex("000000001000800000aa00389b71")
_ENCODINGS = {
    (1, 8): SampleEncoding.U8,
    (1, 16): SampleEncoding.S16,
    (1, 24): SampleEncoding.S24,
    (1, 32): SampleEncoding.S32,
    (3, 32): SampleEncoding.F32,
    (3, 64): SampleEncoding.F64,
    (6, 8): SampleEncoding.A_LAW,
    (7, 8): SampleEncoding.MU_LAW,
}


@dataclass(frozen=True, slots=True)
class ClipHeader:
    """The description of a clip's samples."""

    rate_hz: int
    layout: SampleLayout
    data_bytes: int | None
    """Bytes of samples; None if unknown: they continue until the next clip."""
    trailing_bytes: int
    """Bytes of chunks after the samples, such as tags."""


def may_be_clip(start: bytes) -> bool:
    """Whether a stream with this beginning may be a clip. The answer is certain from
    ``SIGNATURE_BYTES`` on.
    """
    if not b"WAVE".startswith(start[8:SIGNATURE_BYTES]):
        return False
    return any(form.startswith(start[:4]) for form in _FORMS)


def is_chunk_head(head: bytes, most_bytes: int) -> bool:
    """Whether 8 bytes are the head of a chunk of at most ``most_bytes``, including the
    head.
    """
    printable = all(0x20 <= byte < 0x7F for byte in head[:4])
    return printable and 8 + int.from_bytes(head[4:8], "little") <= most_bytes


class HeaderParser:
    """Parses one clip from its ``RIFF`` up to the first byte of its samples, in pieces
    of any size.

    Raises ``RemoteProtocolError`` for an unusable header:
    ``UNSUPPORTED_FORMAT`` for an encoding, ``TOO_LARGE`` for more than
    ``MAX_DATA_BYTES`` of samples, ``UNDECODABLE_AUDIO`` for the rest. ``nBlockAlign``
    and ``nAvgBytesPerSec`` are ignored: they follow from other fields, and are often
    wrong.
    """

    def __init__(self) -> None:
        self._pending = bytearray()
        self._offset_bytes = 0
        self._skip_bytes = 0
        self._riff_bytes = 0
        self._chunks = 0
        self._format: tuple[int, SampleLayout] | None = None
        self._long_sizes: tuple[int, int] | None = None
        """The sizes of the form and of the samples from a 64-bit form."""

    def push_bytes(self, data: bytes) -> tuple[ClipHeader, bytes] | None:
        """Parse the next piece. Returns the header and the bytes after it, or None
        while the header is incomplete.
        """
        self._pending += data
        if self._offset_bytes == 0:
            if len(self._pending) < SIGNATURE_BYTES:
                return None
            self._riff_bytes = int.from_bytes(self._take(SIGNATURE_BYTES)[4:8], "little")
        while True:  # terminates: each iteration consumes bytes
            skipped = self._take(min(self._skip_bytes, len(self._pending)))
            self._skip_bytes -= len(skipped)
            if self._skip_bytes or len(self._pending) < 8:
                return None
            chunk, size = bytes(self._pending[:4]), int.from_bytes(self._pending[4:8], "little")
            if chunk == b"data":
                self._take(8)
                return self._header(size), bytes(self._pending)
            self._check_chunk(chunk, size)
            read_bytes = min(size, {b"fmt ": size, b"ds64": _SIZES_BYTES}.get(chunk, 0))
            if len(self._pending) < 8 + read_bytes:
                return None
            self._chunks += 1
            content = self._take(8 + read_bytes)[8:]
            self._skip_bytes = size + size % 2 - read_bytes
            if chunk == b"fmt ":
                self._format = _parse_format(content)
            elif len(content) == _SIZES_BYTES:
                form_bytes, data_bytes, _ = struct.unpack("<QQQ", content)
                self._long_sizes = form_bytes, data_bytes

    def _check_chunk(self, chunk: bytes, size: int) -> None:
        if self._chunks >= MAX_CHUNKS:
            raise _undecodable(f"more than {MAX_CHUNKS} chunks stand before its samples")
        if chunk == b"fmt " and size > MAX_FORMAT_BYTES:
            raise _undecodable(f"its 'fmt ' chunk is longer than {MAX_FORMAT_BYTES} bytes")
        if size > MAX_DATA_BYTES:
            raise _undecodable(
                f"a chunk before its samples has {size} bytes; allowed: {MAX_DATA_BYTES}"
            )

    def _take(self, size: int) -> bytes:
        taken = bytes(self._pending[:size])
        del self._pending[:size]
        self._offset_bytes += size
        return taken

    def _header(self, data_bytes: int) -> ClipHeader:
        if self._format is None:
            raise _undecodable("its header has no 'fmt ' chunk before its samples")
        rate_hz, layout = self._format
        if data_bytes == UNKNOWN_SIZE and self._long_sizes is not None:
            self._riff_bytes, data_bytes = self._long_sizes
        elif any(data_bytes in sizes for sizes in _UNKNOWN_SIZES):
            return ClipHeader(rate_hz, layout, None, 0)
        if data_bytes > MAX_DATA_BYTES:
            raise RemoteProtocolError(
                Fault.TOO_LARGE,
                f"wav: its header promises {data_bytes} bytes; allowed: {MAX_DATA_BYTES}",
            )
        trailing_bytes = 8 + self._riff_bytes - (self._offset_bytes + data_bytes)
        if data_bytes == 0 or not 0 <= trailing_bytes <= MAX_DATA_BYTES:
            # The sizes were never filled in, or contradict each other. Treat the data
            # that follows as samples.
            trailing_bytes = 0
        return ClipHeader(rate_hz, layout, data_bytes, trailing_bytes)


def _parse_format(chunk: bytes) -> tuple[int, SampleLayout]:
    if len(chunk) < 16:
        raise _undecodable(f"its 'fmt ' chunk has {len(chunk)} bytes; at least 16 are needed")
    tag, channels, rate_hz, _, _, bits = struct.unpack_from("<HHIIHH", chunk)
    if tag == _EXTENSIBLE and len(chunk) >= 40 and chunk[26:40] == _EXTENSIBLE_GUID_TAIL:
        tag = int.from_bytes(chunk[24:26], "little")
    encoding = _ENCODINGS.get((tag, bits))
    if encoding is None:
        raise RemoteProtocolError(
            Fault.UNSUPPORTED_FORMAT,
            f"wav: encoding 0x{tag:04X} with {bits} bits is not supported; "
            "allowed: PCM 8, 16, 24 or 32, float 32 or 64, A-law, mu-law",
        )
    if not 1 <= channels <= MAX_CHANNELS:
        raise _undecodable(f"its header names {channels} channels; allowed: 1 to {MAX_CHANNELS}")
    if not LOWEST_RATE_HZ <= rate_hz <= HIGHEST_RATE_HZ:
        raise _undecodable(
            f"its header names {rate_hz} Hz; allowed: {LOWEST_RATE_HZ} to {HIGHEST_RATE_HZ}"
        )
    return rate_hz, SampleLayout(encoding, channels)


def _undecodable(reason: str) -> RemoteProtocolError:
    return RemoteProtocolError(Fault.UNDECODABLE_AUDIO, f"wav: {reason}")
