"""What leaves a session: answers at once, everything in order."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from voicechat.runtime.outbox import Outbox
from voicechat.session.effects import Answered, ClientMessage, ReplyAudio, Request, TurnCompleted
from voicechat.session.events import AudioSent, Disconnected, Event
from voicechat.session.limits import SessionLimits
from voicechat.testing.socket import MemorySocket
from voicechat.wire.dialect import Frame

CANCELED = Answered(Request.CANCEL)
AUDIO = ReplyAudio(1, b"sound", 100)


def encode(message: ClientMessage) -> list[Frame]:
    return [type(message).__name__]


@dataclass
class Writing:
    """An outbox and its socket."""

    socket: MemorySocket = field(default_factory=MemorySocket)
    events: list[Event] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.outbox = Outbox(self.socket, encode, SessionLimits(), self.events.append)

    @property
    def sent(self) -> list[Frame]:
        return [sent.frame for sent in self.socket.sent]

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Writing"]:
        task = asyncio.get_running_loop().create_task(self.outbox.run())
        await asyncio.sleep(0)
        yield self
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_an_answer_leaves_without_a_turn_of_the_loop() -> None:
    async with Writing().running() as writing:
        writing.outbox.put(CANCELED)
        assert writing.sent == ["Answered"]


async def test_what_stands_before_the_answer_leaves_before_it() -> None:
    async with Writing().running() as writing:
        writing.outbox.put(AUDIO)
        writing.outbox.put(TurnCompleted())
        assert writing.sent == []
        writing.outbox.put(CANCELED)
        assert writing.sent == ["ReplyAudio", "TurnCompleted", "Answered"]
        assert writing.events == [AudioSent(1, 100)]
        writing.outbox.put(TurnCompleted())
        await asyncio.sleep(0.01)
        assert writing.sent == ["ReplyAudio", "TurnCompleted", "Answered", "TurnCompleted"]


async def test_an_answer_does_not_overtake_what_is_being_written() -> None:
    writing = Writing(MemorySocket(stuck=asyncio.Event()))
    async with writing.running():
        writing.outbox.put(AUDIO)
        await asyncio.sleep(0.01)
        assert writing.socket.stuck is not None
        writing.socket.stuck.set()  # the connection takes more, and the writer has not noticed yet
        writing.outbox.put(CANCELED)
        assert writing.sent == []
        await asyncio.sleep(0.01)
        assert writing.sent == ["ReplyAudio", "Answered"]


async def test_a_full_connection_is_not_filled_further_by_answers() -> None:
    async with Writing(MemorySocket(stuck=asyncio.Event())).running() as writing:
        writing.outbox.put(CANCELED)
        await asyncio.sleep(0.01)
        assert writing.sent == []


async def test_an_answer_to_a_lost_connection_ends_the_session() -> None:
    async with Writing().running() as writing:
        writing.socket.vanish()
        writing.outbox.put(CANCELED)
        assert writing.events == [Disconnected()]
        assert writing.socket.aborted
