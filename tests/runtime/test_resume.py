"""A recognition stream whose connection is lost: nothing is lost, nothing comes
twice.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from voicechat.dialects.base import Connection, Handshake
from voicechat.dialects.stream_speech.endpoint import StreamSpeechEndpoint
from voicechat.runtime.resume import ResumableSocket
from voicechat.runtime.socket import Ping
from voicechat.session.limits import SessionLimits
from voicechat.session.transcription_session import TranscriptionSession
from voicechat.session.types import InputSettings
from voicechat.testing.harness import ConversationHarness
from voicechat.testing.scripted import ScriptedRecognizer
from voicechat.testing.socket import MemorySocket

ENDPOINT = StreamSpeechEndpoint()
LIMITS = SessionLimits()
AUDIO_100_MS = bytes(3200)


@asynccontextmanager
async def dictation(recognizer: ScriptedRecognizer) -> AsyncIterator[ResumableSocket]:
    resumable = ResumableSocket(LIMITS, ENDPOINT.resumed)
    connection = Connection(handshake=Handshake(query={"session": "s"}))
    async with ConversationHarness(
        recognizer=recognizer,
        machine=TranscriptionSession(InputSettings(format="pcm"), LIMITS),
        dialect=ENDPOINT.open(connection).dialect,
        carrier=resumable,
        limits=LIMITS,
    ):
        yield resumable


@asynccontextmanager
async def connected(
    resumable: ResumableSocket, received: int | None = None
) -> AsyncIterator[MemorySocket]:
    socket = MemorySocket()
    async with asyncio.TaskGroup() as group:
        group.create_task(resumable.attach(socket, received))
        await asyncio.sleep(0.01)
        yield socket
        socket.disconnect()


def results(socket: MemorySocket) -> list[tuple[int, str]]:
    messages = [json.loads(sent.frame) for sent in socket.sent]
    return [(message["number"], message["text"]) for message in messages[1:]]


def offset(socket: MemorySocket) -> int:
    greeting = json.loads(socket.sent[0].frame)
    assert greeting["status"] == "ok"
    return int(greeting["offset"])


async def test_a_client_that_returns_is_told_where_to_go_on_and_gets_what_it_missed() -> None:
    async with dictation(ScriptedRecognizer(texts=("one two three four",))) as resumable:
        async with connected(resumable) as socket:
            assert offset(socket) == 0
            for _ in range(6):
                socket.send_from_client(AUDIO_100_MS)
                await asyncio.sleep(0.01)
            assert results(socket) == [(1, "one"), (2, "one two")]
        await asyncio.sleep(20)
        async with connected(resumable, received=1) as socket:
            assert offset(socket) == 6 * len(AUDIO_100_MS)
            assert results(socket) == [(2, "one two")]
            for _ in range(6):
                socket.send_from_client(AUDIO_100_MS)
                await asyncio.sleep(0.01)
            socket.send_from_client("BYE")
            await asyncio.sleep(1)
            assert results(socket)[1:] == [
                (3, "one two three"),
                (4, "one two three four"),
                (5, "one two three four"),
            ]
            assert socket.closed_with == (1000, "")


async def test_results_made_while_nobody_was_connected_are_kept() -> None:
    async with dictation(ScriptedRecognizer(texts=("one two",), word_ms=300)) as resumable:
        async with connected(resumable) as socket:
            socket.send_from_client(AUDIO_100_MS * 3)
            socket.disconnect()
        await asyncio.sleep(1)
        async with connected(resumable) as socket:
            assert results(socket) == [(1, "one")]
        await asyncio.sleep(1)
        async with connected(resumable) as socket:
            assert results(socket) == [], "a client that does not count is not told twice"


async def test_the_newest_connection_wins() -> None:
    recognizer = ScriptedRecognizer(texts=("one two",), word_ms=100)
    async with (
        dictation(recognizer) as resumable,
        connected(resumable) as old,
        connected(resumable) as new,
    ):
        assert old.aborted
        new.send_from_client(AUDIO_100_MS)
        await asyncio.sleep(0.1)
        assert results(new) == [(1, "one")]


async def test_a_client_that_returns_and_never_reads_gives_way_to_the_next_one() -> None:
    recognizer = ScriptedRecognizer(texts=("one two",), word_ms=100)
    async with dictation(recognizer) as resumable, asyncio.TaskGroup() as group:
        deaf = [MemorySocket(stuck=asyncio.Event()) for _ in range(300)]
        waiting = [group.create_task(resumable.attach(socket, None)) for socket in deaf]
        await asyncio.sleep(0.01)
        assert [task.done() for task in waiting] == [True] * 299 + [False]
        async with connected(resumable) as new:
            assert deaf[-1].aborted
            assert offset(new) == 0
            new.send_from_client(AUDIO_100_MS)
            await asyncio.sleep(0.1)
            assert results(new) == [(1, "one")]


async def test_a_client_that_does_not_read_its_greeting_is_dropped_and_the_session_waits() -> None:
    async with dictation(ScriptedRecognizer()) as resumable:
        deaf = MemorySocket(stuck=asyncio.Event())
        async with asyncio.timeout(LIMITS.write_ms / 1000 + 1):
            await resumable.attach(deaf, None)
        assert deaf.aborted
        async with connected(resumable) as new:
            assert offset(new) == 0


async def test_a_ping_is_answered_on_the_connection_and_is_no_result() -> None:
    async with dictation(ScriptedRecognizer(texts=("one",), word_ms=100)) as resumable:
        async with connected(resumable) as socket:
            socket.send_from_client(Ping(b"?"))
            await asyncio.sleep(0.01)
            assert socket.pongs == [b"?"]
        async with connected(resumable) as socket:
            assert results(socket) == []


@pytest.mark.parametrize(("absent_s", "alive"), [(29.0, True), (31.0, False)])
async def test_a_session_waits_thirty_seconds(absent_s: float, alive: bool) -> None:
    recognizer = ScriptedRecognizer()
    async with dictation(recognizer) as resumable:
        async with connected(resumable) as socket:
            socket.send_from_client(AUDIO_100_MS)
            await asyncio.sleep(0.1)
        await asyncio.sleep(absent_s)
        assert recognizer.open == alive
