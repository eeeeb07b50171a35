import asyncio

import pytest

from voicechat.errors import Status
from voicechat.server import auth_throttle
from voicechat.server.auth_throttle import FREE_FAILURES, LONGEST_DELAY_S, MAX_WAITING, AuthThrottle
from voicechat.store.quotas import QuotaExceededError


async def waited_s(failed: AuthThrottle, address: str) -> float:
    loop = asyncio.get_running_loop()
    before_s = loop.time()
    await failed.delay_refusal(address)
    return loop.time() - before_s


async def test_the_first_failures_cost_nothing_and_each_later_one_twice_as_much_up_to_a_bound() -> (
    None
):
    failed = AuthThrottle()
    waits_s = [await waited_s(failed, "10.0.0.1") for _ in range(FREE_FAILURES + 10)]
    assert waits_s[:FREE_FAILURES] == [0.0] * FREE_FAILURES
    assert waits_s[FREE_FAILURES : FREE_FAILURES + 4] == pytest.approx(
        [0.1, 0.2, 0.4, 0.8], abs=0.01
    )
    assert max(waits_s) == pytest.approx(LONGEST_DELAY_S, abs=0.01)


async def test_other_addresses_are_not_slowed_and_a_v6_network_is_one_address() -> None:
    failed = AuthThrottle()
    for number in range(FREE_FAILURES):
        await failed.delay_refusal(f"2001:db8::{number}")
    assert await waited_s(failed, "2001:db8::ffff") > 0
    assert await waited_s(failed, "2001:db8:0:1::1") == 0
    assert await waited_s(failed, "10.0.0.1") == 0


async def test_an_address_that_was_quiet_is_as_new() -> None:
    failed = AuthThrottle()
    for _ in range(FREE_FAILURES + 1):
        await failed.delay_refusal("10.0.0.1")
    await asyncio.sleep(auth_throttle.FORGET_S + 1)
    assert await waited_s(failed, "10.0.0.1") == 0


async def test_refusals_that_wait_are_bounded_for_each_address() -> None:
    failed = AuthThrottle()
    for _ in range(FREE_FAILURES + 10):
        await failed.delay_refusal("10.0.0.1")
    async with asyncio.TaskGroup() as tasks:
        for _ in range(MAX_WAITING):
            tasks.create_task(failed.delay_refusal("10.0.0.1"))
        await asyncio.sleep(0)
        with pytest.raises(QuotaExceededError) as refused:
            await failed.delay_refusal("10.0.0.1")
        assert await waited_s(failed, "10.0.0.2") == 0
    assert refused.value.status is Status.QUOTA
    assert await waited_s(failed, "10.0.0.1") > 0, "the places are free again"


async def test_the_table_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth_throttle, "MAX_ADDRESSES", 3)
    failed = AuthThrottle()
    for number in range(10):
        await failed.delay_refusal(f"10.0.0.{number}")
    assert len(failed) == 3
