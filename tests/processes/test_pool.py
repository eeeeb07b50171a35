import asyncio
import os
import signal
import socket
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import uvloop

from voicechat.processes.channel import Channel
from voicechat.processes.errors import JobFailedError, WorkerLostError, WorkersBusyError
from voicechat.processes.pool import RestartBackoff, WorkerPool
from voicechat.processes.worker import PoolWorker, WorkerLimits

pytestmark = [
    pytest.mark.real_time,
    pytest.mark.skipif(sys.platform == "win32", reason="looks at processes the POSIX way"),
]

COMMAND = [sys.executable, str(Path(__file__).with_name("echo_worker.py"))]
SOON_MS = 10_000


@asynccontextmanager
async def warm_pool(
    *, size: int = 1, channels: int = 2, reserved: int = 0, answer_ms: int = 5_000
) -> AsyncIterator[WorkerPool]:
    limits = WorkerLimits(
        channels=channels, reserved=reserved, answer_ms=answer_ms, window_bytes=1000
    )
    pool = WorkerPool(
        COMMAND, size=size, limits=limits, backoff=RestartBackoff(first_ms=1, most_ms=10)
    )
    async with asyncio.timeout(30):
        await pool.start()
    try:
        yield pool
    finally:
        await pool.aclose()


async def until(fact: Callable[[], bool]) -> None:
    """Wait for another process; the bound is for a broken one."""
    async with asyncio.timeout(30):
        while not fact():  # noqa: ASYNC110 - another process sets no event of ours
            await asyncio.sleep(0.005)


def exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def ask(channel: Channel, *payloads: bytes) -> list[bytes]:
    async with asyncio.timeout(30):
        for payload in payloads:
            await channel.send(payload)
        channel.finish_input()
        return [message async for message in channel]


async def test_answers_come_in_order_and_the_end_comes_last() -> None:
    async with warm_pool() as pool:
        channel = await pool.open_channel(b"> ", wait_ms=SOON_MS)
        assert await ask(channel, b"one", b"two", b"three") == [
            b"> one",
            b"> two",
            b"> three",
            b"11 bytes",
        ]
        assert pool.open_channels == 0


async def test_what_a_library_prints_does_not_disturb_the_conversation() -> None:
    async with warm_pool() as pool:
        assert await ask(await pool.open_channel(wait_ms=SOON_MS), b"print") == [
            b"print",
            b"5 bytes",
        ]


async def test_a_crash_fails_its_channels_and_the_child_is_replaced() -> None:
    async with warm_pool() as pool:
        (pid,) = pool.pids
        crashing, bystander = (
            await pool.open_channel(wait_ms=SOON_MS),
            await pool.open_channel(wait_ms=SOON_MS),
        )
        with pytest.raises(WorkerLostError):
            await ask(crashing, b"crash")
        with pytest.raises(WorkerLostError):
            await ask(bystander, b"hello")
        assert await ask(await pool.open_channel(wait_ms=SOON_MS), b"again") == [
            b"again",
            b"5 bytes",
        ]
        assert pool.pids != (pid,)
        assert not exists(pid)


async def test_a_child_that_does_not_answer_is_killed() -> None:
    async with warm_pool(answer_ms=200) as pool:
        (pid,) = pool.pids
        with pytest.raises(WorkerLostError):
            await ask(await pool.open_channel(wait_ms=SOON_MS), b"hang")
        await until(lambda: not exists(pid))
        assert await ask(await pool.open_channel(wait_ms=SOON_MS), b"again") == [
            b"again",
            b"5 bytes",
        ]


async def test_a_child_that_owes_nothing_may_be_silent_before_new_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with warm_pool(answer_ms=10_000) as pool:
        (pid,) = pool.pids
        channel = await pool.open_channel(wait_ms=SOON_MS)
        await channel.send(b"x")
        assert await anext(channel) == b"x"
        await until(lambda: not channel.waiting)  # that it was consumed comes in a frame of its own
        (worker,) = pool._workers
        assert worker is not None
        await until(lambda: not worker._owes_answer())
        loop = asyncio.get_running_loop()
        now_s = loop.time
        monkeypatch.setattr(loop, "time", lambda: now_s() + 30)  # three times its deadline
        await asyncio.sleep(0.01)  # timers that are due now have run when this one has
        assert await ask(channel, b"y") == [b"y", b"2 bytes"]
        assert pool.pids == (pid,)


async def test_a_job_that_raises_fails_alone_and_its_message_stays_in_the_child() -> None:
    async with warm_pool() as pool:
        failing, neighbour = (
            await pool.open_channel(wait_ms=SOON_MS),
            await pool.open_channel(wait_ms=SOON_MS),
        )
        with pytest.raises(JobFailedError, match="ValueError") as caught:
            await ask(failing, b"raise")
        assert "user" not in str(caught.value)
        assert await ask(neighbour, b"open jobs") == [b"1", b"open jobs", b"9 bytes"]


