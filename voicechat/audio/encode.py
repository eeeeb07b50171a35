"""Encodes a synthesiser's samples as one continuous stream for each reply."""

import math
import struct
from typing import Protocol, assert_never

import av

from voicechat.audio.formats import HIGHEST_RATE_HZ, LOWEST_RATE_HZ, Container, OutputFormat
from voicechat.audio.ogg_pages import OggWriter
from voicechat.audio.resample import RateConverter, resampling_delay_ms
from voicechat.audio.wav import wav_header

# The delay from LAME's input to a decoder's output: 576 samples of the encoder and 529
# of the decoder (LAME's "Technical FAQ", encoder and decoder delay).
_MP3_DELAY_SAMPLES = 576 + 529
_SILENT_SAMPLE = bytes(2)
"""PyAV sets up its frame buffer at the first sample, in 0.25 ms. An inaudible sample
does this in advance, off the critical path.
"""
_OPUS_FRAME_MS = 20
OPUS_RATE_HZ = 48000
"""Ogg counts Opus samples at this rate, whatever went into the encoder (RFC 7845,
section 4).
"""
_OPUS_VENDOR = b"voicechat"
_OPUS_TAGS = (
    b"OpusTags" + struct.pack("<I", len(_OPUS_VENDOR)) + _OPUS_VENDOR + struct.pack("<I", 0)
)


class Encoder(Protocol):
    """Encodes one reply. Calls must not overlap, but may come from any thread."""

    @property
    def heavy(self) -> bool:
        """Whether ``encode`` and ``finish_stream`` take milliseconds of CPU. Then call
        them in a thread; they release the GIL.
        """

    @property
    def held_back_ms(self) -> int:
        """The maximum length of buffered audio. Before the first audio, the maximum
        over all input rates.

        To flush the end of a sentence before the next one exists, pad it with this much
        silence.
        """

    @property
    def first_ms(self) -> int:
        """The length of audio needed for the first output, at the expected rate; 0 if
        any length is enough.
        """

    def encode(self, pcm: bytes, rate_hz: int) -> bytes:
        """Encode the next s16le mono samples. May return nothing yet.

        Raises ``ValueError`` for a rate outside 8000 to 192000 Hz.
        """

    def finish_stream(self) -> bytes:
        """Return the end of the stream. The encoder must not be used afterwards."""


def open_encoder(audio_format: OutputFormat, usual_hz: int | None = None) -> Encoder:
    """Create the encoder of one reply, in 1 to 2 ms.

    ``usual_hz`` is the expected rate of the input. The resampler for it is opened now.
    """
    rates_hz = (audio_format.rate_hz, usual_hz or audio_format.rate_hz)
    match audio_format.container:
        case Container.PCM:
            return SampleEncoder(*rates_hz)
        case Container.WAV:
            return SampleEncoder(*rates_hz, header=wav_header(audio_format.rate_hz, None))
        case Container.MP3:
            assert audio_format.bitrate_bps is not None, "an MP3 format has a bit rate"
            return Mp3Encoder(*rates_hz, audio_format.bitrate_bps)
        case Container.OGG_OPUS:
            assert audio_format.bitrate_bps is not None, "an Opus format has a bit rate"
            return OggOpusEncoder(*rates_hz, audio_format.bitrate_bps)
        case _:
            assert_never(audio_format.container)


class SampleEncoder:
    """Raw samples after an optional ``header``. No output without audio."""

    heavy = False
    first_ms = 0
    """Any length of audio is enough; see ``Encoder.first_ms``."""

    def __init__(self, rate_hz: int, usual_hz: int, header: bytes = b"") -> None:
        self.held_back_ms = _conversion_delay_ms(rate_hz)
        self._converter = RateConverter(rate_hz, usual_hz)
        self._header = header

    def encode(self, pcm: bytes, rate_hz: int) -> bytes:
        """Encode the next samples."""
        samples = self._converter.push_audio(pcm, rate_hz)
        self.held_back_ms = self._converter.delay_ms
        return self._headed(samples)

    def finish_stream(self) -> bytes:
        """Return the end of the stream."""
        return self._headed(self._converter.finish_stream())

    def _headed(self, samples: bytes) -> bytes:
        if not self._header or not samples:
            return samples
        header, self._header = self._header, b""
        return header + samples


