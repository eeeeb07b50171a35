"""What clients are given, as FFmpeg and Chromium decode it."""

import base64
import io
import shutil
from collections.abc import Iterator
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.formats.material import RATE_HZ, decoded, likeness, speech
from voicechat.audio.demux.ogg import OggDemuxer
from voicechat.audio.encode import open_encoder
from voicechat.audio.formats import (
    OPUS_RATES_HZ,
    OUTPUT_RATES_HZ,
    Container,
    InputContainer,
    parse_output_format,
)

SECONDS = 1.5
TONE_HZ = 440
PIECE_MS = 70
"""Of no codec's frame length, so that every join is somewhere else."""

NAMES = [
    *(f"{kind}_{rate}HZ_MONO_16BIT" for kind in ("WAV", "PCM") for rate in OUTPUT_RATES_HZ),
    *(f"MP3_{rate}HZ_MONO_64KBPS" for rate in OUTPUT_RATES_HZ),
    *(f"OGG_OPUS_{rate // 1000}KHZ_MONO_48KBPS" for rate in OPUS_RATES_HZ),
]


def tone(rate_hz: int) -> bytes:
    phase = 2 * np.pi * TONE_HZ * np.arange(int(rate_hz * SECONDS)) / rate_hz
    return (np.sin(phase) * 12000).astype("<i2").tobytes()


def pieces(name: str, pcm: bytes, rate_hz: int = 22050) -> Iterator[bytes]:
    """One reply, as it leaves the encoder."""
    encoder = open_encoder(parse_output_format(name))
    size = rate_hz * PIECE_MS // 1000 * 2
    for at in range(0, len(pcm), size):
        yield b"".join(encoder.encode(pcm[at : at + size], rate_hz))
    yield b"".join(encoder.finish_stream())


def as_ffmpeg_hears(name: str, stream: bytes) -> tuple[int, NDArray[np.float64]]:
    """The rate and the samples, full scale being 1."""
    wanted = parse_output_format(name)
    if wanted.container is Container.PCM:
        return wanted.rate_hz, np.frombuffer(stream, "<i2") / 32768
    with av.open(io.BytesIO(stream), "r") as container:
        frames = [
            part
            for frame in container.decode(audio=0)
            for part in av.AudioResampler("fltp", "mono").resample(frame)
        ]
        assert container.streams.audio[0].channels == 1
    (rate_hz,) = {frame.sample_rate for frame in frames}
    return rate_hz, np.concatenate([frame.to_ndarray()[0] for frame in frames]).astype(np.float64)


def frame_s(name: str) -> float:
    """The length of a codec frame, and for MP3, which cannot say it, of its delay."""
    wanted = parse_output_format(name)
    if wanted.container is Container.MP3:
        return ((1152 if wanted.rate_hz >= 32000 else 576) + 1105) / wanted.rate_hz
    return 0.02 if wanted.container is Container.OGG_OPUS else 0.001


