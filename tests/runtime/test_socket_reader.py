"""Audio is taken as it arrives, and nothing overtakes anything for it."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from voicechat.dialects.base import Connection, Frame, Reaction
from voicechat.dialects.speech_chat.rules import SpeechChat
from voicechat.runtime.audio_input import AudioInput
from voicechat.runtime.read_scheduler import SILENT_S, SPEAKING_S, ReadScheduler
from voicechat.runtime.socket import Control, Ping
from voicechat.runtime.socket_reader import (
    AUDIO_IN_A_ROW,
    FRAMES_IN_A_ROW,
    SLICE_BYTES,
    TEXT_PER_FRAME,
    SocketReader,
)
from voicechat.session.commands import Alive
from voicechat.session.events import Disconnected, Event
from voicechat.testing.socket import MemorySocket

PING = json.dumps({"event_type": "ping"})


class Input(AudioInput):
    """Notes what it is given; has as much room as the test says."""

    full = False
    silent = False
    answered = False

    def __init__(self, events: list[Event | bytes]) -> None:
        self.events = events
        self.emptied = asyncio.Event()

    def push(self, frame: bytes) -> None:
        self.events.append(frame)

    def report(self) -> None:
        """See ``AudioInput.report``: all that was pushed is known here."""

    async def room(self) -> None:
        await self.emptied.wait()


class Desk:
    def __init__(self) -> None:
        self.socket = MemorySocket()
        self.events: list[Event | bytes] = []
        """What happened; audio as it is."""
        self.audio = Input(self.events)
        dialect = SpeechChat(Connection())
        list(dialect.receive(b"\0", 0))  # from the first audio on it need not be shown any
        self.pinged: list[bytes] = []
        self.reads = ReadScheduler()
        self.reader = SocketReader(
            self.socket,
            dialect,
            self.audio,
            self.events.append,
            self.react,
            lambda: 0,
            self.pinged.append,
            self.reads,
        )

    def now_s(self) -> float:
        return asyncio.get_running_loop().time()

    def react(self, reaction: Reaction) -> None:
        if isinstance(reaction, Alive):
            self.events.append(reaction)

    @property
    def heard(self) -> bytes:
        return b"".join(event for event in self.events if isinstance(event, bytes))

    @property
    def kinds(self) -> str:
        """A letter for each event: audio, ping, the end."""
        letters = {bytes: "a", Alive: "p", Disconnected: "."}
        return "".join(letters[type(event)] for event in self.events)


@asynccontextmanager
async def reading() -> AsyncIterator[Desk]:
    desk = Desk()
    task = asyncio.get_running_loop().create_task(desk.reader.run())
    await asyncio.sleep(0.1)
    yield desk
    desk.socket.disconnect()
    await task
    assert isinstance(desk.events[-1], Disconnected)


async def test_audio_needs_no_pass_of_the_loop() -> None:
    async with reading() as desk:
        desk.socket.send_from_client(b"1234")
        assert desk.events == [b"1234"]


async def test_audio_waits_behind_a_message_that_nobody_has_read_yet() -> None:
    async with reading() as desk:
        desk.socket.send_from_client(b"1")
        desk.socket.send_from_client(PING)
        desk.socket.send_from_client(b"2")
        assert desk.kinds == "a"
        await asyncio.sleep(0.01)
        assert desk.kinds == "apa"
        desk.socket.send_from_client(b"3")
        assert desk.heard == b"123"


async def test_audio_that_came_before_the_reader_is_read_by_it() -> None:
    desk = Desk()
    desk.socket.send_from_client(b"1")
    desk.socket.disconnect()
    await desk.reader.run()
    assert desk.kinds == "a."


async def test_a_client_that_sends_much_at_once_gets_only_so_much_of_one_pass() -> None:
    async with reading() as desk:
        sent = [bytes([number]) for number in range(5 * AUDIO_IN_A_ROW)]
        for frame in sent:
            desk.socket.send_from_client(frame)
        assert len(desk.events) == AUDIO_IN_A_ROW
        before = len(desk.events)
        passes = 0
        while len(desk.events) < len(sent):
            await asyncio.sleep(0)
            assert len(desk.events) - before <= FRAMES_IN_A_ROW
            before = len(desk.events)
            passes += 1
            assert passes < 100
        assert desk.heard == b"".join(sent)
        await asyncio.sleep(0.01)
        desk.socket.send_from_client(b"!")
        assert desk.heard.endswith(b"!"), "and afterwards audio is taken as it arrives again"


@pytest.mark.parametrize("frame", [Ping(b"?"), Control.PONG, b"", "nonsense"])
async def test_every_kind_of_frame_counts(frame: Frame | Ping | Control) -> None:
    async with reading() as desk:
        await asyncio.sleep(0)
        desk.socket._up.extend([frame] * 10 * FRAMES_IN_A_ROW)
        desk.socket._arrived.set()
        passes = 0
        while desk.socket._up:
            await asyncio.sleep(0)
            passes += 1
        assert passes >= 10


async def test_a_long_text_counts_as_several_frames() -> None:
    async with reading() as desk:
        text = " " * 8 * TEXT_PER_FRAME
        desk.socket._up.extend([text] * 10)
        desk.socket._arrived.set()
        passes = 0
        while desk.socket._up:
            await asyncio.sleep(0)
            passes += 1
        assert passes >= 10


async def test_audio_waits_while_the_recognisers_have_no_room() -> None:
    async with reading() as desk:
        desk.audio.full = True
        desk.socket.send_from_client(b"1")
        desk.socket.send_from_client(b"2")
        assert desk.heard == b""
        await asyncio.sleep(1)
        assert desk.heard == b"1", "the reader sees that there is no room when it has taken a frame"
        desk.audio.full = False
        desk.socket.send_from_client(b"3")
        assert desk.heard == b"1", "nothing overtakes what waits"
        desk.audio.emptied.set()
        await asyncio.sleep(0.01)
        assert desk.heard == b"123"


async def test_a_long_frame_is_taken_in_slices_with_others_in_between() -> None:
    async with reading() as desk:
        long = bytes(3 * SLICE_BYTES)
        desk.socket.send_from_client(long)
        assert desk.events == []
        while not desk.events:  # noqa: ASYNC110 - a pass of the loop is what is meant
            await asyncio.sleep(0)
        desk.socket.send_from_client(b"!")
        assert len(desk.heard) == SLICE_BYTES, "nothing overtakes the other slices"
        await asyncio.sleep(0.01)
        assert [len(event) for event in desk.events if isinstance(event, bytes)] == [
            *[SLICE_BYTES] * 3,
            1,
        ]


@pytest.mark.parametrize("silent", [True, False])
async def test_a_late_loop_leaves_the_socket_alone_after_audio(silent: bool) -> None:
    async with reading() as desk:
        desk.audio.silent = silent
        desk.socket.send_from_client(b"on time")
        assert desk.socket.reading
        for _ in range(20):
            desk.reads.lateness.add_lag(0.0, 1.0)
        desk.socket.send_from_client(b"late")
        assert not desk.socket.reading
        desk.reads.tick(desk.now_s() + SPEAKING_S, 0.0)
        assert desk.socket.reading is not silent
        desk.reads.tick(desk.now_s() + SILENT_S, 0.0)
        assert desk.socket.reading
        assert desk.heard == b"on timelate"
