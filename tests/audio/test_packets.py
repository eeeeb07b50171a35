import av
import numpy as np
import pytest
from numpy.typing import NDArray

from voicechat.audio import g711
from voicechat.audio.encode import Packets, open_encoder
from voicechat.audio.formats import (
    Container,
    OutputFormat,
    packet_format,
    parse_output_format,
    parse_voice_format,
)
from voicechat.errors import RemoteProtocolError

SPEECH_HZ = 22_050
FORMATS = [
    *(packet_format(Container.OPUS, 16_000, packet_ms, 24_000) for packet_ms in (20, 40, 60, 120)),
    *(packet_format(Container.OPUS, rate_hz, 20, 32_000) for rate_hz in (8_000, 24_000, 48_000)),
    packet_format(Container.MU_LAW, 8_000, 20),
    packet_format(Container.A_LAW, 8_000, 20),
    packet_format(Container.PCM, 8_000, 20),
    packet_format(Container.PCM, 16_000, 60),
]


def tone(seconds: float, rate_hz: int = SPEECH_HZ) -> bytes:
    phase = 2 * np.pi * 440 * np.arange(int(rate_hz * seconds)) / rate_hz
    return (np.sin(phase) * 12_000).astype("<i2").tobytes()


def encoded(wanted: OutputFormat, pcm: bytes, piece_ms: int = 100) -> list[bytes]:
    encoder = open_encoder(wanted)
    size = SPEECH_HZ * piece_ms // 1000 * 2
    out = [encoder.encode(pcm[at : at + size], SPEECH_HZ) for at in range(0, len(pcm), size)]
    return [packet for packets in (*out, encoder.finish_stream()) for packet in packets]


def decoded(wanted: OutputFormat, packets: Packets | list[bytes]) -> NDArray[np.int16]:
    match wanted.container:
        case Container.MU_LAW:
            return g711.MU_LAW[np.frombuffer(b"".join(packets), np.uint8)]
        case Container.A_LAW:
            return g711.A_LAW[np.frombuffer(b"".join(packets), np.uint8)]
        case Container.PCM:
            return np.frombuffer(b"".join(packets), "<i2")
        case _:
            return opus_decoded(packets, wanted.rate_hz)


def opus_decoded(packets: Packets | list[bytes], rate_hz: int) -> NDArray[np.int16]:
    codec = av.CodecContext.create("libopus", "r")
    codec.sample_rate = 48_000
    assert isinstance(codec, av.AudioCodecContext)
    codec.layout = "mono"
    frames = [frame for packet in packets for frame in codec.decode(av.Packet(packet))]
    down = av.AudioResampler("s16", "mono", rate_hz)
    out = [made for frame in [*frames, None] for made in down.resample(frame)]
    return np.concatenate([frame.to_ndarray()[0] for frame in out])


def named(wanted: OutputFormat) -> str:
    return wanted.name


@pytest.mark.parametrize("wanted", FORMATS, ids=named)
def test_every_packet_is_as_long_as_it_says(wanted: OutputFormat) -> None:
    assert wanted.packet_ms is not None
    packets = encoded(wanted, tone(1.03))
    assert len(packets) == -(-1_030 // wanted.packet_ms)
    lengths = {len(decoded(wanted, [packet])) for packet in packets}
    if wanted.container is not Container.OPUS:
        assert lengths == {wanted.rate_hz * wanted.packet_ms // 1000}
        return
    for packet in packets:
        codec = av.CodecContext.create("libopus", "r")
        samples = sum(frame.samples for frame in codec.decode(av.Packet(packet)))
        assert samples == 48 * wanted.packet_ms


@pytest.mark.parametrize("wanted", FORMATS, ids=named)
@pytest.mark.parametrize("seconds", [0.1, 0.3, 0.501])
def test_the_sound_comes_out_whole_with_silence_behind_it(
    wanted: OutputFormat, seconds: float
) -> None:
    samples = decoded(wanted, encoded(wanted, tone(seconds))).astype(float)
    energy = np.sum(samples**2) / wanted.rate_hz
    assert energy == pytest.approx(seconds * 12_000**2 / 2, rel=0.15)
    assert wanted.packet_ms is not None
    assert (
        len(samples)
        <= (seconds + 0.01) * wanted.rate_hz + wanted.rate_hz * wanted.packet_ms // 1000
    )


@pytest.mark.parametrize("wanted", FORMATS, ids=named)
def test_the_packets_do_not_depend_on_how_the_samples_come(wanted: OutputFormat) -> None:
    assert encoded(wanted, tone(0.4), 7) == encoded(wanted, tone(0.4), 200)


@pytest.mark.parametrize("wanted", FORMATS, ids=named)
def test_padding_by_what_is_held_back_brings_a_sentence_out_whole(wanted: OutputFormat) -> None:
    assert wanted.packet_ms is not None
    for sentence_ms in (90, 100, 213):
        encoder = open_encoder(wanted)
        packets = list(encoder.encode(tone(sentence_ms / 1000), SPEECH_HZ))
        pad_ms = encoder.held_back_ms
        assert pad_ms <= wanted.packet_ms + 12
        packets += encoder.encode(bytes(-(-SPEECH_HZ * pad_ms // 1000) * 2), SPEECH_HZ)
        assert encoder.finish_stream() == (), "nothing of the sound is left"
        assert len(packets) * wanted.packet_ms >= sentence_ms


@pytest.mark.parametrize("wanted", FORMATS, ids=named)
def test_the_first_packet_takes_as_much_as_it_says(wanted: OutputFormat) -> None:
    needed_ms = open_encoder(wanted, SPEECH_HZ).first_ms
    enough = bytes(-(-SPEECH_HZ * needed_ms // 1000) * 2)
    assert len(open_encoder(wanted, SPEECH_HZ).encode(enough, SPEECH_HZ)) == 1


@pytest.mark.parametrize("wanted", FORMATS, ids=named)
def test_silence_makes_no_packet_at_the_end(wanted: OutputFormat) -> None:
    assert encoded(wanted, b"") == []


@pytest.mark.parametrize("wanted", FORMATS, ids=named)
def test_a_format_of_packets_is_known_by_its_name(wanted: OutputFormat) -> None:
    assert parse_voice_format(wanted.name) == wanted


@pytest.mark.parametrize(
    ("container", "rate_hz", "packet_ms", "bitrate_bps"),
    [
        (Container.OPUS, 16_000, 30, 24_000),
        (Container.OPUS, 22_050, 20, 24_000),
        (Container.OPUS, 16_000, 20, None),
        (Container.OPUS, 16_000, 20, 5_000),
        (Container.MU_LAW, 8_000, 10, None),
        (Container.MU_LAW, 8_000, 20, 64_000),
        (Container.PCM, 4_000, 20, None),
        (Container.PCM, 11_025, 20, None),
        (Container.MP3, 16_000, 20, 64_000),
    ],
)
def test_packets_that_cannot_be_are_a_value_error(
    container: Container, rate_hz: int, packet_ms: int, bitrate_bps: int | None
) -> None:
    with pytest.raises(ValueError, match=f"{container.value} of {rate_hz} Hz"):
        packet_format(container, rate_hz, packet_ms, bitrate_bps)


def test_clients_cannot_ask_for_packets_by_name() -> None:
    for wanted in FORMATS:
        with pytest.raises(RemoteProtocolError, match="is not known"):
            parse_output_format(wanted.name)
