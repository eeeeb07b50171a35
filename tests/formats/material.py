"""Speech in every format: synthesised, and encoded here with PyAV, but for what PyAV
cannot encode (``assets``).
"""

import io
from functools import cache
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from tests.voice.sounds import fresh_library
from voicechat.audio.compressed import CompressedDecoder
from voicechat.audio.encode import open_encoder
from voicechat.audio.formats import InputContainer, parse_output_format
from voicechat.audio.resample import Resampler
from voicechat.providers.espeak_library import Prosody

ASSETS = Path(__file__).parent / "assets"
TEXT = "Please open the door, and turn on the light in the kitchen."
RATE_HZ = 16000


@cache
def speech(voice: str = "en-us") -> bytes:
    """The text in s16le mono 16 kHz, with some silence at either end."""

    library, chunks = fresh_library(), list[bytes]()

    def take(pcm: bytes) -> bool:
        chunks.append(pcm)
        return True

    library.speak(TEXT, voice, Prosody(175), take)
    resampler = Resampler(library.rate_hz, RATE_HZ)
    return (
        bytes(RATE_HZ // 2)
        + resampler.push_audio(b"".join(chunks))
        + resampler.finish_stream()
        + bytes(RATE_HZ // 2)
    )


def through_av(
    pcm: bytes,
    codec: str,
    container: str,
    rate_hz: int,
    channels: int = 1,
    bit_rate: int = 0,
    **options: str,
) -> bytes:
    """Encode 16 kHz mono speech with a codec of FFmpeg's; every channel holds the same.

    ``options`` are the muxer's.
    """
    file = io.BytesIO()
    layout = "stereo" if channels == 2 else "mono"
    frame = av.AudioFrame("s16", layout, len(pcm) // 2)
    frame.sample_rate = RATE_HZ
    frame.planes[0].update(np.repeat(np.frombuffer(pcm, "<i2"), channels).tobytes())
    with av.open(file, "w", format=container, options=options) as output:
        stream = output.add_stream(codec, rate=rate_hz, layout=layout)
        assert isinstance(stream, av.AudioStream)
        if bit_rate:
            stream.bit_rate = bit_rate
        for part in av.AudioResampler("s16", layout, rate_hz).resample(frame):
            part.pts = None
            output.mux(stream.encode(part))
        # FLAC's last packet is empty, and brings a header that only its own container
        # can take.
        output.mux([packet for packet in stream.encode(None) if packet.size or container == "flac"])
    return file.getvalue()


@cache
def encoded(name: str) -> bytes:
    """The speech in one of ``NAMES``."""
    if name in ("speex", "amr-wb"):
        return (ASSETS / {"speex": "speech.spx", "amr-wb": "speech.awb"}[name]).read_bytes()
    if name == "opus-ours":
        encoder = open_encoder(parse_output_format("OGG_OPUS_16KHZ_MONO_32KBPS"))
        return b"".join(encoder.encode(speech(), RATE_HZ) + encoder.finish_stream())
    codec, container, rate_hz, channels, bit_rate = _ENCODINGS[name]
    options = _MUXER_OPTIONS.get(container, {})
    return through_av(speech(), codec, container, rate_hz, channels, bit_rate, **options)


@cache
def encoded_from(name: str, rate_hz: int) -> bytes:
    """The speech as ``encoded`` gives it, but from a sound of ``rate_hz``."""
    codec, container, _, channels, bit_rate = _ENCODINGS[name]
    return through_av(speech(), codec, container, rate_hz, channels, bit_rate)


_ENCODINGS: dict[str, tuple[str, str, int, int, int]] = {
    "mp3": ("libmp3lame", "mp3", 16000, 1, 32_000),
    "mp3-44k-stereo": ("libmp3lame", "mp3", 44100, 2, 128_000),
    "opus": ("libopus", "ogg", 48000, 1, 24_000),
    "opus-stereo": ("libopus", "ogg", 48000, 2, 48_000),
    "aac": ("aac", "adts", 16000, 1, 48_000),
    "aac-44k-stereo": ("aac", "adts", 44100, 2, 128_000),
    "amr-nb": ("libopencore_amrnb", "amr", 8000, 1, 12_200),
    "flac": ("flac", "flac", 16000, 1, 0),
    "flac-48k-stereo": ("flac", "flac", 48000, 2, 0),
    "webm": ("libopus", "webm", 48000, 1, 24_000),
    "g722": ("g722", "g722", 16000, 1, 64_000),
    "mp4": ("aac", "mp4", 44100, 1, 64_000),
    "mp4-opus": ("libopus", "mp4", 48000, 1, 24_000),
    "mp4-flac": ("flac", "mp4", 16000, 1, 0),
}
_MUXER_OPTIONS = {
    "mp4": {"movflags": "empty_moov+default_base_moof", "frag_duration": "200000"},
}
NAMES = (*_ENCODINGS, "opus-ours", "speex", "amr-wb")


def container_of(name: str) -> InputContainer:
    """What a client would declare."""
    return InputContainer(name.partition("-")[0])


def decoded(container: InputContainer, stream: bytes, cuts: list[int] | None = None) -> bytes:
    """Decode a whole stream; ``cuts`` are the sizes of the frames it comes in, the rest
    comes at once.
    """
    decoder = CompressedDecoder(container)
    out: list[bytes] = []
    position = 0
    for size in [*(cuts or []), len(stream)]:
        out.extend(decoder.decode(stream[position : position + size]))
        position += size
        if position >= len(stream):
            break
    return b"".join([*out, *decoder.finish_turn()])


def samples(pcm: bytes) -> NDArray[np.float64]:
    """The samples of s16le mono."""
    return np.frombuffer(pcm, "<i2").astype(np.float64)


def likeness(pcm: bytes, other: bytes) -> float:
    """How alike two recordings sound, 1 at best: the correlation of their loudness in
    20 bands up to 3.5 kHz over time.

    Delays of up to 100 ms do not count.
    """
    bands, others = _bands(pcm), _bands(other)
    length = min(len(bands), len(others)) - 12
    return max(
        float(
            np.corrcoef(bands[shift : shift + length].ravel(), others[5 : 5 + length].ravel())[0, 1]
        )
        for shift in range(12)
    )


def _bands(pcm: bytes) -> NDArray[np.float64]:
    signal = samples(pcm)
    hop, size = RATE_HZ // 50, 512
    frames = np.stack(
        [signal[at : at + size] * np.hanning(size) for at in range(0, len(signal) - size, hop)]
    )
    power = np.abs(np.fft.rfft(frames))[:, 4:104] ** 2
    bands: NDArray[np.float64] = np.log10(power.reshape(len(frames), 20, -1).mean(axis=2) + 1e4)
    return bands