def has_clicks(signal: NDArray[np.float64], rate_hz: int) -> bool:
    """Whether the signal bends more sharply somewhere than the tone itself does, away
    from both ends.
    """
    steady = signal[rate_hz // 5 : int(rate_hz * (SECONDS - 0.2))]
    sharpest = 12000 / 32768 * (2 * np.pi * TONE_HZ / rate_hz) ** 2
    return float(np.abs(np.diff(steady, n=2)).max()) > sharpest * 1.25 + 0.01


@pytest.mark.parametrize("name", NAMES)
def test_ffmpeg_finds_rate_channels_and_length_right_and_no_click(name: str) -> None:
    rate_hz, signal = as_ffmpeg_hears(name, b"".join(pieces(name, tone(22050))))
    wanted = parse_output_format(name)
    assert rate_hz == (48000 if wanted.container is Container.OGG_OPUS else wanted.rate_hz)
    assert len(signal) / rate_hz == pytest.approx(SECONDS, abs=frame_s(name) + 0.002)
    assert not has_clicks(signal, rate_hz)


def test_a_click_would_be_seen() -> None:
    signal = np.frombuffer(tone(16000), "<i2") / 32768
    joined = np.concatenate([signal[:8000], signal[8020:]])
    assert not has_clicks(signal, 16000)
    assert has_clicks(joined, 16000)


@pytest.mark.parametrize("rate_hz", OPUS_RATES_HZ)
def test_opus_says_how_long_it_is_to_the_sample(rate_hz: int) -> None:
    name = f"OGG_OPUS_{rate_hz // 1000}KHZ_MONO_32KBPS"
    stream = b"".join(pieces(name, tone(rate_hz), rate_hz))
    pages = stream.split(b"OggS")[1:]
    skip_samples = int.from_bytes(stream[stream.index(b"OpusHead") + 10 :][:2], "little")
    position = int.from_bytes(pages[-1][2:10], "little")
    assert position - skip_samples == int(SECONDS * 48000)
    assert [page[1] for page in (pages[0], pages[1], pages[-1])] == [2, 0, 4]
    assert [int.from_bytes(page[14:18], "little") for page in pages] == list(range(len(pages)))
    assert len({page[10:14] for page in pages}) == 1  # one logical stream


def test_the_first_opus_audio_leaves_with_the_first_frame() -> None:
    encoder = open_encoder(parse_output_format("OGG_OPUS_16KHZ_MONO_32KBPS"))
    (first,) = encoder.encode(speech()[16000 : 16000 + 32 * 50], RATE_HZ)  # 50 ms
    demuxer = OggDemuxer()
    packets = [item for item in demuxer.push_bytes(first) if isinstance(item, bytes)]
    assert len(packets) == 2


@pytest.mark.parametrize("rate_hz", OPUS_RATES_HZ)
def test_padding_by_what_is_held_back_brings_an_opus_sentence_out_whole(rate_hz: int) -> None:
    wanted = parse_output_format(f"OGG_OPUS_{rate_hz // 1000}KHZ_MONO_32KBPS")
    assert open_encoder(wanted).held_back_ms < 40
    for speech_ms in (100, 333, 701):
        encoder = open_encoder(wanted)
        out = encoder.encode(tone(24000)[: 48 * speech_ms], 24000)
        out += encoder.encode(bytes(48 * encoder.held_back_ms), 24000)
        demuxer = OggDemuxer()
        out_ms = 20 * sum(isinstance(item, bytes) for item in demuxer.push_bytes(b"".join(out)))
        assert out_ms - 7 >= speech_ms  # 7: what the encoder puts in front


def test_what_is_spoken_is_understood_by_our_own_decoder() -> None:
    stream = b"".join(pieces("OGG_OPUS_24KHZ_MONO_32KBPS", speech(), RATE_HZ))
    assert likeness(decoded(InputContainer.OPUS, stream), speech()) > 0.9


def test_opus_that_says_nothing_is_no_stream() -> None:
    assert b"".join(pieces("OGG_OPUS_16KHZ_MONO_32KBPS", b"")) == b""


# --- Chromium -------------------------------------------------------------------------

_DECODE = """async ([data, rate]) => {
    const bytes = Uint8Array.from(atob(data), char => char.charCodeAt(0));
    const context = new OfflineAudioContext(1, 1, rate);
    const audio = await context.decodeAudioData(bytes.buffer);
    const samples = audio.getChannelData(0);
    return {rate: audio.sampleRate, channels: audio.numberOfChannels, samples: Array.from(samples)};
}"""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A page that can decode."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("needs Chromium")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser.new_page()
        browser.close()


@pytest.mark.real_time
@pytest.mark.parametrize(
    "name",
    ["WAV_16000HZ_MONO_16BIT", "WAV_48000HZ_MONO_16BIT"]
    + [name for name in NAMES if name[:3] in ("MP3", "OGG")],
)
def test_chromium_finds_rate_channels_and_length_right_and_no_click(
    name: str, chromium: Any
) -> None:
    stream = b"".join(pieces(name, tone(22050)))
    # It converts to the context's rate: the stream's own, so that what it did is what
    # is measured.
    rate_hz = parse_output_format(name).rate_hz
    heard = chromium.evaluate(_DECODE, [base64.b64encode(stream).decode(), rate_hz])
    assert (heard["rate"], heard["channels"]) == (rate_hz, 1)
    signal = np.array(heard["samples"])
    assert len(signal) / rate_hz == pytest.approx(SECONDS, abs=frame_s(name) + 0.002)
    assert not has_clicks(signal, rate_hz)
