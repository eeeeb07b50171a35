"""One child for the pools of several processes, which are played here by several pools."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from tests.processes.test_pool import COMMAND, SOON_MS, ask, exists, until
from voicechat.processes.errors import JobFailedError, WorkerLostError
from voicechat.processes.pool import RestartBackoff, WorkerPool
from voicechat.processes.shared_children import ChildHost
from voicechat.processes.worker import WorkerLimits

pytestmark = [
    pytest.mark.real_time,
    pytest.mark.skipif(sys.platform == "win32", reason="Windows has no local sockets"),
]


@asynccontextmanager
async def pools(folder: Path, count: int = 2, *more: str) -> AsyncIterator[list[WorkerPool]]:
    """Pools that share the child of a host."""
    path = folder / "children.sock"
    limits = WorkerLimits(channels=2, window_bytes=1000)
    backoff = RestartBackoff(first_ms=1, most_ms=10)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(ChildHost().listening(path))
        made = []
        for _ in range(count):
            pool = WorkerPool([*COMMAND, *more], size=1, limits=limits, backoff=backoff, host=path)
            stack.push_async_callback(pool.aclose)
            made.append(pool)
        yield made


async def test_pools_share_one_child_and_each_gets_its_own_answers(tmp_path: Path) -> None:
    async with asyncio.timeout(60), pools(tmp_path) as (one, other):
        await asyncio.gather(one.start(), other.start())
        assert one.pids == other.pids != ()
        mine = await one.open_channel(b"1> ", wait_ms=SOON_MS)
        theirs = await other.open_channel(b"2> ", wait_ms=SOON_MS)
        long = b"x" * 5_000
        answers = await asyncio.gather(ask(mine, b"a", long), ask(theirs, b"b"))
        assert answers[0] == [b"1> a", b"1> " + long, b"5001 bytes"]
        assert answers[1] == [b"2> b", b"1 bytes"]
        failing = await one.open_channel(wait_ms=SOON_MS)
        with pytest.raises(JobFailedError, match="the job raised ValueError"):
            await ask(failing, b"raise")
        (pid,) = one.pids
        await one.aclose()
        assert await ask(await other.open_channel(b"> ", wait_ms=SOON_MS), b"c") == [
            b"> c",
            b"1 bytes",
        ], "the other process goes on"
        assert exists(pid)
    await until(lambda: not exists(pid))


async def test_a_job_that_is_closed_ends_in_the_child_too(tmp_path: Path) -> None:
    async with asyncio.timeout(60), pools(tmp_path, 1) as (pool,):
        counting = await pool.open_channel(wait_ms=SOON_MS)
        await counting.send(b"count")
        assert await anext(counting) == b"1"
        counting.close()
        asking = await pool.open_channel(wait_ms=SOON_MS)
        assert (await ask(asking, b"open jobs"))[0] == b"1"


@pytest.mark.long
async def test_a_killed_child_is_replaced_for_all(tmp_path: Path) -> None:
    async with asyncio.timeout(60), pools(tmp_path) as both:
        await asyncio.gather(*(pool.start() for pool in both))
        (before,) = both[0].pids
        lost = [await pool.open_channel(wait_ms=SOON_MS) for pool in both]
        os.kill(before, signal.SIGKILL)
        for channel in lost:
            with pytest.raises(WorkerLostError):
                await ask(channel, b"sleep 60")
        for pool in both:
            again = await pool.open_channel(b"> ", wait_ms=SOON_MS)
            assert (await ask(again, b"a"))[0] == b"> a"
        assert both[0].pids == both[1].pids != (before,)


@pytest.mark.long
async def test_the_reason_of_a_child_that_cannot_load_reaches_every_pool(tmp_path: Path) -> None:
    async with asyncio.timeout(60), pools(tmp_path, 2, "--refuse") as both:
        for pool in both:
            with pytest.raises(WorkerLostError, match="no such model"):
                await pool.start()
