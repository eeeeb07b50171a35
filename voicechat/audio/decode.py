"""Decodes a client's uncompressed audio to s16le mono 16 kHz for recognisers.

Decoders do no I/O. Frames may be split anywhere. For any input they raise at most
``RemoteProtocolError``, and buffer at most one header.
"""

from collections.abc import Callable
from typing import Protocol

from voicechat.audio.formats import InputContainer, InputFormat
from voicechat.audio.resample import RateConverter
from voicechat.audio.riff import SIGNATURE_BYTES, HeaderParser, is_chunk_head, may_be_clip
from voicechat.audio.samples import SampleEncoding, SampleLayout, to_mono_s16
from voicechat.audio.signatures import check_start
from voicechat.errors import Fault, LocalProtocolError, RemoteProtocolError

DECODED_RATE_HZ = 16000
CHUNK_HEAD_BYTES = 8
MAX_PADDING_BYTES = 64 * 1024
"""Up to this many bytes after a clip's samples are skipped without inspection, if the
clip's size includes them.
"""
MAX_CLIPS_PER_FRAME = 16
"""Prevents a frame of many headers from blocking the event loop."""
MAX_RATE_CHANGES = 16
"""Rate changes in one stream. Each opens a resampler, which takes < 1 ms at the usual
rates and 13 ms at the worst (191999 Hz).
"""


class Decoder(Protocol):
    """One stream of a client's audio."""

    def decode(self, frame: bytes) -> bytes:
        """Decode the next frame to s16le mono 16 kHz. May return nothing yet.

        Raises ``RemoteProtocolError`` for audio that cannot be decoded. Decoding may
        continue with the next frame.
        """

    def finish_turn(self) -> bytes:
        """Return the samples still buffered. Never raises."""

    @property
    def source_rate_hz(self) -> int:
        """Sample rate of the recording: the header's if there is one, else the declared
        rate.
        """

    @property
    def bytes_per_ms(self) -> float:
        """Bytes per millisecond if the rest of the stream is certainly bare samples, so
        that frames may be joined before they are decoded. Otherwise 0.
        """


def open_decoder(audio_format: InputFormat) -> Decoder:
    """Create the decoder for uncompressed audio of the declared format.

    Raises ``LocalProtocolError`` for compressed formats: use ``CompressedDecoder``.
    """
    match audio_format.container:
        case InputContainer.PCM:
            return PcmDecoder(audio_format.rate_hz)
        case InputContainer.MU_LAW:
            return PcmDecoder(audio_format.rate_hz, SampleEncoding.MU_LAW, "mulaw")
        case InputContainer.A_LAW:
            return PcmDecoder(audio_format.rate_hz, SampleEncoding.A_LAW, "alaw")
        case InputContainer.WAV:
            return WavDecoder(audio_format.rate_hz)
        case compressed:
            raise LocalProtocolError(f"{compressed.value} is not decoded in place")


class PcmDecoder:
    """Raw mono samples of one or two bytes. An odd byte is carried into the next frame.

    A stream that begins with a WAV header is decoded as WAV. One that begins like any
    other known container is refused, because it would decode to noise.
    """

    def __init__(
        self, rate_hz: int, encoding: SampleEncoding = SampleEncoding.S16, name: str = "pcm"
    ) -> None:
        """``name`` is the declared format, for errors."""
        self._name = name
        self._begun = False
        self._refused = False
        self._clips: WavDecoder | None = None
        self._layout = SampleLayout(encoding, 1)
        self.source_rate_hz = rate_hz
        """Sample rate of the recording; see ``Decoder.source_rate_hz``."""
        self._converter = RateConverter(DECODED_RATE_HZ)
        self.bytes_per_ms = 0.0
        """See ``Decoder.bytes_per_ms``."""
        self._untouched = encoding is SampleEncoding.S16 and rate_hz == DECODED_RATE_HZ
        """Whether samples need no conversion and no byte is being carried over."""

    def decode(self, frame: bytes) -> bytes:
        """Decode the next frame. After an error all further frames are dropped."""
        if self._untouched and self._begun and len(frame) % 2 == 0:
            return frame
        if not self._begun:
            self._begin(frame)
        if self._clips is not None:
            return self._decode_clips(self._clips, frame)
        if self._refused:
            return b""
        self._untouched = self._untouched and len(frame) % 2 == 0
        # The converter carries an odd byte of 16-bit samples into the next frame.
        return self._converter.push_audio(to_mono_s16(frame, self._layout), self.source_rate_hz)

    def finish_turn(self) -> bytes:
        """Return the samples still buffered."""
        return self._converter.finish_stream() if self._clips is None else self._clips.finish_turn()

    def _begin(self, frame: bytes) -> None:
        self._begun = bool(frame)
        if len(frame) >= SIGNATURE_BYTES and may_be_clip(frame):
            self._clips = WavDecoder(self.source_rate_hz)
            self._untouched = False
            return
        try:
            check_start(self._name, frame)
        except RemoteProtocolError:
            self._refused, self._untouched = True, False
            raise
        if self._begun:
            self.bytes_per_ms = self._layout.frame_bytes * self.source_rate_hz / 1000

    def _decode_clips(self, clips: "WavDecoder", frame: bytes) -> bytes:
        pcm = clips.decode(frame)
        self.source_rate_hz = clips.source_rate_hz
        return pcm


