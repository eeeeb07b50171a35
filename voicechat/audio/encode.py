"""Encodes a synthesiser's samples for each reply: as one continuous stream, or as
packets of one length.
"""

import math
import struct
from functools import partial
from typing import Protocol, TypeAlias, assert_never

import av

from voicechat.audio import g711
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
_OGG_COMPLEXITY, _PACKET_COMPLEXITY = 5, 1
"""libopus's complexity, 0 to 10. At 24 kHz and 24 kbit/s, PESQ (ITU-T P.862.2, mean of
six recordings of read prose) is 3.99 for 0, 4.10 for 1 and 3, 4.15 for 5 and 4.42 from
8 on; CPU time is 0.9, 1.1, 1.6 and 7 ms per second of audio. Single packets are for
small devices; one server holds hundreds of them.
"""
OPUS_RATE_HZ = 48000
"""Ogg counts Opus samples at this rate, whatever went into the encoder (RFC 7845,
section 4).
"""
_OPUS_VENDOR = b"voicechat"
_OPUS_TAGS = (
    b"OpusTags" + struct.pack("<I", len(_OPUS_VENDOR)) + _OPUS_VENDOR + struct.pack("<I", 0)
)


Packets: TypeAlias = tuple[bytes, ...]
"""Encoded audio in order; no element is empty. For a format with ``packet_ms`` each
element is one packet of that length; for any other format they are pieces of a stream,
split anywhere.
"""


class Encoder(Protocol):
    """Encodes one reply. Calls must not overlap, but may come from any thread."""

    @property
    def heavy(self) -> bool:
        """Whether ``encode`` and ``finish_stream`` take milliseconds of CPU. Then call
        them in a thread; they release the GIL.
        """

    @property
    def held_back_ms(self) -> int:
        """How much silence must follow the end of a sentence so that its last sound is
        encoded before the next sentence exists: at most the length of the buffered
        audio, and of one packet. Before the first audio this is the maximum over all
        input rates.
        """

    @property
    def first_ms(self) -> int:
        """The length of audio needed for the first output, at the expected rate; 0 if
        any length is enough.
        """

    def encode(self, pcm: bytes, rate_hz: int) -> Packets:
        """Encode the next s16le mono samples. May return nothing yet.

        Raises ``ValueError`` for a rate outside 8000 to 192000 Hz.
        """

    def finish_stream(self) -> Packets:
        """Return the end of the audio; silence fills the last packet. The encoder must
        not be used afterwards.
        """


