"""Single Opus packets of many sessions, decoded in one process."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator

import numpy as np
import pytest

from voicechat.audio.compressed import MAX_BAD_PACKETS
from voicechat.audio.encode import open_encoder
from voicechat.audio.formats import Container, packet_format
from voicechat.audio.opus_packets import is_silent, packet_us
from voicechat.errors import RemoteProtocolError, Status
from voicechat.processes.forked import can_fork
from voicechat.runtime import packet_decoding
from voicechat.runtime.audio_input.input_decoder import WINDOW_BYTES, Destination, InputDecoder
from voicechat.runtime.audio_input.packet_decoder import PacketDecoder
from voicechat.runtime.decoding import DecodingProcesses, open_decoding
from voicechat.session.effects import Route

pytestmark = [
    pytest.mark.real_time,
    pytest.mark.skipif(not can_fork(), reason="this system cannot fork"),
]

ONE, TWO = Destination(Route.RECOGNISE, 1), Destination(Route.RECOGNISE, 2)
DTX = b"\x58"
"""60 ms of which an encoder says only that they are silent."""


def tone(hz: int, packets: int = 10) -> tuple[bytes, ...]:
    times = np.arange(16_000 * 60 * packets // 1000) / 16_000
    pcm = (8_000 * np.sin(2 * np.pi * hz * times)).astype("<i2").tobytes()
    return open_encoder(packet_format(Container.OPUS, 16_000, 60, 24_000)).encode(pcm, 16_000)


def loudest_hz(pcm: bytes) -> float:
    samples = np.frombuffer(pcm, "<i2").astype(float)
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(np.argmax(spectrum)) * 16_000 / len(samples)


class Sink:
    """What a session is given."""

    def __init__(self) -> None:
        self.pcm: dict[Destination, bytes] = {}
        self.told: list[object] = []
        self.empty = asyncio.Event()

    def decoded(self, pcm: bytes, destination: Destination) -> None:
        self.pcm[destination] = self.pcm.get(destination, b"") + pcm

    def ended(self, destination: Destination) -> None:
        self.told.append(destination)

    def undecodable(self, error: RemoteProtocolError, destination: Destination) -> None:
        self.told.append(error.status)

    def drained(self) -> None:
        self.empty.set()

    def settle_room(self) -> None:
        self.told.append("room")

    async def until_empty(self) -> None:
        async with asyncio.timeout(120):
            await self.empty.wait()
        self.empty.clear()


class Own:
    """A decoder of a session's own, which notes what it is given."""

    idle = has_room = True
    source_rate_hz = None
    bytes_per_ms = 0.0

    def __init__(self) -> None:
        self.fed: list[object] = []
        self.closed = False

    def feed(self, payload: bytes, destination: Destination) -> None:
        self.fed.append((payload, destination))

    def finish(self, destination: Destination, *, ends: bool = True) -> None:
        self.fed.append((ends, destination))

    def close(self) -> None:
        self.closed = True


@pytest.fixture
async def processes() -> AsyncIterator[DecodingProcesses]:
    running = open_decoding()
    yield running
    await running.aclose()


def no_own() -> InputDecoder:
    raise AssertionError("the shared process is enough")


def decoder_in(processes: DecodingProcesses, own: Own | None = None) -> tuple[PacketDecoder, Sink]:
    sink = Sink()
    instead = no_own if own is None else lambda: own
    return PacketDecoder(processes.packets, sink, instead=instead), sink


async def test_each_session_gets_its_own_samples_in_order(processes: DecodingProcesses) -> None:
    pairs = [decoder_in(processes) for _ in range(4)]
    for packets in zip(*(tone(400 * (number + 1)) for number in range(4)), strict=True):
        for (decoder, _), packet in zip(pairs, packets, strict=True):
            decoder.feed(packet, ONE)
    for decoder, _ in pairs:
        decoder.finish(ONE)
    await asyncio.gather(*(sink.until_empty() for _, sink in pairs))
    for number, (decoder, sink) in enumerate(pairs):
        assert sink.told == [ONE]
        assert len(sink.pcm[ONE]) == pytest.approx(600 * 32, abs=640)
        assert loudest_hz(sink.pcm[ONE][6_400:]) == pytest.approx(400 * (number + 1), abs=5)
        assert decoder.idle
        decoder.close()


async def test_silence_is_not_decoded_but_waits_for_its_turn(
    processes: DecodingProcesses,
) -> None:
    decoder, sink = decoder_in(processes)
    decoder.feed(DTX, ONE)
    assert sink.pcm == {ONE: bytes(1_920)}
    sink.empty.clear()
    decoder.feed(tone(400)[0], ONE)
    decoder.feed(DTX, ONE)
    assert len(sink.pcm[ONE]) == 1_920
    await sink.until_empty()
    pcm = sink.pcm[ONE]
    assert len(pcm) == pytest.approx(3 * 1_920, abs=120)
    assert any(pcm[1_920:3_600])
    assert not any(pcm[-1_920:])
    decoder.close()


