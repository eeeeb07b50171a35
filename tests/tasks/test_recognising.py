"""A recording through a recogniser: channels, time, limits, and recognisers that
fail.
"""

import asyncio
import wave
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from voicechat.errors import FailureKind, RemoteProtocolError, Status
from voicechat.processes.forked import ForkServer
from voicechat.providers.interfaces import RecognitionOptions
from voicechat.runtime.decoding import open_decoding
from voicechat.runtime.fallback.link import ChainLink
from voicechat.runtime.fallback.recognition import RecognitionChain
from voicechat.server.rest.failures import ServiceFailedError
from voicechat.server.rest.recognising import (
    STALL_S,
    RecordingResult,
    RecordingUtterance,
    recognise,
)
from voicechat.server.rest.recordings import opening_with
from voicechat.server.rest.transcript_forms import lines, plain, srt, vtt
from voicechat.session.types import Transcript
from voicechat.testing.scripted import Failure, ScriptedRecognizer
from voicechat.testing.virtual_time import VirtualTimeLoop


@dataclass
class Spoken:
    """A recording of so many seconds on each channel; each sample is the channel's
    number.
    """

    seconds: tuple[float, ...] = (1.0,)
    broken_after: int | None = None
    opened: list[int] = field(default_factory=list)
    source_rate_hz: int = 16_000

    @property
    def speakers(self) -> tuple[int, ...]:
        return tuple(range(len(self.seconds)))

    @property
    def length_ms(self) -> int:
        return int(max(self.seconds) * 1000)

    async def pcm(self, speaker: int | None) -> AsyncIterator[bytes]:
        channel = speaker or 0
        self.opened.append(channel)
        for number in range(int(self.seconds[channel] * 10)):
            if self.broken_after == number:
                raise RemoteProtocolError(Status.UNDECODABLE_AUDIO, "it ends here")
            yield np.full(1600, channel, "<i2").tobytes()


def nothing(_: float) -> None: ...


def said(text: str, begin_ms: int, end_ms: int, channel: int = 0) -> RecordingUtterance:
    return RecordingUtterance(Transcript(text, begin_ms, end_ms), channel)


