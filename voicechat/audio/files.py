"""Uploaded recordings of any common format, decoded to s16le 16 kHz, each channel by itself.

Runs in a process of its own, as ``voicechat.audio.compressed`` does. Here the containers are FFmpeg's matter too, since
files are read at any place; which of them it may use is listed, because some of the others open further files.
"""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import av

from voicechat.audio.demux.mpeg import id3_tag_bytes
from voicechat.audio.demux.stream import undecodable
from voicechat.audio.formats import HIGHEST_RATE_HZ, LOWEST_RATE_HZ
from voicechat.audio.resample import Resampler
from voicechat.audio.riff import MAX_HEADER_BYTES, SIGNATURE_BYTES, HeaderParser, may_be_clip
from voicechat.errors import RemoteProtocolError, Status

FILE_RATE_HZ = 16000
MAX_FILE_BYTES = 1 << 30
MAX_AUDIO_S = 5 * 3600
MAX_CHANNELS = 8
MAX_TAG_BYTES = 16 * 1024 * 1024
MAX_BAD_PACKETS = 50
"""In a row."""
SPARE_AUDIO_S = 60
SPARSEST_BYTES_PER_S = 100
"""Of the compressed audio on the average, once there is more than ``SPARE_AUDIO_S``; speech takes six times as much."""
PIECE_S = 5
"""What one read gives at most, about."""

# As libavformat's -formats has them: wav, aiff, caf; mp3; aac; amr; flac; ogg; webm; m4a, mp4, 3gp; flv; wma.
_DEMUXERS = (
    "wav,w64,aiff,caf,au,mp3,aac,amr,amrnb,amrwb,flac,ogg,matroska,webm,mov,mp4,m4a,3gp,3g2,mj2,flv,asf,mpegts,g722"
)
_OPTIONS = {"format_whitelist": _DEMUXERS, "protocol_whitelist": "none", "probesize": "1000000"}


