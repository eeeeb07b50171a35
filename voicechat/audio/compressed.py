"""Decodes compressed audio to s16le mono 16 kHz, in a sandboxed process of its own.

The demuxers bound the input and this module bounds the output, because a few bytes can
make a codec produce hours of audio.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import av

from voicechat.audio.demux import adts
from voicechat.audio.demux.amr import AmrDemuxer
from voicechat.audio.demux.flac import FlacDemuxer
from voicechat.audio.demux.mp4 import MP4_STARTS, Mp4Demuxer
from voicechat.audio.demux.mpeg import Mp3Demuxer
from voicechat.audio.demux.ogg import OggDemuxer
from voicechat.audio.demux.stream import DemuxedItem, Demuxer, Silence, StreamStart, undecodable
from voicechat.audio.demux.unframed import G722Bytes, OpusPackets
from voicechat.audio.demux.webm import EBML_MAGIC, WebmDemuxer
from voicechat.audio.formats import HIGHEST_RATE_HZ, LOWEST_RATE_HZ, InputContainer
from voicechat.audio.resample import RateConverter
from voicechat.audio.signatures import check_start
from voicechat.errors import Fault, RemoteProtocolError

DECODED_RATE_HZ = 16000
MAX_CHANNELS = 8
MAX_BAD_PACKETS = 50
"""Consecutive damaged packets after which decoding fails. Fewer are skipped."""
SPARE_AUDIO_S = 30
SPARSEST_BYTES_PER_S = 16
"""The lowest accepted bit rate, which applies after ``SPARE_AUDIO_S``. Silence in Opus
and FLAC takes at least 17 bytes/s.
"""
_OUTPUT_BYTES = 32 * 1024
_START_BYTES = 8


@dataclass(frozen=True, slots=True)
class _Kind:
    """How one container is opened and recognised."""

    open: Callable[[], Demuxer]
    begins: Callable[[bytes], bool] = lambda start: False
    """Whether the ``_START_BYTES`` after the end of a turn begin a new stream."""


def _ogg_begins(start: bytes) -> bool:
    return start[:4] == b"OggS" and bool(start[5] & 2)


_KINDS: Mapping[InputContainer, _Kind] = {
    InputContainer.G722: _Kind(G722Bytes),
    InputContainer.OPUS_RAW: _Kind(OpusPackets),
    InputContainer.OPUS: _Kind(OggDemuxer, _ogg_begins),
    InputContainer.SPEEX: _Kind(OggDemuxer, _ogg_begins),
    InputContainer.WEBM: _Kind(WebmDemuxer, lambda start: start[:4] == EBML_MAGIC),
    InputContainer.FLAC: _Kind(FlacDemuxer, lambda start: start[:4] == b"fLaC"),
    InputContainer.AMR: _Kind(AmrDemuxer, lambda start: start[:5] == b"#!AMR"),
    InputContainer.MP3: _Kind(
        Mp3Demuxer, lambda start: start[:3] == b"ID3" or (start[0] == 255 and start[1] >= 0xE2)
    ),
    InputContainer.MP4: _Kind(Mp4Demuxer, lambda start: start[4:8] in MP4_STARTS),
    InputContainer.AAC: _Kind(
        adts.open_demuxer, lambda start: start[0] == 255 and start[1] >= 0xF0
    ),
}


def open_demuxer(container: InputContainer) -> Demuxer:
    """Create the demuxer for one stream of compressed audio."""
    return _KINDS[container].open()


class CompressedDecoder:
    """Decodes one client's audio, which may consist of several consecutive streams and
    turns.

    Damaged packets are skipped. Audio of another format, or beyond a bound, raises
    ``RemoteProtocolError`` (``UNDECODABLE_AUDIO``, ``UNSUPPORTED_FORMAT``,
    ``TOO_LARGE``), after which the decoder must not be used. The output does not depend
    on how the input is split.
    """

    def __init__(self, container: InputContainer) -> None:
        self._container = container
        self._kind = _KINDS[container]
        self._demuxer = self._kind.open()
        self._codec: _Codec | None = None
        self._converter = RateConverter(DECODED_RATE_HZ)
        self._rate_hz = DECODED_RATE_HZ
        """The rate of the last decoded packet."""
        self._start: bytes | None = b""
        """The bytes since the end of the last turn, while fewer than ``_START_BYTES``;
        None afterwards.
        """
        self._first = True
        self.source_rate_hz: int | None = None
        """Sample rate of the recording; None before the stream has declared it, and for
        ``opus_raw`` always.
        """
        self._taken_bytes = 0
        self._given_samples = 0

    def decode(self, data: bytes) -> Iterator[bytes]:
        """Decode the next bytes. Yields pieces of about 32 KiB at most."""
        self._taken_bytes += len(data)
        if self._container is not InputContainer.OPUS_RAW and self._start is not None:
            self._start += data
            if len(self._start) < _START_BYTES:
                return iter(())
            data, self._start = self._start, None
            self._look_at_start(data)
        return self._gathered(self._decode_all(self._demuxer.push_bytes(data)))

    def finish_turn(self) -> Iterator[bytes]:
        """End the turn: yield the samples still buffered. The same stream or a new one
        may follow.
        """
        yield from self._gathered(self._rest())
        self._start = b""

    def _look_at_start(self, data: bytes) -> None:
        if self._container is InputContainer.AAC and data[4:8] in MP4_STARTS:
            self._demuxer = Mp4Demuxer()  # browsers record AAC in MP4
        elif self._first:
            check_start(self._container.value, data)
        elif self._kind.begins(data):
            self._demuxer = self._kind.open()
        self._first = False

    def _rest(self) -> Iterator[bytes]:
        if self._start:
            yield from self._decode_all(self._demuxer.push_bytes(self._start))
        yield from self._decode_all(self._demuxer.finish_stream())
        yield self._converter.finish_stream()

    def _decode_all(self, items: Iterator[DemuxedItem]) -> Iterator[bytes]:
        for item in items:
            if isinstance(item, StreamStart):
                self._codec = _Codec(item, self._container.value)
            elif isinstance(item, Silence):
                yield from self._silence(item.length_s)
            elif self._codec is not None:
                yield from self._converted(self._codec.decode(item))

    def _converted(self, pieces: Iterator[tuple[bytes, int]]) -> Iterator[bytes]:
        for pcm, rate_hz in pieces:
            self._note_rate(rate_hz)
            converted = self._converter.push_audio(pcm, rate_hz)
            self._given_samples += len(converted) // 2
            allowed_s = SPARE_AUDIO_S + self._taken_bytes / SPARSEST_BYTES_PER_S
            if self._given_samples > allowed_s * DECODED_RATE_HZ:
                name, seconds = self._container.value, self._given_samples // DECODED_RATE_HZ
                raise RemoteProtocolError(
                    Fault.TOO_LARGE,
                    f"{name}: {self._taken_bytes} bytes hold more than {seconds} s of audio",
                )
            yield converted

    def _silence(self, length_s: float) -> Iterator[bytes]:
        """Yield silence for omitted packets. It is not decompressed audio."""
        left = round(length_s * self._rate_hz)
        while left > 0:
            pcm = bytes(2 * min(left, self._rate_hz // 2))
            left -= len(pcm) // 2
            yield self._converter.push_audio(pcm, self._rate_hz)

    def _note_rate(self, rate_hz: int) -> None:
        self._rate_hz = rate_hz
        if self._container is not InputContainer.OPUS_RAW and self._codec is not None:
            self.source_rate_hz = self._codec.source_rate_hz or rate_hz

    @staticmethod
    def _gathered(pieces: Iterator[bytes]) -> Iterator[bytes]:
        gathered = bytearray()
        for piece in pieces:
            gathered += piece
            if len(gathered) >= _OUTPUT_BYTES:
                yield bytes(gathered)
                gathered.clear()
        if gathered:
            yield bytes(gathered)


class _Codec:
    """Decodes the packets of one stream to s16le mono at the stream's own rate, without
    a delay.
    """

    def __init__(self, start: StreamStart, name: str) -> None:
        """``name`` is the declared format, for errors."""
        self._name = name
        self.source_rate_hz = start.source_rate_hz
        self._bad_packets = 0
        self._mono: av.AudioResampler | None = None
        self._shape: tuple[str, str, int] | None = None
        codec = av.CodecContext.create(start.codec, "r")
        assert isinstance(codec, av.AudioCodecContext)
        codec.thread_count = 1
        if start.rate_hz is not None:
            _check_rate(start.rate_hz, name)
            codec.sample_rate = start.rate_hz
        if start.channels is not None:
            codec.layout = _LAYOUTS[start.channels - 1]
        if start.extradata:
            codec.extradata = start.extradata
        self._codec = codec

    def decode(self, packet: bytes) -> Iterator[tuple[bytes, int]]:
        """Decode one packet. A damaged packet yields nothing."""
        try:
            frames = self._codec.decode(av.Packet(packet))
        except (av.FFmpegError, ValueError) as error:
            if isinstance(error, MemoryError):
                raise
            self._bad_packets += 1
            if self._bad_packets > MAX_BAD_PACKETS:
                raise undecodable(
                    self._name, f"{MAX_BAD_PACKETS} packets in a row are damaged"
                ) from None
            return
        self._bad_packets = 0
        for frame in frames:
            yield self._samples(frame), frame.sample_rate

    def _samples(self, frame: av.AudioFrame) -> bytes:
        shape = (frame.format.name, frame.layout.name, frame.sample_rate)
        if self._mono is None or shape != self._shape:
            _check_rate(frame.sample_rate, self._name)
            if not 1 <= frame.layout.nb_channels <= MAX_CHANNELS:
                raise undecodable(
                    self._name, f"{frame.layout.nb_channels} channels; allowed: 1 to {MAX_CHANNELS}"
                )
            # The rate does not change, so this resampler adds no delay.
            self._mono = av.AudioResampler("s16", "mono")
            self._shape = shape
        frame.pts = None
        return b"".join(
            bytes(mono.planes[0])[: mono.samples * 2] for mono in self._mono.resample(frame)
        )


_LAYOUTS = ("mono", "stereo", "3.0", "quad", "5.0", "5.1", "6.1", "7.1")


def _check_rate(rate_hz: int, name: str) -> None:
    if not LOWEST_RATE_HZ <= rate_hz <= HIGHEST_RATE_HZ:
        raise undecodable(
            name, f"its rate is {rate_hz} Hz; allowed: {LOWEST_RATE_HZ} to {HIGHEST_RATE_HZ}"
        )
