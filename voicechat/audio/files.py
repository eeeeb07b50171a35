"""Decodes recordings of any common format to s16le 16 kHz, each channel separately.

Runs in a sandboxed process, like ``voicechat.audio.compressed``. FFmpeg reads the
containers, because files are seekable. Containers are allowed by a list, because some
others open further files.
"""

import io
import re
from collections.abc import Iterator
from typing import BinaryIO

import av

from voicechat.audio.demux.mpeg import id3_tag_bytes
from voicechat.audio.demux.ogg import opus_source_rate_hz
from voicechat.audio.demux.stream import undecodable, unsupported
from voicechat.audio.formats import HIGHEST_RATE_HZ, LOWEST_RATE_HZ, InputContainer, InputFormat
from voicechat.audio.resample import Resampler
from voicechat.audio.riff import MAX_FORMAT_BYTES, SIGNATURE_BYTES, HeaderParser, may_be_clip
from voicechat.audio.signatures import SIGNATURE_BYTES as START_BYTES
from voicechat.audio.signatures import known_container
from voicechat.errors import Fault, RemoteProtocolError

FILE_RATE_HZ = 16000
MAX_FILE_BYTES = 1 << 30
MAX_AUDIO_S = 5 * 3600
MAX_CHANNELS = 8
MAX_TAG_BYTES = 16 * 1024 * 1024
MAX_BAD_PACKETS = 50
"""Consecutive damaged packets after which decoding fails."""
SPARE_AUDIO_S = 60
SPARSEST_BYTES_PER_S = 100
"""The lowest accepted average bit rate, which applies after ``SPARE_AUDIO_S``. Speech
takes six times as much.
"""
PIECE_S = 5
"""The approximate maximum length of one read."""
MIN_GAP_S = 0.1
"""A smaller gap before a packet is rounding or drift."""
MAX_GAP_S = 3600.0
"""A larger gap means that the clock was changed, not that recording paused."""

# Names of libavformat's demuxers, each of which reads one file and opens no other.
_DEMUXERS = (
    "wav,w64,aiff,caf,au,mp3,aac,amr,amrnb,amrwb,flac,ogg,matroska,webm,mov,mp4,m4a,3gp,3g2,mj2,"
    "flv,asf,mpegts,mpeg,avi,nut,ac3,eac3,ape,wv,tta,tak,mpc,mpc8,dsf,voc,iff,ircam,nistsphere,"
    "sox,rm,qcp,ast,s16le,mulaw,alaw,g722"
)
_OPTIONS = {"format_whitelist": _DEMUXERS, "protocol_whitelist": "none", "probesize": "1000000"}

_TIMED = frozenset({"ogg", "flv", "asf", "mpegts", "mpeg", "nut", "rm", "matroska", "mov"})
"""Containers whose packets have timestamps, by the first of FFmpeg's names."""
_TIMED_FROM_ZERO = frozenset({"matroska", "mov"})
"""The timed containers whose time line begins at 0. The others begin at any time."""

_BARE = {
    InputContainer.PCM: "s16le",
    InputContainer.MU_LAW: "mulaw",
    InputContainer.A_LAW: "alaw",
    InputContainer.G722: "g722",
}
_OGG_HEAD_BYTES = 5
_OGG_FIRST_PAGE = re.compile(rb"OggS\0[\x02\x06]")
"""The start of a page that begins a logical stream."""
_OGG_LATER_PAGE = re.compile(rb"OggS\0[^\x02\x06]", re.DOTALL)
_SEARCH_BYTES = 1 << 20