class FileDecoder:
    """Reads one file from its beginning to its end. Video and further audio tracks are ignored."""

    def __init__(self, path: Path) -> None:
        """Open the file.

        Raises ``RemoteProtocolError``: ``UNDECODABLE_AUDIO`` when it is no recording, ``TOO_LARGE`` when it is longer
        than allowed or says that it is; ``OSError`` when it cannot be read.
        """
        self._file = path.open("rb")
        self._check_size()
        try:
            self._container = av.open(_Opaque(self._file), "r", options=_OPTIONS)
        except (av.FFmpegError, ValueError) as error:
            raise undecodable("file", "it is no recording of a known format") from error
        if not self._container.streams.audio:
            raise undecodable("file", "it has no audio")
        stream = self._container.streams.audio[0]
        stream.codec_context.thread_count = 1
        if self._container.duration is not None:
            _check_length(self._container.duration / av.time_base, "says that it is")
        self._packets = self._container.demux(stream)
        self._channels: list[Resampler] = []
        self._planar: av.AudioResampler | None = None
        self._shape: tuple[str, str, int] | None = None
        self._bad_packets = 0
        self._taken_bytes = 0
        self._given_samples = 0
        self._ended = False

    def read(self) -> tuple[bytes, ...]:
        """Give the next few seconds of every channel; empty at the end. Raises as the opening does."""
        pieces: list[bytearray] = []
        while not self._ended and (not pieces or len(pieces[0]) < PIECE_S * FILE_RATE_HZ * 2):
            for channels in self._decode_next():
                if not pieces:
                    pieces = [bytearray() for _ in channels]
                for piece, pcm in zip(pieces, channels, strict=True):
                    piece += pcm
        if self._ended and not self._given_samples:
            raise undecodable("file", "there is no audio in it")
        return tuple(map(bytes, pieces)) if pieces and pieces[0] else ()

    def close(self) -> None:
        """Close the file."""
        self._container.close()
        self._file.close()

    def _check_size(self) -> None:
        size_bytes = self._file.seek(0, io.SEEK_END)
        if size_bytes > MAX_FILE_BYTES:
            raise RemoteProtocolError(Status.TOO_LARGE, f"the file has {size_bytes} bytes; allowed: {MAX_FILE_BYTES}")
        tags_bytes = 0
        while True:  # ends: every turn goes on in the file
            self._file.seek(tags_bytes)
            tag_bytes = id3_tag_bytes(self._file.read(10))
            tags_bytes += tag_bytes
            if tags_bytes > MAX_TAG_BYTES:
                raise RemoteProtocolError(
                    Status.TOO_LARGE, f"the file has {tags_bytes} bytes of ID3 tags; allowed: {MAX_TAG_BYTES}"
                )
            if not tag_bytes:
                break
        self._file.seek(0)
        _check_riff(self._file.read(MAX_HEADER_BYTES))
        self._file.seek(0)

    def _decode_next(self) -> Iterator[tuple[bytes, ...]]:
        try:
            packet = next(self._packets)
            self._taken_bytes += packet.size
            frames = packet.decode()
            self._bad_packets = 0
        except (StopIteration, EOFError):
            self._ended = True
            if self._channels:
                yield tuple(channel.finish() for channel in self._channels)
            return
        except (av.FFmpegError, ValueError) as error:
            if isinstance(error, MemoryError):
                raise
            self._bad_packets += 1
            if self._bad_packets > MAX_BAD_PACKETS:
                raise undecodable("file", f"{MAX_BAD_PACKETS} packets in a row are damaged") from None
            return
        for frame in frames:
            yield self._converted(frame)

    def _converted(self, frame: av.AudioFrame) -> tuple[bytes, ...]:
        shape = (frame.format.name, frame.layout.name, frame.sample_rate)
        if self._planar is None or shape != self._shape:
            self._open_channels(frame)
            self._shape = shape
        assert self._planar is not None
        frame.pts = None
        parts = self._planar.resample(frame)
        channels = tuple(
            channel.push(b"".join(bytes(part.planes[index])[: part.samples * 2] for part in parts))
            for index, channel in enumerate(self._channels)
        )
        self._given_samples += len(channels[0]) // 2
        given_s = self._given_samples / FILE_RATE_HZ
        _check_length(given_s, "is")
        if given_s > SPARE_AUDIO_S + self._taken_bytes / SPARSEST_BYTES_PER_S:
            raise RemoteProtocolError(
                Status.TOO_LARGE, f"the file unfolds: {self._taken_bytes} bytes hold more than {given_s:.0f} s"
            )
        return channels

    def _open_channels(self, frame: av.AudioFrame) -> None:
        rate_hz, count = frame.sample_rate, frame.layout.nb_channels
        if not LOWEST_RATE_HZ <= rate_hz <= HIGHEST_RATE_HZ:
            raise undecodable("file", f"its rate is {rate_hz} Hz; allowed: {LOWEST_RATE_HZ} to {HIGHEST_RATE_HZ}")
        if not 1 <= count <= MAX_CHANNELS or (self._channels and count != len(self._channels)):
            raise undecodable("file", f"{count} channels; allowed: 1 to {MAX_CHANNELS}, the same all along")
        self._planar = av.AudioResampler("s16p", frame.layout)  # it keeps the rate, and so holds nothing back
        self._channels = [Resampler(rate_hz, FILE_RATE_HZ) for _ in range(count)]


class _Opaque:
    """A file without its name, so that no demuxer is chosen by it, and nothing beside it is opened."""

    def __init__(self, file: BinaryIO) -> None:
        self.read = file.read
        self.seek = file.seek
        self.tell = file.tell


def _check_riff(start: bytes) -> None:
    if len(start) < SIGNATURE_BYTES or not may_be_clip(start):
        return
    try:
        HeaderParser().push(start)
    except RemoteProtocolError as error:
        # What else is wrong with it FFmpeg may understand.
        if error.status is Status.TOO_LARGE:
            raise


def _check_length(length_s: float, verb: str) -> None:
    if length_s > MAX_AUDIO_S:
        hours = length_s / 3600
        raise RemoteProtocolError(
            Status.TOO_LARGE, f"the recording {verb} {hours:.1f} hours long; allowed: {MAX_AUDIO_S // 3600}"
        )