async def test_answers_before_a_failure_are_not_lost() -> None:
    async with warm_pool() as pool:
        channel = await pool.open_channel(wait_ms=SOON_MS)
        await channel.send(b"one")
        await channel.send(b"crash")
        await until(lambda: not pool.pids)
        assert await anext(channel) == b"one"
        with pytest.raises(WorkerLostError):
            await anext(channel)


async def test_a_sender_waits_while_the_child_is_behind() -> None:
    async with warm_pool() as pool:
        channel = await pool.open_channel(wait_ms=SOON_MS)
        await channel.send(b"sleep 0.2")
        await channel.send(bytes(900))
        blocked = asyncio.get_running_loop().create_task(channel.send(bytes(900)))
        await asyncio.sleep(0)
        assert not blocked.done()
        async with asyncio.timeout(30):
            await blocked
        channel.close()


async def test_closing_frees_the_place_at_once_and_ends_the_job() -> None:
    async with warm_pool(channels=1) as pool:
        first = await pool.open_channel(wait_ms=SOON_MS)
        await first.send(b"one")
        first.close()
        assert pool.open_channels == 0
        assert await ask(await pool.open_channel(wait_ms=0), b"open jobs") == [
            b"1",
            b"open jobs",
            b"9 bytes",
        ]


async def test_a_caller_without_jobs_does_not_wait_for_one_that_has_all() -> None:
    async with warm_pool(channels=2, reserved=1) as pool:
        heavy = [await pool.open_channel(wait_ms=SOON_MS, caller="heavy") for _ in range(2)]
        with pytest.raises(WorkersBusyError):
            await pool.open_channel(wait_ms=0, caller="heavy")
        light = await pool.open_channel(wait_ms=0, caller="light")
        with pytest.raises(WorkersBusyError):
            await pool.open_channel(wait_ms=0, caller="light")
        light.close()
        assert await ask(await pool.open_channel(wait_ms=0, caller="other"), b"x") == [
            b"x",
            b"1 bytes",
        ]
        assert pool.open_channels == len(heavy)


async def test_who_has_the_fewest_jobs_is_served_first_and_each_in_its_order() -> None:
    order: list[str] = []
    async with warm_pool(channels=2) as pool:
        open_ones = [await pool.open_channel(wait_ms=SOON_MS, caller="heavy") for _ in range(2)]

        async def want(caller: str, name: str) -> None:
            open_ones.append(await pool.open_channel(wait_ms=SOON_MS, caller=caller))
            order.append(name)

        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            for name in ("heavy 1", "heavy 2", "light 1", "light 2", "other 1"):
                group.create_task(want(name.split()[0], name))
            await until(lambda: pool.waiting == 5)
            for served in range(1, 6):
                open_ones.pop(0).close()
                await until(lambda served=served: len(order) == served)  # type: ignore[misc]
    # One of heavy's has ended, then both: of callers without a job, in turn.
    assert order == ["light 1", "heavy 1", "other 1", "light 2", "heavy 2"]


async def test_callers_get_the_same_time_of_a_child_whatever_the_number_of_their_jobs() -> None:
    pieces, answered = 10, Counter[str]()

    async def read(caller: str, channel: Channel) -> None:
        async for _ in channel:
            answered[caller] += 1

    async with warm_pool(channels=4) as pool, asyncio.timeout(60), asyncio.TaskGroup() as group:
        channels = [
            (caller, await pool.open_channel(wait_ms=SOON_MS, caller=caller))
            for caller in ("heavy", "heavy", "heavy", "light")
        ]
        await channels[0][1].send(b"sleep 0.5")  # until everything is in the child
        for _ in range(pieces):
            for _, channel in channels:
                await channel.send(b"sleep 0.005")
        light = group.create_task(read(*channels[3]))
        for caller, channel in channels:
            channel.finish_input()
            if caller == "heavy":
                group.create_task(read(caller, channel))
        await light
        assert answered["heavy"] <= 2 * pieces, "30 would come by then job by job"
    assert answered == {"heavy": 3 * pieces + 4, "light": pieces + 1}


async def test_closing_drops_what_waits_in_the_child() -> None:
    async with warm_pool(channels=1) as pool:
        first = await pool.open_channel(wait_ms=SOON_MS)
        await first.send(b"sleep 0.05")
        for _ in range(50):
            await first.send(b"sleep 2")
        first.close()
        async with asyncio.timeout(30):
            assert await ask(await pool.open_channel(wait_ms=0), b"x") == [b"x", b"1 bytes"]


