import sqlite3

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voicechat.errors import Status
from voicechat.store.access import Quota
from voicechat.store.ledger import Ledger
from voicechat.store.quotas import DAY_S, Account, Accounts, QuotaExceededError
from voicechat.store.session_slots import SessionSlots


class Wall:
    """A wall clock that a test sets."""

    def __init__(self, unix_s: float = 20_000.0 * DAY_S) -> None:
        self.unix_s = unix_s

    def __call__(self) -> float:
        return self.unix_s


def account(wall: Wall | None = None, **quota: int) -> Account:
    return Account(Quota(**quota), wall or Wall())


def test_without_a_quota_everything_is_allowed() -> None:
    free = account()
    for _ in range(1000):
        free.begin_request(0)
        free.enter_session()
    free.use_audio(10**12)
    assert not free.audio_used_up


def test_a_minutes_requests_may_come_at_once_and_then_one_at_a_time() -> None:
    limited = account(requests_per_minute=6)
    for _ in range(6):
        limited.begin_request(100.0)
    with pytest.raises(
        QuotaExceededError, match="6 requests a minute; try again in 10 s"
    ) as refused:
        limited.begin_request(100.0)
    assert refused.value.status is Status.QUOTA
    assert refused.value.retry_after_s == 10
    with pytest.raises(QuotaExceededError):
        limited.begin_request(109.9)
    limited.begin_request(110.0)
    with pytest.raises(QuotaExceededError):
        limited.begin_request(110.0)


@given(
    st.integers(1, 1000),
    st.lists(st.floats(0, 30, allow_nan=False), max_size=60),
)
def test_no_more_than_twice_the_quota_passes_in_any_minute_and_whoever_waits_as_told_is_let_in(
    allowed: int, gaps_s: list[float]
) -> None:
    limited = account(requests_per_minute=allowed)
    now_s, passed = 0.0, []
    for gap_s in gaps_s:
        now_s += gap_s
        try:
            limited.begin_request(now_s)
        except QuotaExceededError as refused:
            now_s += refused.retry_after_s
            limited.begin_request(now_s)  # must pass now: whoever waits as told is let in
        passed.append(now_s)
    for start_s in passed:
        assert sum(start_s <= at_s < start_s + 60 for at_s in passed) <= 2 * allowed


async def test_sessions_are_counted_while_they_last() -> None:
    limited = account(max_sessions=2)
    async with limited.session(), limited.session():
        with pytest.raises(QuotaExceededError, match="2 sessions at once"):
            limited.enter_session()
        assert limited.sessions == 2
    async with limited.session():
        assert limited.sessions == 1
    assert limited.sessions == 0


def test_audio_is_counted_by_the_day_and_the_wait_lasts_until_midnight() -> None:
    wall = Wall(20_000.0 * DAY_S + DAY_S - 90.5)
    limited = account(wall, audio_seconds_per_day=10)
    limited.use_audio(9_999)
    limited.enter_session()
    limited.use_audio(1)
    assert limited.audio_used_up
    with pytest.raises(QuotaExceededError, match="10 s of audio a day") as refused:
        limited.enter_session()
    assert refused.value.retry_after_s == 91
    limited.enter_session(uses_audio=False)
    wall.unix_s += 91
    assert not limited.audio_used_up
    limited.enter_session()


def test_a_book_keeps_one_account_per_key_and_forgets_keys_that_are_gone() -> None:
    book = Accounts(Wall())
    quota = Quota(audio_seconds_per_day=1)
    first, second, idle = (book.account_of(name, quota) for name in ("first", "second", "idle"))
    assert book.account_of("first", quota) is first
    first.enter_session()
    second.enter_session()
    first.use_audio(1000)
    idle.use_audio(1000)
    assert book.used_up() == {"first"}
    book.close_all_but({"second"})
    assert book.account_of("first", quota) is first, "its session still goes on"
    assert book.account_of("idle", quota) is not idle
    first.leave_session()
    book.close_all_but({"second"})
    assert book.account_of("first", quota) is not first
    assert book.account_of("second", quota) is second


class FailingLedger(Ledger):
    """Cannot be written while it is told so."""

    failing = False

    def execute(self, statement: str, *values: object) -> int:
        if self.failing:
            raise sqlite3.OperationalError("database or disk is full")
        return super().execute(statement, *values)


def test_what_cannot_be_written_down_is_written_later_and_nothing_ends_for_it() -> None:
    ledger = FailingLedger()
    used = Account(Quota(max_sessions=2, audio_seconds_per_day=10), Wall(), ledger, "key")
    places = SessionSlots(ledger, "session", 2)
    for _ in range(2):
        used.enter_session()
        assert places.try_acquire_slot()
    ledger.failing = True
    used.use_audio(6_000)
    used.use_audio(3_000)
    used.leave_session()
    places.release_slot()
    assert used.sessions == 1
    ledger.failing = False
    used.enter_session()
    assert places.try_acquire_slot()
    assert not places.try_acquire_slot()
    with pytest.raises(QuotaExceededError, match="2 sessions"):
        used.enter_session()
    used.use_audio(1_000)
    assert used.audio_used_up