class Mp3Encoder:
    """MPEG audio layer III at a constant bit rate, by LAME.

    Bare frames, without a Xing or LAME header frame: its counts cannot be known in a
    stream. The bit reservoir is off: each frame can then be decoded wherever a client
    cuts the stream, and what LAME holds back is the same two frames at every bit rate
    (with it, 1 to 6 frames more). LAME lowers the level by 5 % against clipping.

    Measured at 22.05 kHz: 4 to 10 ms of CPU per second of audio.
    """

    heavy = True

    def __init__(self, rate_hz: int, usual_hz: int, bitrate_bps: int) -> None:
        codec = av.CodecContext.create("libmp3lame", "w")
        codec.sample_rate = rate_hz
        codec.layout = "mono"
        codec.format = "s16p"
        codec.bit_rate = bitrate_bps
        codec.options = {"compression_level": "7", "reservoir": "0"}
        codec.open()
        held_back_samples = _MP3_DELAY_SAMPLES + 2 * codec.frame_size - 1
        self.held_back_ms = _conversion_delay_ms(rate_hz) + math.ceil(
            1000 * held_back_samples / rate_hz
        )
        self._codec = codec
        self._rate_hz = rate_hz
        self._converter = RateConverter(rate_hz, usual_hz)
        self.first_ms = self._converter.delay_ms + math.ceil(1000 * 2 * codec.frame_size / rate_hz)
        self._begun = False
        self._encode_samples(_SILENT_SAMPLE)

    def encode(self, pcm: bytes, rate_hz: int) -> bytes:
        """Encode the next samples."""
        self._begun = self._begun or bool(pcm)
        return self._encode_samples(self._converter.push_audio(pcm, rate_hz))

    def finish_stream(self) -> bytes:
        """Return the last frames; none if there was no audio."""
        if not self._begun:
            return b""
        return self._encode_samples(self._converter.finish_stream()) + b"".join(
            map(bytes, self._codec.encode(None))
        )

    def _encode_samples(self, samples: bytes) -> bytes:
        if not samples:
            return b""
        frame = av.AudioFrame("s16p", "mono", len(samples) // 2)
        frame.sample_rate = self._rate_hz
        frame.planes[0].update(samples)
        return b"".join(map(bytes, self._codec.encode(frame)))


class OggOpusEncoder:
    """Opus in Ogg (RFC 7845): one logical stream. Each call returns whole pages.

    The header pages precede the first audio. The last page gives the actual number of
    samples, so that players drop the encoder's padding at both ends.

    Measured at 16 kHz: 5 to 7 ms of CPU per second of audio.
    """

    heavy = True

    def __init__(self, rate_hz: int, usual_hz: int, bitrate_bps: int) -> None:
        codec = av.CodecContext.create("libopus", "w")
        codec.sample_rate = rate_hz
        codec.layout = "mono"
        codec.format = "s16"
        codec.bit_rate = bitrate_bps
        codec.options = {"frame_duration": str(_OPUS_FRAME_MS), "compression_level": "5"}
        codec.open()
        assert codec.extradata is not None, "libopus makes an OpusHead"
        self._head = bytes(codec.extradata)
        self._skip_samples = int.from_bytes(self._head[10:12], "little")
        skip_ms = math.ceil(1000 * self._skip_samples / OPUS_RATE_HZ)
        self.held_back_ms = _conversion_delay_ms(rate_hz) + _OPUS_FRAME_MS + skip_ms
        self._codec = codec
        self._rate_hz = rate_hz
        self._converter = RateConverter(rate_hz, usual_hz)
        # The stream is not multiplexed, so any serial number will do.
        self._ogg = OggWriter(serial=1)
        self._taken_samples = 0
        self._packed_samples = 0
        self.first_ms = self._converter.delay_ms + _OPUS_FRAME_MS

    def encode(self, pcm: bytes, rate_hz: int) -> bytes:
        """Encode the next samples."""
        return self._paged(self._packets(self._converter.push_audio(pcm, rate_hz)))

    def finish_stream(self) -> bytes:
        """Return the last pages; nothing if there was no audio."""
        packets = self._packets(self._converter.finish_stream())
        if not self._taken_samples:
            return b""
        packets += map(bytes, self._codec.encode(None))
        return self._paged(packets, last=True)

    def _packets(self, samples: bytes) -> list[bytes]:
        if not samples:
            return []
        self._taken_samples += len(samples) // 2
        frame = av.AudioFrame("s16", "mono", len(samples) // 2)
        frame.sample_rate = self._rate_hz
        frame.planes[0].update(samples)
        return [bytes(packet) for packet in self._codec.encode(frame)]

    def _paged(self, packets: list[bytes], *, last: bool = False) -> bytes:
        if not packets and not last:
            return b""
        headers = b""
        if not self._packed_samples:
            headers = self._ogg.pages([self._head], 0) + self._ogg.pages([_OPUS_TAGS], 0)
        self._packed_samples += len(packets) * _OPUS_FRAME_MS * OPUS_RATE_HZ // 1000
        position = self._packed_samples
        if last:
            position = self._skip_samples + self._taken_samples * OPUS_RATE_HZ // self._rate_hz
        return headers + self._ogg.pages(packets, position, last=last)


def _conversion_delay_ms(rate_hz: int) -> int:
    # The input rate is not known yet. The delay is largest at one of the two extremes.
    return max(
        resampling_delay_ms(LOWEST_RATE_HZ, rate_hz), resampling_delay_ms(HIGHEST_RATE_HZ, rate_hz)
    )