class FileDecoder:
    """Decodes one file from beginning to end. Video and further audio tracks are
    ignored.

    Gaps in the container's time line (a track that begins late, packets omitted during
    silence) become silence. If the channel layout changes, audio is remixed to the
    initial layout.
    """

    def __init__(self, file: BinaryIO, bare: InputFormat | None = None) -> None:
        """Open the file. ``bare`` is the format of a file without a container.

        Raises ``RemoteProtocolError`` with ``UNDECODABLE_AUDIO`` if it is not a
        recording, ``UNSUPPORTED_FORMAT`` if its codec is unknown, or ``TOO_LARGE`` if
        it exceeds or declares more than the maximum length. Raises ``OSError`` if it
        cannot be read.
        """
        self._file = file
        self._check_size()
        self._bare = bare if bare is not None and not self._has_header() else None
        self._part = _Part(self._file, 0)
        self._track = _AudioTrack(self._part, self._bare)
        self._clock = _Clock(self._track)
        self._channels: list[Resampler] = []
        self._layout: av.AudioLayout | None = None
        self._planar: av.AudioResampler | None = None
        self._shape: tuple[str, str, int] | None = None
        self._bad_packets = 0
        self._taken_bytes = 0
        self._given_samples = 0
        self._silent_s = 0.0
        self.source_rate_hz = FILE_RATE_HZ
        """Sample rate of the recording, known after the first read."""
        self._pieces = self._decode()

    def read_channels(self) -> tuple[bytes, ...]:
        """Return the next seconds of every channel; empty at the end. Raises the same
        errors as the constructor.
        """
        pieces: list[bytearray] = []
        for channels in self._pieces:
            if not pieces:
                pieces = [bytearray() for _ in channels]
            for piece, pcm in zip(pieces, channels, strict=True):
                piece += pcm
            if len(pieces[0]) >= PIECE_S * FILE_RATE_HZ * 2:
                break
        if not self._given_samples and not (pieces and pieces[0]):
            raise undecodable("file", "there is no audio in it")
        return tuple(map(bytes, pieces)) if pieces and pieces[0] else ()

    def close(self) -> None:
        """Close the container. The file stays open."""
        self._track.close()

    def _check_size(self) -> None:
        size_bytes = self._file.seek(0, io.SEEK_END)
        if size_bytes > MAX_FILE_BYTES:
            raise RemoteProtocolError(
                Fault.TOO_LARGE, f"the file has {size_bytes} bytes; allowed: {MAX_FILE_BYTES}"
            )
        tags_bytes = 0
        while True:  # terminates: each iteration advances in the file
            self._file.seek(tags_bytes)
            tag_bytes = id3_tag_bytes(self._file.read(10))
            tags_bytes += tag_bytes
            if tags_bytes > MAX_TAG_BYTES:
                raise RemoteProtocolError(
                    Fault.TOO_LARGE,
                    f"the file has {tags_bytes} bytes of ID3 tags; allowed: {MAX_TAG_BYTES}",
                )
            if not tag_bytes:
                break
        self._file.seek(0)
        _check_riff(self._file.read(MAX_FORMAT_BYTES))

    def _has_header(self) -> bool:
        self._file.seek(0)
        return known_container(self._file.read(START_BYTES)) is not None

    def _decode(self) -> Iterator[tuple[bytes, ...]]:
        while True:  # terminates: each iteration reads a packet or opens the next link
            try:
                packet = next(self._track.packets)
                self._taken_bytes += packet.size
                frames = packet.decode()
                self._bad_packets = 0
            except (StopIteration, EOFError):
                break
            except av.PatchWelcomeError:  # an Ogg file whose next link has other parameters
                if not self._begin_next_link():
                    break
                continue
            except (av.FFmpegError, ValueError) as error:
                if isinstance(error, MemoryError):
                    raise
                self._bad_packets += 1
                if self._bad_packets > MAX_BAD_PACKETS:
                    reason = f"{MAX_BAD_PACKETS} packets in a row are damaged"
                    raise undecodable("file", reason) from None
                continue
            for frame in frames:
                yield from self._converted(frame)
        if self._channels:
            yield self._counted(tuple(channel.finish_stream() for channel in self._channels))

    def _begin_next_link(self) -> bool:
        """Open the next logical stream of a chained Ogg file. Returns whether there is
        one.
        """
        start = _next_link(self._file, self._part.start)
        if start is None:
            return False
        self._track.close()
        self._part = _Part(self._file, start)
        self._track = _AudioTrack(self._part, None)
        self._clock.go_on(self._track)
        return True

    def _converted(self, frame: av.AudioFrame) -> Iterator[tuple[bytes, ...]]:
        shape = (frame.format.name, frame.layout.name, frame.sample_rate)
        if self._planar is None or shape != self._shape:
            yield from self._take_shape(frame)
            self._shape = shape
        gap_s = self._clock.gap_before(frame)
        self._silent_s += gap_s
        left = round(gap_s * frame.sample_rate)
        while left > 0:
            silence = bytes(2 * min(left, frame.sample_rate))
            left -= len(silence) // 2
            yield self._counted(tuple(channel.push_audio(silence) for channel in self._channels))
        assert self._planar is not None
        frame.pts = None
        parts = self._planar.resample(frame)
        channels = tuple(
            channel.push_audio(
                b"".join(bytes(part.planes[index])[: part.samples * 2] for part in parts)
            )
            for index, channel in enumerate(self._channels)
        )
        yield self._counted(channels)

    def _counted(self, channels: tuple[bytes, ...]) -> tuple[bytes, ...]:
        self._given_samples += len(channels[0]) // 2
        given_s = self._given_samples / FILE_RATE_HZ
        _check_length(given_s, "is")
        allowed_s = SPARE_AUDIO_S + self._taken_bytes / SPARSEST_BYTES_PER_S
        if given_s - self._silent_s > allowed_s:
            raise RemoteProtocolError(
                Fault.TOO_LARGE,
                f"the file unfolds: {self._taken_bytes} bytes hold more than {given_s:.0f} s",
            )
        return channels

    def _take_shape(self, frame: av.AudioFrame) -> Iterator[tuple[bytes, ...]]:
        """Prepare the resamplers for frames like this one. Yields the samples that the
        previous resamplers had buffered.
        """
        rate_hz, count = frame.sample_rate, frame.layout.nb_channels
        if not LOWEST_RATE_HZ <= rate_hz <= HIGHEST_RATE_HZ:
            allowed = f"{LOWEST_RATE_HZ} to {HIGHEST_RATE_HZ}"
            raise undecodable("file", f"its rate is {rate_hz} Hz; allowed: {allowed}")
        if not 1 <= count <= MAX_CHANNELS:
            raise undecodable("file", f"{count} channels; allowed: 1 to {MAX_CHANNELS}")
        if self._layout is None:
            self._layout = frame.layout
            self.source_rate_hz = self._track.source_rate_hz or rate_hz
        # The rate does not change, so this resampler adds no delay.
        self._planar = av.AudioResampler("s16p", self._layout)
        if not self._channels or self._channels[0].in_rate_hz != rate_hz:
            if self._channels:
                yield self._counted(tuple(channel.finish_stream() for channel in self._channels))
            count = self._layout.nb_channels
            self._channels = [Resampler(rate_hz, FILE_RATE_HZ) for _ in range(count)]