class WavDecoder:
    """Consecutive WAV clips, or raw samples, which stock clients also send as WAV.

    A clip begins with ``RIFF....WAVE``. The decoder looks for it in three places: at
    the start, where a clip's declared size ends, and at the start of every frame (for a
    clip shorter than its header declares). A stream that does not begin with a clip is
    s16le mono at the declared rate. Data after a clip that is not another clip is in
    that clip's encoding (the header declared less than was sent, or 0), except for
    chunks within the clip's RIFF size, which are skipped.

    After an unusable header everything up to the next clip is dropped, with one error
    for each bad clip.
    """

    bytes_per_ms = 0.0
    """See ``Decoder.bytes_per_ms``: every frame may begin with a clip."""

    def __init__(self, rate_hz: int) -> None:
        """``rate_hz`` applies until a clip's header declares its own."""
        self.source_rate_hz = rate_hz
        """Sample rate of the recording; see ``Decoder.source_rate_hz``."""
        self._layout = SampleLayout(SampleEncoding.S16, 1)
        self._converter = RateConverter(DECODED_RATE_HZ)
        self._decoded: list[bytes] = []
        # A plain function: a bound method would tie the decoder into a reference cycle.
        self._take: Callable[[WavDecoder, bytes], bytes] = WavDecoder._take_start
        self._start = b""
        self._header = HeaderParser()
        self._samples_left_bytes: int | None = None
        self._trailing_bytes = 0
        self._cut_sample = b""
        self._clips_begun = 0
        self._clips_seen = False
        """Whether any data was decoded. From then on, data that is not a clip is
        samples.
        """
        self._rate_changes = 0

    def decode(self, frame: bytes) -> bytes:
        """Decode the next frame. Samples decoded before an error are returned by the
        next call.
        """
        self._clips_begun = 0
        if len(frame) >= SIGNATURE_BYTES and may_be_clip(frame):
            self._expect_start(trailing_bytes=0)
        rest = frame
        try:
            while rest:  # each state consumes data or hands it to the next state
                rest = self._take(self, rest)
        except RemoteProtocolError:
            self._take = WavDecoder._drop
            raise
        return self._flush()

    def finish_turn(self) -> bytes:
        """Return the samples still buffered. A clip cut off in its header has none."""
        if self._take is WavDecoder._take_start and not self._trailing_bytes:
            self._take_samples(self._start)
        self._decoded.append(self._converter.finish_stream())
        return self._flush()

    def _flush(self) -> bytes:
        decoded, self._decoded = self._decoded, []
        return decoded[0] if len(decoded) == 1 else b"".join(decoded)

    def _expect_start(self, trailing_bytes: int) -> None:
        self._take = WavDecoder._take_start
        self._start = self._cut_sample = b""
        self._trailing_bytes = trailing_bytes
        self._samples_left_bytes = None

    # The states of the parser. Each consumes a part of the data and returns the rest.

    def _take_start(self, data: bytes) -> bytes:
        start = self._start + data
        if may_be_clip(start):
            if len(start) < SIGNATURE_BYTES:
                self._start = start
                return b""
            self._clips_begun += 1
            if self._clips_begun > MAX_CLIPS_PER_FRAME:
                raise RemoteProtocolError(
                    Fault.UNDECODABLE_AUDIO,
                    f"wav: more than {MAX_CLIPS_PER_FRAME} clips in one frame",
                )
            self._header = HeaderParser()
            self._take = WavDecoder._take_header
        elif len(start) < CHUNK_HEAD_BYTES and self._trailing_bytes > MAX_PADDING_BYTES:
            self._start = start
            return b""
        elif self._trailing_bytes and self._trailing_is_plausible(start):
            self._take = WavDecoder._take_trailer
        else:
            if not self._clips_seen:
                check_start("wav", start)
            self._trailing_bytes = 0
            self._take = WavDecoder._take_samples
        self._clips_seen = True
        self._start = b""
        return start

    def _trailing_is_plausible(self, start: bytes) -> bool:
        """Whether the data after a clip's samples are further chunks, as its sizes say.

        If not, the RIFF size was probably written before the number of samples was
        known.
        """
        if self._trailing_bytes <= MAX_PADDING_BYTES:
            return True
        return is_chunk_head(start[:CHUNK_HEAD_BYTES], self._trailing_bytes)

    def _take_header(self, data: bytes) -> bytes:
        parsed = self._header.push_bytes(data)
        if parsed is None:
            return b""
        header, rest = parsed
        self._rate_changes += header.rate_hz != self.source_rate_hz
        if self._rate_changes > MAX_RATE_CHANGES:
            raise RemoteProtocolError(
                Fault.UNDECODABLE_AUDIO,
                f"wav: the sample rate changed more than {MAX_RATE_CHANGES} times",
            )
        self.source_rate_hz, self._layout = header.rate_hz, header.layout
        self._samples_left_bytes, self._trailing_bytes = header.data_bytes, header.trailing_bytes
        self._take = WavDecoder._take_samples
        return rest

    def _take_samples(self, data: bytes) -> bytes:
        mine, rest = data, b""
        if self._samples_left_bytes is not None:
            mine, rest = data[: self._samples_left_bytes], data[self._samples_left_bytes :]
            self._samples_left_bytes -= len(mine)
        samples = self._cut_sample + mine if self._cut_sample else mine
        whole_bytes = len(samples) - len(samples) % self._layout.frame_bytes
        self._cut_sample = samples[whole_bytes:]
        if whole_bytes:
            mono = to_mono_s16(samples[:whole_bytes], self._layout)
            self._decoded.append(self._converter.push_audio(mono, self.source_rate_hz))
        if self._samples_left_bytes == 0:
            self._expect_start(self._trailing_bytes)
        return rest

    def _take_trailer(self, data: bytes) -> bytes:
        skipped, rest = data[: self._trailing_bytes], data[self._trailing_bytes :]
        if len(skipped) == self._trailing_bytes:
            self._expect_start(trailing_bytes=0)
        else:
            self._trailing_bytes -= len(skipped)
        return rest

    def _drop(self, data: bytes) -> bytes:
        return b""
