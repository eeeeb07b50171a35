import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path

import pytest

from voicechat.processes.errors import WorkerLostError
from voicechat.processes.forked import ForkedStream, ForkServer
from voicechat.processes.frames import Frame, FrameKind

pytestmark = [
    pytest.mark.real_time,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a system that can fork"),
]

COMMAND = [sys.executable, str(Path(__file__).parent / "forking_worker.py")]


@pytest.fixture
def others() -> frozenset[int]:
    """Children that this process had before: other tests start multiprocessing's
    resource tracker, which stays.
    """
    return frozenset(processes_of(os.getpid()))


@pytest.fixture
async def server(others: frozenset[int]) -> AsyncIterator[ForkServer]:
    running = ForkServer(COMMAND)
    await running.start()
    yield running
    await running.aclose()


async def ask(stream: ForkedStream, payload: str) -> list[bytes]:
    """Send a payload; give the answers to it."""
    stream.send(payload.encode())
    answers: list[bytes] = []
    while (frame := await stream.receive_frame()).kind is FrameKind.MESSAGE:
        answers.append(frame.payload)
    assert frame.kind is FrameKind.CONSUMED
    return answers


async def test_a_job_answers_what_it_is_fed_in_a_process_of_its_own(server: ForkServer) -> None:
    one, two = await server.fork(b"one"), await server.fork(b"two")
    assert await ask(one, "echo a") == [b"one", b"a"]
    assert await ask(two, "echo b") == [b"two", b"b"]
    assert await ask(one, "echo c") == [b"one", b"c"]
    one.close()
    two.close()


async def test_what_is_held_back_may_be_asked_for_more_than_once(server: ForkServer) -> None:
    stream = await server.fork(b"")
    for _ in range(2):
        stream.finish_input()
        assert await stream.receive_frame() == Frame(FrameKind.MESSAGE, 0, b"rest")
        assert (await stream.receive_frame()).kind is FrameKind.ENDED
    stream.close()


@pytest.mark.parametrize("misdeed", ["crash", "spin"])
async def test_a_crash_and_a_hang_cost_one_stream_and_little_time(
    server: ForkServer, misdeed: str
) -> None:
    innocent, guilty = await server.fork(b"i"), await server.fork(b"g")
    guilty.send(misdeed.encode())
    async with asyncio.timeout(30):  # 0.3 s of CPU, on a machine that may be busy
        with pytest.raises(WorkerLostError):
            await guilty.receive_frame()
    assert await ask(innocent, "echo still") == [b"i", b"still"]
    for stream in (innocent, guilty):
        stream.close()


async def test_memory_is_limited(server: ForkServer) -> None:
    stream = await server.fork(b"")
    stream.send(b"grow")
    assert await fails(stream)
    stream.close()


async def fails(stream: ForkedStream) -> bool:
    """Whether the next answer is a failure; without any memory left a process cannot
    even say so.
    """
    try:
        return await stream.receive_frame() == Frame(FrameKind.FAILED)
    except WorkerLostError:
        return True


async def test_no_file_can_be_written(server: ForkServer, tmp_path: Path) -> None:
    stream = await server.fork(b"")
    stream.send(f"write {tmp_path}/file".encode())
    # The kernel sends SIGXFSZ, or where that is ignored, as Python does, the write
    # fails.
    assert await stream.receive_frame() == Frame(FrameKind.FAILED)
    assert size_bytes(tmp_path) == 0
    stream.close()


def size_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


async def test_a_refusal_says_why(server: ForkServer) -> None:
    stream = await server.fork(b"")
    stream.send(b"refuse")
    assert await stream.receive_frame() == Frame(FrameKind.FAILED, 0, b"40001 not this")
    stream.close()


async def test_a_refusal_is_heard_by_one_who_goes_on_sending(server: ForkServer) -> None:
    for _ in range(20):
        stream = await server.fork(b"")
        stream.send(b"refuse")
        for _ in range(200):
            stream.send(bytes(4096))
            await asyncio.sleep(0)
        assert await stream.receive_frame() == Frame(FrameKind.FAILED, 0, b"40001 not this")
        stream.close()


async def test_what_a_library_prints_is_not_taken_for_an_answer(server: ForkServer) -> None:
    stream = await server.fork(b"")
    assert await ask(stream, "print") == []
    stream.close()


async def test_a_closed_stream_leaves_no_process(
    server: ForkServer, others: frozenset[int]
) -> None:
    stream = await server.fork(b"")
    assert await ask(stream, "echo a")
    (parent,) = children_but(others)
    assert len(processes_of(parent)) == 1
    stream.close()
    await until(lambda: processes_of(parent) == [])


async def test_a_lost_server_is_replaced_and_its_jobs_live_on(
    server: ForkServer, others: frozenset[int]
) -> None:
    stream = await server.fork(b"old")
    assert await ask(stream, "echo a")
    (parent,) = children_but(others)
    os.kill(parent, signal.SIGKILL)
    await until(lambda: children_but(others) == [])
    another = await server.fork(b"new")
    assert await ask(another, "echo b") == [b"new", b"b"]
    assert await ask(stream, "echo c") == [b"old", b"c"]
    for each in (stream, another):
        each.close()


async def test_a_server_that_does_not_start_says_so() -> None:
    broken = ForkServer([*COMMAND, "broken"])
    with pytest.raises(WorkerLostError, match="did not become ready"):
        await broken.start()
    await broken.aclose()


async def test_a_closed_server_forks_no_more(server: ForkServer, others: frozenset[int]) -> None:
    await server.aclose()
    await server.aclose()
    with pytest.raises(WorkerLostError, match="closed"):
        await server.fork(b"")
    assert children_but(others) == []


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what the kernel does in its own time."""
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - nothing tells this process
            await asyncio.sleep(0.01)


def children_but(others: frozenset[int]) -> list[int]:
    """This process's children that are not among ``others``."""
    return [child for child in processes_of(os.getpid()) if child not in others]


def processes_of(parent: int) -> list[int]:
    """The children of a process that have not ended."""
    children: list[int] = []
    for task in Path(f"/proc/{parent}/task").iterdir():
        with suppress(FileNotFoundError):  # the thread has ended meanwhile
            children += map(int, (task / "children").read_text().split())
    return [child for child in children if not _has_ended(child)]


def _has_ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True