class _Part:
    """A view of a file from ``start`` on, for FFmpeg.

    It has no name, so FFmpeg cannot choose a demuxer by it or open neighbouring files.
    """

    def __init__(self, file: BinaryIO, start: int) -> None:
        self.start = start
        self._file = file
        file.seek(start)
        self.read = file.read

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_SET:
            offset += self.start
        return self._file.seek(offset, whence) - self.start

    def tell(self) -> int:
        return self._file.tell() - self.start


class _AudioTrack:
    """The first audio track of an opened file."""

    def __init__(self, part: _Part, bare: InputFormat | None) -> None:
        try:
            if bare is None:
                self._container = av.open(part, "r", options=_OPTIONS)
            else:
                samples = {"sample_rate": str(bare.rate_hz), "ch_layout": "mono"}
                if bare.container is InputContainer.G722:
                    samples = {}
                name = _BARE[bare.container]
                self._container = av.open(part, "r", format=name, options=_OPTIONS | samples)
        except (av.FFmpegError, ValueError) as error:
            if isinstance(error, MemoryError):
                raise
            raise undecodable("file", "it is no recording of a known format") from error
        if not self._container.streams.audio:
            raise undecodable("file", "it has no audio")
        self._stream = self._container.streams.audio[0]
        codec = self._stream.codec_context
        if codec is None:
            raise unsupported("file", "its audio codec is not known")
        codec.thread_count = 1
        if self._container.duration is not None:
            _check_length(self._container.duration / av.time_base, "says that it is")
        self.packets = self._container.demux(self._stream)
        head = codec.extradata or b""
        self.source_rate_hz = opus_source_rate_hz(head) if head[:8] == b"OpusHead" else None

    @property
    def timed_from_s(self) -> float | None:
        """The start of the time line; None if packets have no reliable timestamps."""
        name = self._container.format.name.partition(",")[0]
        if name not in _TIMED:
            return None
        start = self._container.start_time
        return 0.0 if name in _TIMED_FROM_ZERO or start is None else start / av.time_base

    def close(self) -> None:
        self._container.close()