async def test_a_child_that_is_given_up_while_it_exits_is_gone() -> None:
    command = [sys.executable, "-c", "import os, time; os.close(1); time.sleep(60)"]
    worker = PoolWorker(command, WorkerLimits(exit_ms=60_000), lambda: None)
    running = asyncio.get_running_loop().create_task(worker.run())
    await until(lambda: worker.pid is not None)
    process = worker._process
    assert process is not None
    assert process.stdout is not None
    await until(process.stdout.at_eof)
    await asyncio.sleep(0)
    running.cancel()
    await asyncio.wait([running])
    assert process.returncode == -signal.SIGKILL


async def test_jobs_take_turns() -> None:
    async with warm_pool() as pool:
        ended: list[str] = []

        async def note(name: str, payloads: list[bytes]) -> None:
            await ask(await pool.open_channel(wait_ms=SOON_MS), *payloads)
            ended.append(name)

        async with asyncio.TaskGroup() as group:
            group.create_task(note("greedy", [b"sleep 0.02"] * 20))
            group.create_task(note("modest", [b"x"] * 3))
        assert ended == ["modest", "greedy"]


async def test_no_free_place_within_the_wait_is_busy() -> None:
    async with warm_pool(channels=1) as pool:
        held = await pool.open_channel(wait_ms=SOON_MS)
        with pytest.raises(WorkersBusyError):
            await pool.open_channel(wait_ms=10)
        held.close()


async def test_places_are_given_in_the_order_they_were_asked_for() -> None:
    async with warm_pool(channels=1) as pool:
        order: list[int] = []

        async def take(number: int) -> None:
            channel = await pool.open_channel(wait_ms=SOON_MS)
            order.append(number)
            channel.close()

        held = await pool.open_channel(wait_ms=SOON_MS)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(take(number)) for number in range(5)]
            await asyncio.sleep(0)
            tasks[0].cancel()  # whoever gives up passes the place on
            held.close()
        assert order == [1, 2, 3, 4]


async def test_a_place_given_to_somebody_who_gives_up_goes_to_the_next() -> None:
    async with warm_pool(channels=1) as pool:
        held = await pool.open_channel(wait_ms=SOON_MS)
        loop = asyncio.get_running_loop()
        first, second = (loop.create_task(pool.open_channel(wait_ms=SOON_MS)) for _ in range(2))
        await asyncio.sleep(0)
        held.close()  # gives the place to the first ...
        first.cancel()  # ... who leaves in the same turn
        assert await ask(await second, b"x") == [b"x", b"1 bytes"]
        assert first.cancelled()


async def test_nobody_overtakes_those_who_wait() -> None:
    async with warm_pool(channels=1) as pool:
        held = await pool.open_channel(wait_ms=SOON_MS)
        waiting = asyncio.get_running_loop().create_task(pool.open_channel(wait_ms=SOON_MS))
        await asyncio.sleep(0)
        held.close()
        with pytest.raises(WorkersBusyError):
            await pool.open_channel(wait_ms=0)
        (await waiting).close()


async def test_work_goes_to_the_least_busy_child() -> None:
    async with warm_pool(size=2) as pool:
        channels = [await pool.open_channel(wait_ms=SOON_MS) for _ in range(2)]
        for channel in channels:
            await channel.send(b"open jobs")
        assert [await anext(channel) for channel in channels] == [b"1", b"1"]


async def test_progress_is_told_until_all_are_warm() -> None:
    told: list[tuple[int, int]] = []
    pool = WorkerPool(COMMAND, size=2)
    await pool.start(lambda ready, size: told.append((ready, size)))
    await pool.aclose()
    assert told == [(1, 2), (2, 2)]


async def test_children_that_never_get_ready_fail_the_start() -> None:
    pool = WorkerPool([*COMMAND, "--never-ready"], size=1, backoff=RestartBackoff(first_ms=1))
    async with asyncio.timeout(30):
        with pytest.raises(WorkerLostError, match="in a row"):
            await pool.start()
        await pool.aclose()


async def test_a_child_that_cannot_load_says_why_at_once() -> None:
    pool = WorkerPool([*COMMAND, "--refuse"], size=1, backoff=RestartBackoff(first_ms=60_000))
    async with asyncio.timeout(30):
        with pytest.raises(WorkerLostError, match="ValueError: no such model"):
            await pool.start()
        await pool.aclose()


async def test_a_cancellation_ends_a_long_job_at_its_next_answer() -> None:
    async with warm_pool() as pool:
        channel = await pool.open_channel(wait_ms=SOON_MS)
        async with asyncio.timeout(30):
            await channel.send(b"count")
            assert await anext(channel) == b"1"
            channel.close()
        # The child serves the next job, and the closed one is gone.
        answers = await ask(await pool.open_channel(wait_ms=SOON_MS), b"open jobs")
        assert answers[0] == b"1"