async def test_one_session_with_broken_packets_harms_no_other(
    processes: DecodingProcesses,
) -> None:
    (bad, told), (good, heard) = decoder_in(processes), decoder_in(processes)
    for _ in range(MAX_BAD_PACKETS + 1):
        bad.feed(b"\xff\xff\xff\xff", ONE)
    for packet in tone(400):
        good.feed(packet, ONE)
    bad.feed(tone(400)[0], TWO)
    await asyncio.gather(told.until_empty(), heard.until_empty())
    assert told.told == [Status.UNDECODABLE_AUDIO]
    assert told.pcm[TWO]
    assert len(heard.pcm[ONE]) > 500 * 32
    bad.close()
    good.close()


@pytest.mark.long
async def test_a_session_whose_process_dies_gets_one_of_its_own(
    processes: DecodingProcesses, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packet_decoding, "GATHERING_OF_STREAM_S", 0.2)
    monkeypatch.setattr(packet_decoding, "MOST_GATHERING_S", 0.2)
    own = Own()
    (hit, told), (other, heard) = decoder_in(processes, own), decoder_in(processes)
    other.feed(tone(400)[0], ONE)
    await heard.until_empty()
    for packet in tone(400)[:2]:
        hit.feed(packet, ONE)
    hit.feed(DTX, TWO)
    hit.finish(TWO)
    for child in children_of(await fork_server(processes)):
        os.kill(child, signal.SIGKILL)
    async with asyncio.timeout(120):
        while Status.UNDECODABLE_AUDIO not in told.told:  # noqa: ASYNC110 - it has no event
            await asyncio.sleep(0.01)
    assert own.fed == [(DTX, TWO), (True, TWO)]
    hit.feed(DTX, TWO)
    assert own.fed[-1] == (DTX, TWO)
    other.feed(tone(400)[1], ONE)
    await heard.until_empty()
    assert len(heard.pcm[ONE]) > 100 * 32
    hit.close()
    assert own.closed
    other.close()


async def fork_server(processes: DecodingProcesses) -> int:
    process = processes._process
    assert process is not None
    return process.pid


def children_of(pid: int) -> list[int]:
    with open(f"/proc/{pid}/task/{pid}/children") as children:
        return [int(child) for child in children.read().split()]


@pytest.mark.long
async def test_another_process_takes_over_in_time(
    processes: DecodingProcesses, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packet_decoding, "PACKETS_OF_PROCESS", 5)
    decoder, sink = decoder_in(processes)
    packets = tone(400)
    await processes.start()
    for start in (0, 5):
        for packet in packets[start : start + 5]:
            decoder.feed(packet, ONE)
        await sink.until_empty()
    assert len(sink.pcm[ONE]) == pytest.approx(600 * 32, abs=640)
    decoder.close()


async def test_too_many_sessions_have_processes_of_their_own(
    processes: DecodingProcesses, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packet_decoding, "MOST_STREAMS", 1)
    first, _ = decoder_in(processes)
    own = Own()
    second, _ = decoder_in(processes, own)
    second.feed(DTX, ONE)
    assert own.fed == [(DTX, ONE)]
    first.close()
    third, _ = decoder_in(processes)
    third.close()


async def test_audio_that_runs_ahead_of_time_is_refused(processes: DecodingProcesses) -> None:
    decoder, sink = decoder_in(processes)
    for _ in range(1_000):
        decoder.feed(b"\xff\x06" + b"\xff\xfe" * 6, ONE)
    assert Status.TOO_LARGE in sink.told
    decoder.close()


async def test_too_much_that_waits_is_told(processes: DecodingProcesses) -> None:
    decoder, sink = decoder_in(processes)
    packet = tone(400)[0]
    while decoder.has_room:
        decoder.feed(packet, ONE)
    assert sink.told == ["room"]
    assert WINDOW_BYTES // (len(packet) + 64) > 100
    decoder.close()


@pytest.mark.parametrize(
    ("packet", "length_us"),
    [
        (b"", 0),
        (b"\x58", 60_000),
        (b"\x58\x00", 60_000),
        (b"\xf8\xff\xfe", 20_000),
        (b"\xfb\x06", 120_000),
        (b"\xfb", 0),
        (b"\xfb\x07", 0),
        (b"\x59", 120_000),
    ],
)
def test_a_packet_says_how_long_it_is(packet: bytes, length_us: int) -> None:
    assert packet_us(packet) == length_us


def test_speech_is_not_taken_for_silence() -> None:
    assert not any(map(is_silent, tone(400)))
    assert all(map(is_silent, (b"\x58", b"\x58\x00", b"\xf8\xff\xfe", b"\xfb\x02\xff\xfe\xff\xfe")))