def open_encoder(audio_format: OutputFormat, usual_hz: int | None = None) -> Encoder:
    """Create the encoder of one reply, in 1 to 2 ms.

    ``usual_hz`` is the expected rate of the input. The resampler for it is opened now.
    """
    rates_hz = (audio_format.rate_hz, usual_hz or audio_format.rate_hz)
    if audio_format.packet_ms is not None:
        return PacketEncoder(audio_format, rates_hz[1])
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
        case Container.OPUS | Container.MU_LAW | Container.A_LAW:
            raise ValueError(f"{audio_format.container.value} is made in packets only")
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

    def encode(self, pcm: bytes, rate_hz: int) -> Packets:
        """Encode the next samples."""
        samples = self._converter.push_audio(pcm, rate_hz)
        self.held_back_ms = self._converter.delay_ms
        return self._headed(samples)

    def finish_stream(self) -> Packets:
        """Return the end of the stream."""
        return self._headed(self._converter.finish_stream())

    def _headed(self, samples: bytes) -> Packets:
        if not samples:
            return ()
        header, self._header = self._header, b""
        return (header + samples,)


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

    def encode(self, pcm: bytes, rate_hz: int) -> Packets:
        """Encode the next samples."""
        self._begun = self._begun or bool(pcm)
        return self._encode_samples(self._converter.push_audio(pcm, rate_hz))

    def finish_stream(self) -> Packets:
        """Return the last frames; none if there was no audio."""
        if not self._begun:
            return ()
        tail = self._encode_samples(self._converter.finish_stream())
        return tail + tuple(map(bytes, self._codec.encode(None)))

    def _encode_samples(self, samples: bytes) -> Packets:
        if not samples:
            return ()
        frame = av.AudioFrame("s16p", "mono", len(samples) // 2)
        frame.sample_rate = self._rate_hz
        frame.planes[0].update(samples)
        return tuple(map(bytes, self._codec.encode(frame)))


class OggOpusEncoder:
    """Opus in Ogg (RFC 7845): one logical stream. Each call returns whole pages.

    The header pages precede the first audio. The last page gives the actual number of
    samples, so that players drop the encoder's padding at both ends.

    Measured at 16 kHz: 5 to 7 ms of CPU per second of audio.
    """

    heavy = True

    def __init__(self, rate_hz: int, usual_hz: int, bitrate_bps: int) -> None:
        codec = _open_opus(rate_hz, bitrate_bps, _OPUS_FRAME_MS, _OGG_COMPLEXITY)
        assert codec.extradata is not None, "libopus makes an OpusHead"
        self._head = bytes(codec.extradata)
        self._skip_samples = _opus_skip_samples(codec)
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

    def encode(self, pcm: bytes, rate_hz: int) -> Packets:
        """Encode the next samples."""
        return self._paged(self._packets(self._converter.push_audio(pcm, rate_hz)))

    def finish_stream(self) -> Packets:
        """Return the last pages; nothing if there was no audio."""
        packets = self._packets(self._converter.finish_stream())
        if not self._taken_samples:
            return ()
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

    def _paged(self, packets: list[bytes], *, last: bool = False) -> Packets:
        if not packets and not last:
            return ()
        headers = b""
        if not self._packed_samples:
            headers = self._ogg.pages([self._head], 0) + self._ogg.pages([_OPUS_TAGS], 0)
        self._packed_samples += len(packets) * _OPUS_FRAME_MS * OPUS_RATE_HZ // 1000
        position = self._packed_samples
        if last:
            position = self._skip_samples + self._taken_samples * OPUS_RATE_HZ // self._rate_hz
        return (headers + self._ogg.pages(packets, position, last=last),)


class PacketEncoder:
    """Packets of one length, without a container: Opus, G.711 or plain samples.

    Silence fills the last packet; silence alone makes none at the end of the stream.

    Measured at 22.05 kHz input: Opus takes 1.5 to 2 ms of CPU per second of audio; the
    others 0.5 ms, most of it resampling.
    """

    heavy = False

    def __init__(self, audio_format: OutputFormat, usual_hz: int) -> None:
        """``audio_format`` has a ``packet_ms``. ``usual_hz``: see ``open_encoder``."""
        rate_hz, packet_ms = audio_format.rate_hz, audio_format.packet_ms
        assert packet_ms is not None, "it is a format of packets"
        self._rate_hz = rate_hz
        self._packet_samples = rate_hz * packet_ms // 1000
        self._skip_samples = 0
        """By how much the decoder's output lags behind the encoder's input."""
        match audio_format.container:
            case Container.OPUS:
                assert audio_format.bitrate_bps is not None, "an Opus format has a bit rate"
                codec = _open_opus(rate_hz, audio_format.bitrate_bps, packet_ms, _PACKET_COMPLEXITY)
                self._skip_samples = _opus_skip_samples(codec) * rate_hz // OPUS_RATE_HZ
                self._pack = partial(_opus_packet, codec)
            case Container.MU_LAW:
                self._pack = partial(g711.encoded, codes=g711.MU_LAW_CODES)
            case Container.A_LAW:
                self._pack = partial(g711.encoded, codes=g711.A_LAW_CODES)
            case _:
                self._pack = partial(bytes)
        self._converter = RateConverter(rate_hz, usual_hz)
        self.first_ms = self._converter.delay_ms + packet_ms
        self.held_back_ms = _conversion_delay_ms(rate_hz) + self._skip_ms + packet_ms
        self._rest = b""
        """Samples that do not fill a packet yet."""
        self._packed_samples = 0
        self._sound_samples = 0
        """Position after the last sample that is not zero."""

    @property
    def _skip_ms(self) -> int:
        return math.ceil(1000 * self._skip_samples / self._rate_hz)

    def encode(self, pcm: bytes, rate_hz: int) -> Packets:
        """Encode the next samples."""
        packets = self._packets(self._converter.push_audio(pcm, rate_hz))
        # The packet that contains the end of the sound must be filled.
        late_ms = self._converter.delay_ms + self._skip_ms
        rest = len(self._rest) // 2
        reached = rest + late_ms * self._rate_hz // 1000
        filled = -(-reached // self._packet_samples) * self._packet_samples
        self.held_back_ms = math.ceil(1000 * (filled - rest) / self._rate_hz)
        return packets

    def finish_stream(self) -> Packets:
        """Return the last packets."""
        packets = self._packets(self._converter.finish_stream())
        end = self._sound_samples + self._skip_samples if self._sound_samples else 0
        missing = -(-(end - self._packed_samples) // self._packet_samples)
        if missing > 0:
            whole_bytes = missing * self._packet_samples * 2
            packets += self._packets(bytes(whole_bytes - len(self._rest)))
        return packets

    def _packets(self, samples: bytes) -> Packets:
        samples = self._rest + samples
        size = self._packet_samples * 2
        whole = len(samples) // size
        sound = len(samples.rstrip(b"\0"))
        if sound:
            self._sound_samples = self._packed_samples + -(-sound // 2)
        self._rest = samples[whole * size :]
        self._packed_samples += whole * self._packet_samples
        return tuple(self._pack(samples[at * size : (at + 1) * size]) for at in range(whole))


def _open_opus(
    rate_hz: int, bitrate_bps: int, packet_ms: int, complexity: int
) -> av.AudioCodecContext:
    codec = av.CodecContext.create("libopus", "w")
    codec.sample_rate = rate_hz
    codec.layout = "mono"
    codec.format = "s16"
    codec.bit_rate = bitrate_bps
    codec.options = {"frame_duration": str(packet_ms), "compression_level": str(complexity)}
    codec.open()
    return codec


def _opus_skip_samples(codec: av.AudioCodecContext) -> int:
    """Return how many samples at 48 kHz a decoder must skip (RFC 7845, section 5.1)."""
    assert codec.extradata is not None, "libopus makes an OpusHead"
    return int.from_bytes(codec.extradata[10:12], "little")


def _opus_packet(codec: av.AudioCodecContext, samples: bytes) -> bytes:
    frame = av.AudioFrame("s16", "mono", len(samples) // 2)
    frame.sample_rate = codec.sample_rate
    frame.planes[0].update(samples)
    (packet,) = codec.encode(frame)
    return bytes(packet)


def _conversion_delay_ms(rate_hz: int) -> int:
    # The input rate is not known yet. The delay is largest at one of the two extremes.
    return max(
        resampling_delay_ms(LOWEST_RATE_HZ, rate_hz), resampling_delay_ms(HIGHEST_RATE_HZ, rate_hz)
    )
