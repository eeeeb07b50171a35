"""A store that is slow or away holds nothing up, and is asked again when it works."""

import asyncio
import logging

import pytest

from voicechat.runtime.guarded_store import GuardedStore, StoreCalled
from voicechat.runtime.lease_keeper import RENEW_S, LeaseKeeper
from voicechat.store.resumption.interface import (
    MAX_STATE_BYTES,
    Lease,
    LeaseLostError,
    StateTooLargeError,
    StoreUnavailableError,
)
from voicechat.store.resumption.memory import MemoryResumptionStore
from voicechat.testing.faulty_store import FaultyStore

DEADLINE_S = 1.0
LIFETIME_S = 40.0


class Guarded:
    """A guarded store that can be made to fail, and what it has reported."""

    def __init__(self) -> None:
        self.kept = MemoryResumptionStore(LIFETIME_S)
        self.faulty = FaultyStore(self.kept)
        self.calls: list[tuple[str, str]] = []
        self.took_s: list[float] = []
        self.store = GuardedStore(self.faulty, DEADLINE_S, self._note)

    def _note(self, call: StoreCalled) -> None:
        self.calls.append((call.operation, call.outcome))
        self.took_s.append(call.took_s)


def now_s() -> float:
    return asyncio.get_running_loop().time()


async def test_an_operation_is_counted_with_its_outcome() -> None:
    guarded = Guarded()
    lease, _ = await guarded.store.acquire("c", "one")
    await guarded.store.save(lease, b"state")
    await guarded.store.acquire("c", "two")
    with pytest.raises(LeaseLostError):
        await guarded.store.save(lease, b"old")
    with pytest.raises(StateTooLargeError, match=str(MAX_STATE_BYTES)):
        await guarded.store.save(lease, bytes(MAX_STATE_BYTES + 1))
    assert guarded.calls == [
        ("acquire", "done"),
        ("save", "done"),
        ("acquire", "done"),
        ("save", "lost"),
        ("save", "too_large"),
    ]


@pytest.mark.parametrize("delay_s", [2.0, float("inf")])
async def test_a_store_that_answers_late_or_never_is_given_up_at_the_deadline(
    delay_s: float,
) -> None:
    guarded = Guarded()
    guarded.faulty.delay_s = delay_s
    began_s = now_s()
    with pytest.raises(StoreUnavailableError):
        await guarded.store.save(Lease("c", "one", 1), b"state")
    assert now_s() - began_s == pytest.approx(DEADLINE_S)
    assert guarded.calls == [("save", "late")]


async def test_a_store_that_keeps_failing_is_not_asked_until_a_trial_succeeds(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    guarded = Guarded()
    guarded.faulty.delay_s = float("inf")
    for _ in range(3):
        with pytest.raises(StoreUnavailableError):
            await guarded.store.renew([])
    began_s = now_s()
    for _ in range(100):
        with pytest.raises(StoreUnavailableError):
            await guarded.store.renew([])
    assert now_s() == began_s
    assert guarded.faulty.calls == 3
    assert guarded.calls[3:] == [("renew", "refused")] * 100
    guarded.faulty.delay_s = 0.0
    await asyncio.sleep(1.0)
    await guarded.store.renew([])
    assert guarded.calls[-1] == ("renew", "done")
    assert [record.levelname for record in caplog.records] == ["ERROR", "INFO"]


async def test_a_cancelled_operation_counts_neither_as_success_nor_as_failure() -> None:
    guarded = Guarded()
    guarded.faulty.delay_s = float("inf")
    for _ in range(5):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await guarded.store.renew([])
    guarded.faulty.delay_s = 0.0
    await guarded.store.renew([])
    assert guarded.calls == [("renew", "done")]


async def test_a_saved_state_whose_answer_was_lost_can_be_saved_again() -> None:
    guarded = Guarded()
    lease, _ = await guarded.store.acquire("c", "one")
    guarded.faulty.forgets_answers = True
    with pytest.raises(StoreUnavailableError):
        await guarded.store.save(lease, b"state")
    guarded.faulty.forgets_answers = False
    await guarded.store.save(lease, b"state")
    assert (await guarded.store.acquire("c", "two"))[1] == b"state"


async def test_a_silent_conversation_does_not_expire_while_its_lease_is_held() -> None:
    guarded = Guarded()
    lease, _ = await guarded.store.acquire("c", "one")
    await guarded.store.save(lease, b"state")
    keeper = LeaseKeeper(guarded.store)
    async with keeper.renewing():
        keeper.hold(lease, pytest.fail, pytest.fail)
        await asyncio.sleep(10 * LIFETIME_S)
    assert (await guarded.store.acquire("c", "two"))[1] == b"state"
    await asyncio.sleep(LIFETIME_S + 1)
    assert (await guarded.store.acquire("c", "three"))[1] is None


async def test_the_old_owner_is_told_within_two_seconds_and_only_once() -> None:
    guarded = Guarded()
    lease, _ = await guarded.store.acquire("c", "one")
    await guarded.store.save(lease, b"state")
    lost: list[float] = []
    keeper = LeaseKeeper(guarded.store)
    async with keeper.renewing():
        keeper.hold(lease, lambda: lost.append(now_s()), pytest.fail)
        await asyncio.sleep(10.5)
        taken_s = now_s()
        await guarded.store.acquire("c", "two")
        await asyncio.sleep(10)
    assert len(lost) == 1
    assert lost[0] - taken_s <= RENEW_S
    assert len(keeper) == 0


async def test_an_owner_is_asked_for_its_state_again_when_the_store_has_lost_it() -> None:
    guarded = Guarded()
    lease, _ = await guarded.store.acquire("c", "one")
    await guarded.store.save(lease, b"state")
    missing = asyncio.Event()
    keeper = LeaseKeeper(guarded.store)
    async with keeper.renewing():
        keeper.hold(lease, pytest.fail, missing.set)
        guarded.faulty.fails = True
        await asyncio.sleep(60)
        assert not missing.is_set()
        guarded.kept.forget_everything()
        guarded.faulty.fails = False
        await missing.wait()
    await guarded.store.save(lease, b"again")
    assert (await guarded.store.acquire("c", "two"))[1] == b"again"


async def test_a_released_lease_is_not_renewed() -> None:
    guarded = Guarded()
    lease, _ = await guarded.store.acquire("c", "one")
    await guarded.store.save(lease, b"state")
    keeper = LeaseKeeper(guarded.store)
    keeper.hold(lease, pytest.fail, pytest.fail)
    keeper.release(lease)
    keeper.release(lease)
    async with keeper.renewing():
        await asyncio.sleep(LIFETIME_S + 1)
    assert (await guarded.store.acquire("c", "two"))[1] is None