class _Clock:
    """Compares the timestamps of frames with the length of the audio before them."""

    def __init__(self, track: _AudioTrack) -> None:
        self._heard_s = 0.0
        self._zero_s: float | None = None
        self.go_on(track)

    def go_on(self, track: _AudioTrack) -> None:
        """Continue with the time line of ``track``, which follows the audio so far."""
        zero_s = track.timed_from_s
        self._zero_s = None if zero_s is None else zero_s - self._heard_s

    def gap_before(self, frame: av.AudioFrame) -> float:
        """Return the gap before ``frame`` in seconds, and advance by the frame."""
        gap_s = 0.0
        if self._zero_s is not None and frame.time is not None:
            gap_s = frame.time - self._zero_s - self._heard_s
            # Outside these bounds the recorder's clock was changed: restart from here.
            if not -MIN_GAP_S < gap_s < MAX_GAP_S:
                self._zero_s += gap_s
            if not MIN_GAP_S <= gap_s < MAX_GAP_S:
                gap_s = 0.0
        self._heard_s += frame.samples / frame.sample_rate + gap_s
        return gap_s


def _next_link(file: BinaryIO, start: int) -> int | None:
    """Find the next link of a chained Ogg file; the current one begins at ``start``.

    A link begins with the first pages of its streams. So the next link begins at the
    first such page after any other page.
    """
    later = _find(file, start, _OGG_LATER_PAGE)
    return None if later is None else _find(file, later, _OGG_FIRST_PAGE)


def _find(file: BinaryIO, start: int, pattern: re.Pattern[bytes]) -> int | None:
    file.seek(start)
    position, buffer = start, b""
    while piece := file.read(_SEARCH_BYTES):
        buffer += piece
        if found := pattern.search(buffer):
            return position + found.start()
        kept = buffer[-_OGG_HEAD_BYTES:]  # the pattern may span two reads
        position += len(buffer) - len(kept)
        buffer = kept
    return None


def _check_riff(start: bytes) -> None:
    if len(start) < SIGNATURE_BYTES or not may_be_clip(start):
        return
    try:
        HeaderParser().push_bytes(start)
    except RemoteProtocolError as error:
        # FFmpeg may be able to read a header with any other problem.
        if error.fault is Fault.TOO_LARGE:
            raise


def _check_length(length_s: float, verb: str) -> None:
    if length_s > MAX_AUDIO_S:
        raise RemoteProtocolError(
            Fault.TOO_LARGE,
            f"the recording {verb} {length_s / 3600:.1f} hours long; "
            f"allowed: {MAX_AUDIO_S // 3600}",
        )
