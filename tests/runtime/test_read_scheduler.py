"""Which sockets are left alone while the event loop is late, and for how long."""

import asyncio

import pytest

from voicechat.runtime.loop_lateness import HOLD_S, LATE_S, VERY_LATE_S, Lateness, LoopLateness
from voicechat.runtime.read_scheduler import (
    ANSWERED_S,
    LEAST_PER_S,
    MOST_PER_S,
    SILENT_S,
    SPEAKING_S,
    ReadScheduler,
)
from voicechat.testing.socket import MemorySocket

TICK_S = 0.02


class Loop:
    """Ticks a scheduler as the measuring timer does."""

    def __init__(self) -> None:
        self.reads = ReadScheduler()

    async def pass_time(self, time_s: float, lag_s: float) -> None:
        now_s = asyncio.get_running_loop().time
        end_s = now_s() + time_s
        while now_s() < end_s:
            await asyncio.sleep(TICK_S)
            self.reads.tick(now_s(), lag_s)


def test_one_pause_is_not_late_and_lateness_falls_step_by_step() -> None:
    lateness = LoopLateness()
    for tick in range(50):
        lateness.add_lag(tick * TICK_S, 0.045 if tick == 20 else 0.0)
        assert lateness.level is Lateness.ON_TIME
    levels = []
    for tick in range(50, 400):
        lateness.add_lag(tick * TICK_S, 2 * VERY_LATE_S if tick < 100 else 0.0)
        levels.append(lateness.level)
    assert [level for level, before in zip(levels, [None, *levels], strict=False) if level is not before] == [
        Lateness.LATE, Lateness.VERY_LATE, Lateness.LATE, Lateness.ON_TIME,
    ]  # fmt: skip
    held = levels.index(Lateness.ON_TIME) - 50
    assert held * TICK_S == pytest.approx(2 * HOLD_S, abs=0.2)


async def test_who_speaks_is_read_soon_and_who_is_silent_later() -> None:
    loop, speaking, answered, silent = Loop(), MemorySocket(), MemorySocket(), MemorySocket()
    await loop.pass_time(0.2, 2 * LATE_S)
    assert loop.reads.late
    loop.reads.put_off(speaking, silent=False)
    loop.reads.put_off(answered, silent=False, answered=True)
    loop.reads.put_off(silent, silent=True, answered=True)
    assert (speaking.reading, answered.reading, silent.reading) == (False, False, False)
    await loop.pass_time(SPEAKING_S + TICK_S, 2 * LATE_S)
    assert (speaking.reading, answered.reading, silent.reading) == (True, False, False)
    await loop.pass_time(ANSWERED_S - SPEAKING_S, 2 * LATE_S)
    assert (answered.reading, silent.reading) == (True, False)
    await loop.pass_time(SILENT_S, 2 * LATE_S)
    assert silent.reading


async def test_however_late_the_loop_is_silent_sockets_are_read_in_turn() -> None:
    loop = Loop()
    await loop.pass_time(1, 1.0)
    sockets = [MemorySocket() for _ in range(300)]
    for socket in sockets:
        loop.reads.put_off(socket, silent=True)
    await loop.pass_time(SILENT_S + 1, 1.0)
    read = [socket.reading for socket in sockets]
    assert read == sorted(read, reverse=True), "the oldest first"
    assert sum(read) == pytest.approx(LEAST_PER_S, rel=0.3)
    await loop.pass_time(len(sockets) / LEAST_PER_S, 1.0)
    assert all(socket.reading for socket in sockets)


async def test_more_silent_sockets_are_read_as_the_loop_has_time() -> None:
    loop = Loop()
    await loop.pass_time(1, 1.0)
    await loop.pass_time(HOLD_S, 0.0)
    assert loop.reads.late, "still: this is what keeps it on time"
    sockets = [MemorySocket() for _ in range(300)]
    for socket in sockets:
        loop.reads.put_off(socket, silent=True)
    await loop.pass_time(SILENT_S + 0.3, 0.0)
    assert sum(socket.reading for socket in sockets) > 0.3 * 5 * LEAST_PER_S
    await loop.pass_time(MOST_PER_S / 1_000, 0.0)
    assert all(socket.reading for socket in sockets)


async def test_on_time_again_everybody_is_read() -> None:
    loop, socket = Loop(), MemorySocket()
    await loop.pass_time(1, 1.0)
    loop.reads.put_off(socket, silent=True)
    await loop.pass_time(4 * HOLD_S, 0.0)
    assert not loop.reads.late
    assert socket.reading


async def test_nothing_stays_paused_when_a_session_or_the_measuring_ends() -> None:
    reads = ReadScheduler()
    for silent, answered in ((True, True), (False, True), (False, False)):
        ended, other = MemorySocket(), MemorySocket()
        for socket in (ended, other):
            reads.put_off(socket, silent=silent, answered=answered)
            reads.put_off(socket, silent=False)
        reads.forget(ended)
        assert (ended.reading, other.reading) == (True, False)
        reads.resume_all()
        assert other.reading
        reads.forget(ended)
