"""Compressed audio on its way through a session: decoded in a process, heard by a
recogniser.
"""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.formats.material import NAMES, RATE_HZ, container_of, decoded, encoded, likeness, speech
from voicechat.audio.formats import InputContainer
from voicechat.audio.ogg_pages import OggWriter
from voicechat.errors import FailureKind, Fault, ProviderError
from voicechat.processes.forked import ForkServer
from voicechat.providers.interfaces import RecognitionOptions
from voicechat.runtime.audio_input import AudioInput
from voicechat.runtime.decoding import open_decoding
from voicechat.runtime.tasks import SessionTasks
from voicechat.session.effects import OpenRecognition, Route, RouteAudio
from voicechat.session.events import Event, RecognitionEnded, RecognitionFailed, Transcribed
from voicechat.session.limits import SessionLimits
from voicechat.session.types import InputSettings, Transcript

pytestmark = [
    pytest.mark.real_time,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a system that can fork"),
]


@dataclass
class Listener:
    """A recogniser that keeps what it hears, and fails once after
    ``fails_after_bytes``.
    """

    heard: list[bytearray] = field(default_factory=list)
    fails_after_bytes: int = 1 << 40

    async def recognize(
        self, audio: AsyncIterator[bytes], options: RecognitionOptions
    ) -> AsyncIterator[Transcript]:
        self.heard.append(bytearray())
        mine = self.heard[-1]
        async for pcm in audio:
            mine += pcm
            if len(mine) >= self.fails_after_bytes:
                self.fails_after_bytes = 1 << 40
                raise ProviderError("listener", FailureKind.CONNECTIVITY, "as the test says")
        yield Transcript("heard", 0, len(mine) // 32)


@dataclass
class Session:
    """As much of a session as hears."""

    audio: AudioInput
    listener: Listener
    settings: InputSettings
    events: list[Event]
    streams: int = 0

    def open(self, replay_of: int | None = None) -> int:
        self.streams += 1
        self.audio.open(OpenRecognition(self.streams, self.settings, replay_of))
        return self.streams

    def send(self, stream: int, audio: bytes) -> None:
        self.audio.route(RouteAudio(Route.RECOGNISE, self.settings, stream))
        self.audio.push(audio)

    async def feed(self, stream: int, audio: bytes, frame_bytes: int = 1000) -> None:
        self.audio.route(RouteAudio(Route.RECOGNISE, self.settings, stream))
        for at in range(0, len(audio), frame_bytes):
            self.audio.push(audio[at : at + frame_bytes])
            await self.audio.room()

    async def until(self, kind: type[Event], stream: int) -> Event:
        async with asyncio.timeout(30):
            while True:  # the events come from another process, in its own time
                for event in self.events:
                    if isinstance(event, kind) and getattr(event, "stream", None) == stream:
                        return event
                await asyncio.sleep(0.002)


OpenSession = Callable[[InputContainer], Session]


@pytest.fixture
async def decoding() -> AsyncIterator[ForkServer]:
    server = open_decoding()
    await server.start()
    yield server
    await server.aclose()


@pytest.fixture
async def open_session(decoding: ForkServer) -> AsyncIterator[OpenSession]:
    faults: list[None] = []
    tasks = SessionTasks(on_fault=lambda: faults.append(None))

    def opened(container: InputContainer) -> Session:
        events: list[Event] = []
        listener = Listener()
        audio = AudioInput(
            listener,
            limits=SessionLimits(),
            now_ms=lambda: 0,
            post=events.append,
            tasks=tasks,
            decoding=decoding,
        )
        return Session(audio, listener, InputSettings(format=container.value), events)

    yield opened
    assert await tasks.close(1) == 0
    assert faults == []


@pytest.mark.parametrize("name", [name for name in NAMES if "-" not in name])
async def test_a_recogniser_hears_what_was_sent(open_session: OpenSession, name: str) -> None:
    session = open_session(container_of(name))
    stream = session.open()
    await session.feed(stream, encoded(name))
    session.audio.finish(stream)
    await session.until(RecognitionEnded, stream)
    assert bytes(session.listener.heard[0]) == decoded(container_of(name), encoded(name))


async def test_turns_are_kept_apart_on_one_time_line(open_session: OpenSession) -> None:
    session = open_session(InputContainer.OPUS)
    first = session.open()
    await session.feed(first, encoded("opus"))
    session.audio.finish(first)
    # The next turn begins while the last one is still being decoded.
    second = session.open()
    await session.feed(second, encoded("opus"))
    session.audio.finish(second)
    await session.until(RecognitionEnded, second)
    assert session.listener.heard[0] == session.listener.heard[1]
    told = [event.transcript for event in session.events if isinstance(event, Transcribed)]
    length_ms = len(session.listener.heard[0]) // 32
    assert [(one.begin_ms, one.end_ms) for one in told] == [
        (0, length_ms),
        (length_ms, 2 * length_ms),
    ]


async def test_a_replaced_recogniser_hears_all_of_it_also_what_was_still_being_decoded(
    open_session: OpenSession,
) -> None:
    session = open_session(InputContainer.OPUS)
    session.listener.fails_after_bytes = RATE_HZ
    stream = session.open()
    await session.feed(stream, encoded("opus"))
    session.audio.finish(stream)
    await session.until(RecognitionFailed, stream)
    replacement = session.open(replay_of=stream)
    await session.until(RecognitionEnded, replacement)
    assert bytes(session.listener.heard[1]) == decoded(InputContainer.OPUS, encoded("opus"))


async def test_audio_that_is_not_heard_still_takes_its_time(open_session: OpenSession) -> None:
    session = open_session(InputContainer.OPUS)
    session.audio.route(RouteAudio(Route.SKIP, session.settings))
    for at in range(0, len(encoded("opus")), 500):
        session.audio.push(encoded("opus")[at : at + 500])
    stream = session.open()
    await session.feed(stream, encoded("opus"))
    session.audio.finish(stream)
    await session.until(RecognitionEnded, stream)
    (told,) = [event.transcript for event in session.events if isinstance(event, Transcribed)]
    length_ms = len(decoded(InputContainer.OPUS, encoded("opus"))) // 32
    assert told.begin_ms == pytest.approx(length_ms, abs=5)  # the resampler holds back 4 ms


async def test_what_cannot_be_decoded_fails_its_stream_and_the_next_one_is_heard(
    open_session: OpenSession,
) -> None:
    session = open_session(InputContainer.WEBM)
    stream = session.open()
    await session.feed(stream, b"this is not WebM at all" * 10)
    failed = await session.until(RecognitionFailed, stream)
    assert failed == RecognitionFailed(
        stream, Fault.UNDECODABLE_AUDIO, "webm: the audio does not begin with an EBML header"
    )
    another = session.open()
    await session.feed(another, encoded("webm"))
    session.audio.finish(another)
    await session.until(RecognitionEnded, another)
    assert likeness(bytes(session.listener.heard[-1]), speech()) > 0.9


async def test_what_follows_audio_that_cannot_be_decoded_is_heard_although_it_waited_behind_it(
    open_session: OpenSession,
) -> None:
    session = open_session(InputContainer.WEBM)
    bad, good = session.open(), session.open()
    # Nothing waits here, so that all of it is on its way before the first of it is
    # refused.
    session.send(bad, b"this is not WebM at all" * 10)
    session.audio.finish(bad)
    session.send(good, encoded("webm"))
    session.audio.finish(good)
    await session.until(RecognitionFailed, bad)
    await session.until(RecognitionEnded, good)
    assert bytes(session.listener.heard[-1]) == decoded(InputContainer.WEBM, encoded("webm"))


async def test_a_decoder_that_dies_costs_its_own_session_one_error_and_others_nothing(
    open_session: OpenSession, decoding: ForkServer
) -> None:
    guilty, innocent = open_session(InputContainer.OPUS), open_session(InputContainer.OPUS)
    streams = guilty.open(), innocent.open()
    half = len(encoded("opus")) // 2
    await guilty.feed(streams[0], encoded("opus")[:half])
    (victim,) = await decoders(decoding, 1)
    await innocent.feed(streams[1], encoded("opus")[:half])
    await decoders(decoding, 2)
    os.kill(victim, signal.SIGKILL)
    await guilty.feed(streams[0], encoded("opus")[half:])
    failed = await guilty.until(RecognitionFailed, streams[0])
    assert failed == RecognitionFailed(
        streams[0], Fault.UNDECODABLE_AUDIO, "opus: its decoder failed"
    )
    await innocent.feed(streams[1], encoded("opus")[half:])
    innocent.audio.finish(streams[1])
    await innocent.until(RecognitionEnded, streams[1])
    assert bytes(innocent.listener.heard[0]) == decoded(InputContainer.OPUS, encoded("opus"))


async def test_without_a_server_to_fork_from_every_stream_fails_and_nothing_spins(
    open_session: OpenSession, decoding: ForkServer
) -> None:
    session = open_session(InputContainer.OPUS)
    await decoding.aclose()
    for _ in range(2):
        stream = session.open()
        await session.feed(stream, encoded("opus")[:1000])
        failed = await session.until(RecognitionFailed, stream)
        assert failed == RecognitionFailed(stream, Fault.INTERNAL, "opus: it cannot be decoded now")
    began_s = time.process_time()
    await asyncio.sleep(0.2)
    assert time.process_time() - began_s < 0.1


async def test_without_processes_compressed_audio_is_refused() -> None:
    events: list[Event] = []
    tasks = SessionTasks(on_fault=lambda: None)
    audio = AudioInput(
        Listener(), limits=SessionLimits(), now_ms=lambda: 0, post=events.append, tasks=tasks
    )
    session = Session(audio, Listener(), InputSettings(format="mp3"), events)
    session.send(session.open(), encoded("mp3"))
    assert events == [
        RecognitionFailed(
            1, Fault.UNSUPPORTED_FORMAT, "mp3: this server decodes no compressed audio"
        )
    ]
    await tasks.close(1)


def opus_bomb(packet: bytes) -> bytes:
    """25 MB that say nothing of their length and last for days."""
    ogg = OggWriter(1)
    head = (
        b"OpusHead"
        + bytes([1, 1])
        + (312).to_bytes(2, "little")
        + (48000).to_bytes(4, "little")
        + bytes(3)
    )
    start = ogg.pages([head], 0) + ogg.pages([b"OpusTags" + bytes(8)], 0)
    pages = b"".join(ogg.pages([packet] * 255, 0) for _ in range(50))
    return start + pages * (25_000_000 // len(pages))


@pytest.mark.parametrize("packet", [b"\x0b\x06", b"\x08"])
async def test_a_file_that_unfolds_to_days_is_refused_at_its_beginning(
    open_session: OpenSession, packet: bytes
) -> None:
    bomb = opus_bomb(packet)
    session = open_session(InputContainer.OPUS)
    stream = session.open()
    at = 0
    async with asyncio.timeout(30):  # on a machine of its own: 0.3 s
        while not session.events and at < 600_000:
            await session.feed(stream, bomb[at : at + 65_536], 65_536)
            await asyncio.sleep(0)
            at += 65_536
        failed = await session.until(RecognitionFailed, stream)
    assert isinstance(failed, RecognitionFailed)
    assert failed.fault is Fault.TOO_LARGE


async def decoders(server: ForkServer, count: int) -> list[int]:
    """The ids of the decoding processes, once there are ``count``."""
    assert server._process is not None
    async with asyncio.timeout(30):
        while len(found := children(server._process.pid)) < count:  # noqa: ASYNC110 - the kernel tells nobody
            await asyncio.sleep(0.002)
    return found


def children(parent: int) -> list[int]:
    return [
        int(child)
        for task in Path(f"/proc/{parent}/task").iterdir()
        for child in (task / "children").read_text().split()
    ]
