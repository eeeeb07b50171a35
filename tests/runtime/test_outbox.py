"""What leaves a session: answers at once, everything in order."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import pytest

from voicechat.dialects.base import Frame
from voicechat.runtime.outbox import Outbox
from voicechat.runtime.socket import Pong
from voicechat.session.events import AudioSent, Disconnected, Event, WriteStalled
from voicechat.session.limits import SessionLimits
from voicechat.testing.socket import MemorySocket

CANCELED: dict[str, Any] = {"frames": ["answer"], "urgent": True}
COMPLETED: dict[str, Any] = {"frames": ["completed"]}


def audio(reply: int = 1) -> dict[str, Any]:
    return {"frames": ["audio"], "reply": reply, "audio_until_ms": 100}


def text(reply: int = 1) -> dict[str, Any]:
    return {"frames": ["text"], "reply": reply}


@dataclass
class Writing:
    """An outbox and its socket."""

    socket: MemorySocket = field(default_factory=MemorySocket)
    events: list[Event] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.outbox = Outbox(self.socket, SessionLimits(), self.events.append)

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
        writing.outbox.put_frames(**CANCELED)
        assert writing.sent == ["answer"]


async def test_what_stands_before_the_answer_leaves_before_it() -> None:
    async with Writing().running() as writing:
        writing.outbox.put_frames(**text())
        writing.outbox.put_frames(**COMPLETED)
        assert writing.sent == []
        writing.outbox.put_frames(**CANCELED)
        assert writing.sent == ["text", "completed", "answer"]
        writing.outbox.put_frames(**COMPLETED)
        await asyncio.sleep(0.01)
        assert writing.sent == ["text", "completed", "answer", "completed"]


async def test_a_reply_that_is_stopped_takes_nothing_of_others_along() -> None:
    writing = Writing()
    for message in (text(), COMPLETED, text(2)):
        writing.outbox.put_frames(**message)
    writing.outbox.flush_reply(1)
    await asyncio.sleep(0.01)
    assert writing.sent == ["completed", "text"]


async def test_audio_leaves_without_a_turn_of_the_loop() -> None:
    async with Writing().running() as writing:
        writing.outbox.put_frames(**text())
        for reply in (1, 1, 2):
            writing.outbox.put_frames(**audio(reply))
        assert writing.sent == ["text", "audio", "audio", "audio"], "what stood before went with it"
        assert writing.events == [AudioSent(1, 100), AudioSent(1, 100), AudioSent(2, 100)]


async def test_what_is_not_urgent_lets_others_go_first() -> None:
    async with Writing().running() as writing:
        writing.outbox.put_frames(**COMPLETED)
        assert writing.sent == []
        await asyncio.sleep(0.01)
        assert writing.sent == ["completed"]


async def test_an_answer_does_not_overtake_what_is_being_written() -> None:
    writing = Writing(MemorySocket(stuck=asyncio.Event()))
    async with writing.running():
        writing.outbox.put_frames(**audio())
        await asyncio.sleep(0.01)
        assert writing.socket.stuck is not None
        writing.socket.stuck.set()  # the connection takes more, and the writer has not noticed yet
        writing.outbox.put_frames(**CANCELED)
        assert writing.sent == []
        await asyncio.sleep(0.01)
        assert writing.sent == ["audio", "answer"]


async def test_a_full_connection_is_not_filled_further_by_answers() -> None:
    async with Writing(MemorySocket(stuck=asyncio.Event())).running() as writing:
        writing.outbox.put_frames(**CANCELED)
        await asyncio.sleep(0.01)
        assert writing.sent == []


async def test_an_answer_to_a_lost_connection_ends_the_session() -> None:
    async with Writing().running() as writing:
        writing.socket.disconnect()
        writing.outbox.put_frames(**CANCELED)
        assert writing.events == [Disconnected()]
        assert writing.socket.aborted


class FullAfter(MemorySocket):
    """Takes each frame, and has no room after it until it is read."""

    def send_now(self, frame: Frame | Pong) -> None:
        super().send_now(frame)
        self.stuck = asyncio.Event()


async def test_what_is_put_leaves_without_the_writer() -> None:
    writing = Writing()
    writing.outbox.put_frames(**audio())
    writing.outbox.put_frames(**audio())
    writing.outbox.put_frames(**COMPLETED)
    await asyncio.sleep(0.01)
    assert writing.sent == ["audio", "audio", "completed"]
    assert writing.events == [AudioSent(1, 100), AudioSent(1, 100)]


async def test_what_others_were_given_to_do_comes_before_text() -> None:
    writing, seen = Writing(), list[list[Frame]]()

    async def service() -> None:
        seen.append(writing.sent)

    writing.outbox.put_frames(**text())
    await asyncio.get_running_loop().create_task(service())
    await asyncio.sleep(0)
    assert seen == [[]]
    assert writing.sent == ["text"]


async def test_a_client_that_does_not_read_the_last_message_is_noticed() -> None:
    async with Writing(FullAfter()).running() as writing:
        writing.outbox.put_frames(**audio())
        await asyncio.sleep(SessionLimits().write_ms / 1000 - 1)
        assert writing.events == [AudioSent(1, 100)]
        await asyncio.sleep(2)
        assert writing.events[1:] == [WriteStalled("the client did not read for 10 s")]


async def test_what_waits_for_a_slow_client_can_still_be_taken_back() -> None:
    async with Writing(FullAfter()).running() as writing:
        for _ in range(2):
            writing.outbox.put_frames(**audio())
        writing.outbox.put_frames(**COMPLETED)
        await asyncio.sleep(0.01)
        assert writing.sent == ["audio"]
        writing.outbox.flush_reply(1)
        assert writing.socket.stuck is not None
        writing.socket.stuck.set()
        await asyncio.sleep(0.01)
        assert writing.sent == ["audio", "completed"]


async def test_the_last_words_to_a_client_that_reads_again_are_written() -> None:
    writing = Writing(MemorySocket(stuck=asyncio.Event()))
    async with writing.running():
        writing.outbox.put_frames(**audio())
        await asyncio.sleep(SessionLimits().write_ms / 1000 + 1)
        assert writing.events == [WriteStalled("the client did not read for 10 s")]
        assert writing.socket.stuck is not None
        writing.socket.stuck.set()
        writing.outbox.put_frames(**COMPLETED)
        writing.outbox.close(1013, "bye")
        await asyncio.sleep(1)
        assert writing.sent == ["completed"]
        assert writing.socket.closed_with == (1013, "bye")


class Broken(MemorySocket):
    """A bug of ours."""

    def send_now(self, frame: Frame | Pong) -> None:
        raise KeyError(frame)


async def test_a_bug_while_writing_fails_the_writer() -> None:
    outbox = Outbox(Broken(), SessionLimits(), list[Event]().append)
    running = asyncio.get_running_loop().create_task(outbox.run())
    outbox.put_frames(**text())
    with pytest.raises(KeyError):
        await running


async def test_after_its_end_nothing_is_written() -> None:
    async with Writing().running() as writing:
        pass
    writing.outbox.put_frames(**audio())
    writing.outbox.put_frames(**CANCELED)
    await asyncio.sleep(0.01)
    assert writing.sent == []


async def test_a_ping_is_answered_at_once() -> None:
    async with Writing().running() as writing:
        writing.outbox.answer_ping(b"?")
        assert writing.socket.pongs == [b"?"]


async def test_of_the_pongs_that_a_client_does_not_read_only_the_last_is_kept() -> None:
    async with Writing().running() as writing:
        writing.socket.stuck = asyncio.Event()
        for number in range(10_000):
            writing.outbox.answer_ping(b"%d" % number)
        await asyncio.sleep(1)
        assert writing.socket.pongs == []
        writing.socket.stuck.set()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert writing.socket.pongs == [b"9999"]


async def test_a_client_that_does_not_read_its_pongs_does_not_read() -> None:
    async with Writing().running() as writing:
        writing.socket.stuck = asyncio.Event()
        writing.outbox.answer_ping(b"?")
        await asyncio.sleep(SessionLimits().write_ms / 1000 - 0.1)
        assert writing.events == []
        await asyncio.sleep(0.2)
        assert [type(event) for event in writing.events] == [WriteStalled]