class TimedRecognizer:
    """Says at which times the channel's number was heard, one sentence per second."""

    async def recognize(
        self, audio: AsyncIterator[bytes], options: RecognitionOptions
    ) -> AsyncIterator[Transcript]:
        heard_bytes, channel = 0, 0
        async for piece in audio:
            heard_bytes += len(piece)
            channel = int(np.frombuffer(piece, "<i2")[0])
        for second in range(heard_bytes // 32_000):
            begin_ms = second * 1000 + 100 * channel
            yield Transcript(f"c{channel}", begin_ms)
            yield Transcript(f"c{channel}s{second}", begin_ms, begin_ms + 500)


async def test_each_channel_is_a_speaker_and_time_orders_them() -> None:
    recording = Spoken((2.0, 3.0))
    told: list[float] = []
    recognised = await recognise(recording, TimedRecognizer(), told.append)
    assert plain(recognised) == "c0s0 c1s0 c0s1 c1s1 c1s2"
    assert [spoken.channel for spoken in recognised.utterances] == [0, 1, 0, 1, 1]
    assert recognised.length_ms == 3000
    assert told == sorted(told)
    assert told[-1] == 1.0


async def test_silence_is_no_sentence() -> None:
    recognised = await recognise(Spoken(), ScriptedRecognizer(texts=("",)), nothing)
    assert recognised == RecordingResult((), 1000)


async def test_what_cannot_be_decoded_is_the_recordings_fault() -> None:
    with pytest.raises(RemoteProtocolError, match="it ends here"):
        await recognise(Spoken(broken_after=5), ScriptedRecognizer(), nothing)


async def test_a_busy_recogniser_is_asked_again() -> None:
    recognizer = ScriptedRecognizer(failure=Failure(kind=FailureKind.RATE_LIMIT, calls=3))
    recording = Spoken()
    recognised = await recognise(recording, recognizer, nothing)
    assert plain(recognised) == "hello"
    assert recognised.length_ms == 1000


@pytest.mark.parametrize(
    ("kind", "calls", "status"),
    [(FailureKind.RATE_LIMIT, 4, Status.QUOTA), (FailureKind.BROKEN, 1, Status.ASR_FAILED)],
)
async def test_a_recogniser_that_does_not_recover_is_said(
    kind: FailureKind, calls: int, status: Status
) -> None:
    recognizer = ScriptedRecognizer(failure=Failure(kind=kind, calls=calls))
    with pytest.raises(ServiceFailedError) as failed:
        await recognise(Spoken(), recognizer, nothing)
    assert failed.value.status is status


async def test_what_breaks_in_the_middle_is_recognised_by_who_stands_in() -> None:
    broken = ScriptedRecognizer(texts=("one two",), failure=Failure(after=1, calls=99))
    spare = ScriptedRecognizer(texts=("three",))
    chain = RecognitionChain(
        [ChainLink("asr.default", broken), ChainLink("asr.spare", spare)], last_result_s=9
    )
    assert plain(await recognise(Spoken((2.0,)), chain, nothing)) == "three"
    assert spare.heard_ms == [2_000], "the whole recording"
    assert len(broken.heard_ms) == 1


async def test_a_recogniser_that_hangs_is_given_up() -> None:
    recognizer = ScriptedRecognizer(failure=Failure(kind=None, calls=9))
    with pytest.raises(ServiceFailedError, match="timeout"):
        await recognise(Spoken(), recognizer, nothing)
    assert recognizer.open == 0


async def test_long_silence_is_no_hanging() -> None:
    class Slow(ScriptedRecognizer):
        async def recognize(
            self, audio: AsyncIterator[bytes], options: RecognitionOptions
        ) -> AsyncIterator[Transcript]:
            async for _ in audio:
                await _virtual_sleep(STALL_S / 2)
            yield Transcript("done", 0, 1)

    recognised = await recognise(Spoken(), Slow(), nothing)
    assert plain(recognised) == "done"


async def _virtual_sleep(delay_s: float) -> None:
    assert isinstance(asyncio.get_running_loop(), VirtualTimeLoop)
    await asyncio.sleep(delay_s)


RECOGNISED = RecordingResult(
    (
        said("哎,张总。", 5840, 6690),
        said("a\n<b> & c", 60_000, 61_001, 1),
        said("late", 3_661_234, 3_661_235),
    ),
    1,
)


def test_lines_are_as_the_contract_has_them() -> None:
    assert lines(RECOGNISED) == (
        "[0:5.840,0:6.690,0] 哎,张总。\n[1:0.000,1:1.001,1] a <b> & c\n[61:1.234,61:1.235,0] late\n"
    )


def test_subtitles() -> None:
    assert srt(RECOGNISED).splitlines()[4:8] == [
        "2",
        "00:01:00,000 --> 00:01:01,001",
        "a <b> & c",
        "",
    ]
    assert vtt(RECOGNISED).splitlines()[:4] == [
        "WEBVTT",
        "",
        "00:00:05.840 --> 00:00:06.690",
        "哎,张总。",
    ]
    assert "a &lt;b> &amp; c" in vtt(RECOGNISED)


def write_wav(path: Path, rate_hz: int, *channels: int, seconds: float = 1.0) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(len(channels))
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        file.writeframes(np.tile(np.array(channels, "<i2"), int(rate_hz * seconds)).tobytes())
    return path


@pytest.fixture
async def decoding() -> AsyncIterator[ForkServer]:
    server = open_decoding()
    yield server
    await server.aclose()


@pytest.mark.real_time
async def test_channels_are_kept_apart(decoding: ForkServer, tmp_path: Path) -> None:
    path = write_wav(tmp_path / "a", 8000, 1000, -2000, seconds=3.0)
    recording = await opening_with(decoding, 3001)(path)
    assert (recording.speakers, recording.length_ms) == ((0, 1), 3000)
    for channel, level in enumerate((1000, -2000)):
        pcm = b"".join([piece async for piece in recording.pcm(channel)])
        assert len(pcm) == 96_000
        assert abs(int(np.median(np.frombuffer(pcm, "<i2"))) - level) < 10


@pytest.mark.real_time
async def test_a_recording_that_is_too_long_or_none_is_not_opened(
    decoding: ForkServer, tmp_path: Path
) -> None:
    path = write_wav(tmp_path / "a", 8000, 1, seconds=61.0)
    with pytest.raises(RemoteProtocolError, match="longer than 1 minutes") as refused:
        await opening_with(decoding, 60_000)(path)
    assert refused.value.status is Status.TOO_LARGE
    path.write_bytes(b"RIFF and nothing else of a recording")
    with pytest.raises(RemoteProtocolError) as refused:
        await opening_with(decoding, 60_000)(path)
    assert refused.value.status is Status.UNDECODABLE_AUDIO