@pytest.mark.parametrize(
    "ready_before", [False, True], ids=["while they still fail", "when they have got ready"]
)
async def test_a_start_that_failed_may_be_tried_again(tmp_path: Path, ready_before: bool) -> None:
    may_start = tmp_path / "may_start"
    command = ["/bin/sh", "-c", 'test -e "$0" && exec "$@"', str(may_start), *COMMAND]
    pool = WorkerPool(command, size=1, backoff=RestartBackoff(first_ms=1, most_ms=10))
    async with asyncio.timeout(30):
        for _ in range(2):
            with pytest.raises(WorkerLostError, match="in a row"):
                await pool.start()
        may_start.touch()
        if ready_before:
            await until(lambda: pool.ready_workers == 1)
        while pool.ready_workers == 0:
            with suppress(WorkerLostError):  # of a child that was too early for the file
                await pool.start()
        await pool.start()
        assert await ask(await pool.open_channel(wait_ms=SOON_MS), b"one") == [b"one", b"3 bytes"]
        await pool.aclose()


async def test_a_command_that_does_not_exist_fails_the_start() -> None:
    pool = WorkerPool(["/nonexistent/command"], size=1, backoff=RestartBackoff(first_ms=1))
    async with asyncio.timeout(30):
        with pytest.raises(WorkerLostError):
            await pool.start()
        await pool.aclose()


@pytest.mark.parametrize("loop_name", ["asyncio", "uvloop"])
def test_closing_leaves_no_child_and_no_task(loop_name: str) -> None:
    async def body() -> None:
        async with warm_pool(size=2) as pool:
            pids = pool.pids
            channel = await pool.open_channel(wait_ms=SOON_MS)
            await channel.send(b"one")
            assert await anext(channel) == b"one"
        with pytest.raises(WorkerLostError):
            await anext(channel)
        with pytest.raises(WorkerLostError):
            await pool.open_channel(wait_ms=0)
        assert not any(map(exists, pids))
        assert asyncio.all_tasks() == {asyncio.current_task()}

    with asyncio.Runner(
        loop_factory=uvloop.new_event_loop if loop_name == "uvloop" else None
    ) as runner:
        runner.run(body())


async def test_closing_is_bounded_although_a_child_hangs() -> None:
    async with warm_pool() as pool:
        (pid,) = pool.pids
        os.kill(pid, signal.SIGSTOP)
        async with asyncio.timeout(30):
            await pool.aclose()
        assert not exists(pid)


async def test_closing_while_starting_fails_the_start_and_leaves_nothing() -> None:
    pool = WorkerPool([*COMMAND, "--slow-start"], size=1)
    starting = asyncio.get_running_loop().create_task(pool.start())
    await until(lambda: len(asyncio.all_tasks()) == 4)  # this test, the start, the pool, its worker
    async with asyncio.timeout(30):
        await pool.aclose()
        with pytest.raises(WorkerLostError):
            await starting
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_signals_for_stopping_are_the_parents_matter() -> None:
    async with warm_pool() as pool:
        (pid,) = pool.pids
        os.kill(pid, signal.SIGINT)
        os.kill(pid, signal.SIGTERM)
        assert await ask(await pool.open_channel(wait_ms=SOON_MS), b"x") == [b"x", b"1 bytes"]
        assert pool.pids == (pid,)
        assert os.getpgid(pid) != os.getpgid(0)


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
async def test_children_give_way_and_inherit_no_sockets() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        os.set_inheritable(server.fileno(), True)
        async with warm_pool() as pool:
            answers = await ask(await pool.open_channel(wait_ms=SOON_MS), b"inherited", b"nice")
            # 0, 1, 2, the kept standard output, and the listing itself.
            assert len(answers[0].split(b",")) == 5
            assert int(answers[2]) == os.nice(0) + 3


@pytest.mark.skipif(sys.platform != "linux", reason="needs PR_SET_PDEATHSIG")
async def test_children_die_with_a_parent_that_is_killed() -> None:
    program = f"""
import asyncio
from voicechat.processes.pool import WorkerPool
async def main():
    pool = WorkerPool({COMMAND!r}, size=1)
    await pool.start()
    channel = await pool.open_channel(wait_ms=1000)
    await channel.send(b"hold the lock")
    print(pool.pids[0], flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE
    )
    assert parent.stdout is not None
    pid = int(await parent.stdout.readline())
    parent.kill()
    await parent.wait()
    # A zombie that nobody reaps here is dead, too.
    await until(lambda: not exists(pid) or "State:\tZ" in Path(f"/proc/{pid}/status").read_text())
