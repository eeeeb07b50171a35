"""Deadlines of a provider's items: kept one by one, whoever else cancels and whatever
the provider does about it.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest

from voicechat.errors import FailureKind, ProviderError
from voicechat.runtime.provider_deadlines import TimedItems


class Items:
    """Gives its items after pauses in seconds; None for one that never comes."""

    def __init__(self, *pauses_s: float | None) -> None:
        self.pauses_s = pauses_s
        self.closed = 0

    async def give(self) -> AsyncIterator[int]:
        try:
            for number, pause_s in enumerate(self.pauses_s):
                await asyncio.sleep(3600 if pause_s is None else pause_s)
                yield number
        finally:
            self.closed += 1


def now_s() -> float:
    return asyncio.get_running_loop().time()


async def test_each_item_has_its_own_deadline() -> None:
    items, begun_s = Items(4, 4, 4, None), now_s()
    async with TimedItems(items.give(), "it is late") as timed:
        for number in range(3):
            assert await timed.next_item(now_s() + 5) == number
        with pytest.raises(ProviderError, match="it is late") as raised:
            await timed.next_item(now_s() + 5)
        assert raised.value.kind is FailureKind.TIMEOUT
    assert now_s() - begun_s == pytest.approx(17, abs=0.01)
    assert items.closed == 1
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_a_deadline_may_be_earlier_than_the_one_before() -> None:
    begun_s = now_s()
    async with TimedItems(Items(0, None).give(), "late") as timed:
        assert await timed.next_item(now_s() + 100) == 0
        with pytest.raises(ProviderError):
            await timed.next_item(now_s() + 1)
    assert now_s() - begun_s == pytest.approx(1, abs=0.01)


async def test_between_the_items_no_time_counts() -> None:
    faults = list[dict[str, Any]]()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))
    async with TimedItems(Items(0, 0).give(), "late") as timed:
        assert await timed.next_item(now_s() + 1) == 0
        await asyncio.sleep(10)
        assert await timed.next_item(now_s() + 1) == 1
        assert await timed.next_item(now_s() + 1) is None
    assert faults == []


async def test_cancelling_is_not_lateness() -> None:
    items = Items(None)

    async def take() -> None:
        async with TimedItems(items.give(), "late") as timed:
            await timed.next_item(now_s() + 10)

    task = asyncio.get_running_loop().create_task(take())
    await asyncio.sleep(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert items.closed == 1


async def test_cancelling_in_the_moment_of_the_deadline_cancels() -> None:
    async def take() -> None:
        async with TimedItems(Items(None).give(), "late") as timed:
            await timed.next_item(due_s)

    loop = asyncio.get_running_loop()
    due_s = loop.time() + 1
    task = loop.create_task(take())
    loop.call_at(due_s, task.cancel)
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_outer_deadline_is_not_mistaken_for_the_items() -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1), TimedItems(Items(None).give(), "late") as timed:
            await timed.next_item(now_s() + 1)


async def test_an_item_that_comes_in_spite_of_the_deadline_is_taken() -> None:
    async def stubborn() -> AsyncIterator[str]:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(3600)
        yield "late, but here"
        yield "next"
        await asyncio.sleep(3600)

    async with TimedItems(stubborn(), "late") as timed:
        assert await timed.next_item(now_s() + 1) == "late, but here"
        assert await timed.next_item(now_s() + 1) == "next"
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        with pytest.raises(ProviderError):
            await timed.next_item(now_s() + 1)


async def test_cancelling_after_an_item_that_came_late_cancels() -> None:
    async def late_once() -> AsyncIterator[str]:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(3600)
        yield "late, but here"
        await asyncio.sleep(3600)

    async def take() -> None:
        async with TimedItems(late_once(), "late") as timed:
            assert await timed.next_item(now_s() + 1) == "late, but here"
            await timed.next_item(now_s() + 100)

    task = asyncio.get_running_loop().create_task(take())
    await asyncio.sleep(2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_what_a_provider_must_not_raise_is_no_exception_of_ours(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def broken() -> AsyncIterator[int]:
        raise KeyError("what was said")
        yield 0

    async with TimedItems(broken(), "late") as timed:
        with pytest.raises(ProviderError) as raised:
            await timed.next_item(now_s() + 1)
    assert raised.value.kind is FailureKind.BROKEN
    assert "KeyError" in caplog.text
    assert "what was said" not in caplog.text


async def test_no_timer_is_left() -> None:
    async with TimedItems(Items(0).give(), "late") as timed:
        assert await timed.next_item(now_s() + 50) == 0
        timer = timed._timer
        assert timer is not None
    assert timer.cancelled()
