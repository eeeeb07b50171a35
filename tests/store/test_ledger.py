"""What several processes count together: here each is a ledger of its own on the same
file.
"""

import asyncio
import gc
import multiprocessing
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from voicechat.errors import AtCapacityError
from voicechat.store.access import Quota, Scope
from voicechat.store.ledger import Ledger
from voicechat.store.quotas import Account, Accounts, QuotaExceededError
from voicechat.store.session_slots import SessionSlots
from voicechat.store.tokens import TokenGrant, TokenStore


@pytest.fixture
def two(tmp_path: Path) -> tuple[Ledger, Ledger]:
    return Ledger(tmp_path / "ledger", 0), Ledger(tmp_path / "ledger", 1)


def noon() -> float:
    return 20_000.5 * 86_400


def test_places_are_those_of_all(two: tuple[Ledger, Ledger]) -> None:
    first, second = (SessionSlots(ledger, "session", 3) for ledger in two)
    assert first.try_acquire_slot()
    assert second.try_acquire_slot()
    assert second.try_acquire_slot()
    assert not first.try_acquire_slot()
    assert (first.slots_in_use, second.slots_by_worker) == (3, {0: 1, 1: 2})
    second.release_slot()
    assert first.try_acquire_slot()
    assert SessionSlots(two[0], "request", 3).slots_in_use == 0


def test_what_a_dead_process_held_is_free_and_what_it_used_is_not(
    two: tuple[Ledger, Ledger],
) -> None:
    ours, theirs = two
    quota = Quota(max_sessions=2, audio_seconds_per_day=10)
    account, lost = (Account(quota, noon, ledger, "k") for ledger in two)
    for _ in range(2):
        assert SessionSlots(theirs, "session", 2).try_acquire_slot()
        lost.enter_session()
    lost.use_audio(9_000)
    theirs.register_worker(4711)
    assert not SessionSlots(ours, "session", 2).try_acquire_slot()
    with pytest.raises(QuotaExceededError, match="2 sessions"):
        account.enter_session()
    ours.remove_worker(1)
    assert ours.processes() == {}
    assert SessionSlots(ours, "session", 2).try_acquire_slot()
    account.enter_session()
    account.use_audio(1_000)
    assert account.audio_used_up


def test_sessions_audio_and_requests_of_a_key_are_those_of_all(two: tuple[Ledger, Ledger]) -> None:
    quota = Quota(max_sessions=2, requests_per_minute=3, audio_seconds_per_day=5)
    first, second = (Accounts(noon, ledger).account_of("k", quota) for ledger in two)
    other = Accounts(noon, two[0]).account_of("other", quota)
    first.enter_session()
    second.enter_session()
    for account in (first, second):
        with pytest.raises(QuotaExceededError, match="2 sessions"):
            account.enter_session()
    first.leave_session()
    second.use_audio(4_999)
    first.enter_session()
    first.use_audio(1)
    assert first.audio_used_up
    assert not second.audio_used_up, "a millisecond is not worth telling"
    first.use_audio(999)
    assert second.audio_used_up
    for account in (first, second, first):
        account.begin_request(100.0)
    with pytest.raises(QuotaExceededError, match="try again in 20 s"):
        second.begin_request(100.0)
    other.enter_session()
    other.begin_request(100.0)


def test_a_token_is_accepted_once_by_whichever(two: tuple[Ledger, Ledger]) -> None:
    first, second = (TokenStore(ledger) for ledger in two)
    grant = TokenGrant(key_id="k", scope=Scope(projects=("p",)), origin="https://app.example")
    token = first.issue_token(grant, 60, now_s=0)
    assert second.redeem_token(token, now_s=1) == grant
    assert first.redeem_token(token, now_s=1) is None


def _count_for_ever(path: Path, worker: int) -> None:
    ledger = Ledger(path, worker)
    places = SessionSlots(ledger, "session", 10)
    while True:
        places.try_acquire_slot()
        places.release_slot()
        time.sleep(
            0.0005
        )  # without a pause SQLite lets nobody else in: whoever waits sleeps longer and longer


@pytest.mark.real_time
def test_a_process_that_is_killed_in_the_middle_harms_nobody(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    ours = Ledger(path, 0)
    places = SessionSlots(ours, "session", 10)
    spawning = multiprocessing.get_context("spawn")
    for worker in range(1, 4):
        process = spawning.Process(target=_count_for_ever, args=(path, worker))
        process.start()
        while worker not in places.slots_by_worker:
            pass
        for _ in range(200):
            assert places.try_acquire_slot()
            places.release_slot()
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        ours.remove_worker(worker)
        assert places.slots_in_use == 0
    assert ours.fetch_value("PRAGMA integrity_check") == "ok"


def test_a_ledger_that_is_let_go_in_another_thread_is_closed() -> None:
    held = [Ledger()]
    with ThreadPoolExecutor(1) as thread:
        thread.submit(held.clear).result()
    gc.collect()  # what it could not do would be an unraisable exception, which fails the test
    assert held == []


async def test_an_event_loop_does_not_wait_for_a_lock(two: tuple[Ledger, Ledger]) -> None:
    ours, theirs = two
    ours.stop_waiting()
    places, account = SessionSlots(ours, "session", 3), Account(Quota(), noon, ours, "k")
    assert places.try_acquire_slot()
    account.enter_session()
    loop = asyncio.get_running_loop()
    with theirs.transaction():
        for _ in range(3):
            with pytest.raises(AtCapacityError, match="busy"):
                places.try_acquire_slot()
        assert ours.fetch_value("PRAGMA busy_timeout") == 0, "only the first of them waited"
        places.release_slot()
        account.leave_session()
        newcomers = [loop.create_task(ours.until_free()) for _ in range(20)]
        await asyncio.sleep(1)
        assert not any(newcomer.done() for newcomer in newcomers)
    await asyncio.gather(*newcomers)
    assert ours.fetch_value("PRAGMA busy_timeout") > 0
    assert places.try_acquire_slot()
    assert (places.slots_in_use, account.sessions) == (1, 0), "what was given back is told now"


async def test_a_lock_that_is_never_given_back_refuses_newcomers_in_two_seconds(
    two: tuple[Ledger, Ledger],
) -> None:
    ours, theirs = two
    ours.stop_waiting()
    loop = asyncio.get_running_loop()
    with theirs.transaction():
        newcomers = [loop.create_task(ours.until_free()) for _ in range(20)]
        began_s = loop.time()
        told = await asyncio.gather(*newcomers, return_exceptions=True)
        assert loop.time() - began_s == 2
    assert {type(error) for error in told} == {AtCapacityError}
    await ours.until_free()
