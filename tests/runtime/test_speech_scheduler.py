"""In which order replies go on while the event loop is late."""

import asyncio

from voicechat.runtime.loop_lateness import LATE_S
from voicechat.runtime.speech_scheduler import LEAST, MOST, TICK_S, SpeechScheduler
from voicechat.testing.virtual_time import VirtualTimeLoop


class Crowd:
    """Replies that wait, and the order in which they go on."""

    def __init__(self) -> None:
        self.scheduler = SpeechScheduler()
        self.gone_on: list[int] = []
        self.tasks: list[asyncio.Task[None]] = []

    def waits(self, number: int, in_hand_s: float) -> None:
        self.tasks.append(asyncio.get_running_loop().create_task(self._wait(number, in_hand_s)))

    async def _wait(self, number: int, in_hand_s: float) -> None:
        await self.scheduler.wait(in_hand_s)
        self.gone_on.append(number)


async def test_those_go_on_first_whose_listeners_run_out_of_audio_first() -> None:
    crowd = Crowd()
    in_hand_s = [(7 * number % 40) / 100 - 0.1 for number in range(40)]
    for number, each_s in enumerate(in_hand_s):
        crowd.waits(number, each_s)
    await asyncio.gather(*crowd.tasks)
    assert crowd.gone_on == sorted(range(40), key=lambda number: in_hand_s[number])


async def test_who_waits_longer_goes_before_who_has_as_much_in_hand() -> None:
    crowd = Crowd()
    for number in range(3 * LEAST):
        crowd.waits(number, 0.0)
    await asyncio.sleep(1.5 * TICK_S)
    crowd.waits(100, 0.0)
    await asyncio.gather(*crowd.tasks)
    assert crowd.gone_on == [*range(3 * LEAST), 100]


async def test_more_go_on_with_each_tick_that_is_on_time() -> None:
    crowd = Crowd()
    for number in range(4 * MOST):
        crowd.waits(number, 0.0)
    await asyncio.sleep(TICK_S / 2)
    with_each_tick = []
    while len(crowd.gone_on) < 4 * MOST:
        before = len(crowd.gone_on)
        await asyncio.sleep(TICK_S)
        with_each_tick.append(len(crowd.gone_on) - before)
    assert with_each_tick[0] == LEAST * 3 // 2
    assert max(with_each_tick) == MOST
    assert with_each_tick[:-1] == sorted(with_each_tick[:-1])


async def test_the_least_go_on_with_each_tick_that_is_late() -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    crowd = Crowd()
    for number in range(5 * LEAST):
        crowd.waits(number, 0.0)
    await asyncio.sleep(TICK_S / 2)
    with_each_tick = []
    while len(crowd.gone_on) < 5 * LEAST:
        before = len(crowd.gone_on)
        loop.call_soon(hold_up, loop)  # after the timers were set, before they fire
        await asyncio.sleep(TICK_S)
        with_each_tick.append(len(crowd.gone_on) - before)
    assert with_each_tick == [LEAST] * 5


def hold_up(loop: VirtualTimeLoop) -> None:
    """Let time pass as a computation on the event loop does."""
    loop._jumping.now_s += TICK_S + 2 * LATE_S


async def test_a_reply_that_is_stopped_takes_nobodys_turn() -> None:
    crowd = Crowd()
    for number in range(2 * LEAST):
        crowd.waits(number, 0.0)
    await asyncio.sleep(0)
    for task in crowd.tasks[:LEAST]:
        task.cancel()
    await asyncio.gather(*crowd.tasks[LEAST:])
    assert crowd.gone_on == [*range(LEAST, 2 * LEAST)]
