"""The usage of each key, checked against its quota.

It is counted for all processes of the server, and starts at 0 when the server restarts.
"""

import logging
import math
import sqlite3
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from typing import Protocol

from voicechat.errors import AdmissionError, Status
from voicechat.store.access import Quota
from voicechat.store.ledger import Ledger

_log = logging.getLogger(__name__)

DAY_S = 86_400
MINUTE_S = 60.0
WRITE_DOWN_MS = 1000
"""Audio is written to the ledger in portions of 1 s for each session in progress: a
write takes 20 us, and 100 sessions of one key use 150 s of audio a second.
"""
SESSION_RETRY_S = 5
"""Seconds that a client is asked to wait while all sessions of its key are in use: an
estimate of when one ends.
"""


class QuotaExceededError(AdmissionError):
    """A quota is used up. ``retry_after_s``: whole seconds after which a retry may
    succeed.
    """

    def __init__(self, message: str, retry_after_s: int) -> None:
        super().__init__(Status.QUOTA, f"{message}; try again in {retry_after_s} s")
        self.retry_after_s = retry_after_s


class SharedPlaces(Protocol):
    """A key's places for sessions on all machines of a cluster."""

    async def reserve(self) -> str:
        """Reserve a place, and return its name. Raises ``QuotaExceededError``."""

    def settle(self, reservation: str) -> None:
        """Note that the session has begun and is counted, or will not begin."""

    def note_end(self) -> None:
        """Note that a session has ended."""


class Account:
    """The usage of one key. ``unix_s`` returns the wall clock, which decides when a day
    begins.
    """

    def __init__(
        self,
        quota: Quota,
        unix_s: Callable[[], float],
        ledger: Ledger | None = None,
        key_id: str = "",
    ) -> None:
        """Without a ``ledger`` only this object counts the key's usage."""
        self.quota = quota
        self._unix_s = unix_s
        self._ledger = ledger or Ledger()
        self.key_id = key_id
        self._sessions = 0
        self._day = 0
        self._unwritten_ms = 0
        self._unwritten_sessions = 0
        self._own_today_ms = 0
        self.audio_elsewhere_ms = 0
        """Audio that other processes of a cluster have used today, as far as known."""
        self.shared: SharedPlaces | None = None
        """The key's places for sessions on all machines of a cluster."""
        self._due_ms = WRITE_DOWN_MS
        """Amount of unwritten audio from which the next write is attempted."""

    @property
    def sessions(self) -> int:
        """Sockets and requests of this process that are in progress."""
        return self._sessions

    @property
    def audio_today_ms(self) -> int:
        """Audio that this process has used today."""
        self._begin_day()
        return self._own_today_ms

    def begin_request(self, now_s: float) -> None:
        """Count a request that begins at ``now_s``, on the machine's monotonic clock.

        Raises ``QuotaExceededError``. The rate limit is a generic cell rate algorithm
        (ITU-T I.371, annex A): a minute's requests may come at once, then one more is
        allowed every 1/n minute. It needs a single number, and yields exactly when the
        next request will be allowed.
        """
        allowed = self.quota.requests_per_minute
        if allowed is None:
            return
        with self._ledger.transaction():
            found = self._ledger.fetch_row(
                "SELECT until_s FROM key_rate WHERE key_id = ?", self.key_id
            )
            until_s = max(found[0] if found else now_s, now_s) + MINUTE_S / allowed
            if until_s > now_s + MINUTE_S:
                # Without rounding, floating point errors would sometimes refuse the
                # last request of a full minute.
                wait_s = math.ceil(round(until_s - MINUTE_S - now_s, 6))
                if wait_s > 0:
                    raise QuotaExceededError(
                        f"the key may make {allowed} requests a minute", wait_s
                    )
            self._ledger.execute(
                "INSERT OR REPLACE INTO key_rate VALUES (?, ?)", self.key_id, until_s
            )

    @asynccontextmanager
    async def reserved_place(self) -> AsyncIterator[None]:
        """Reserve one of the key's places in a cluster while the context lasts, in
        which ``enter_session`` is called. Raises ``QuotaExceededError``.
        """
        if self.shared is None:
            yield
            return
        reservation = await self.shared.reserve()
        try:
            yield
        finally:
            self.shared.settle(reservation)

    @asynccontextmanager
    async def session(self, *, uses_audio: bool = True) -> AsyncIterator[None]:
        """Count a session while the context lasts; see ``enter_session``."""
        async with self.reserved_place():
            self.enter_session(uses_audio=uses_audio)
        try:
            yield
        finally:
            self.leave_session()

    def enter_session(self, *, uses_audio: bool = True) -> None:
        """Begin a session, which ``leave_session`` ends.

        Raises ``QuotaExceededError``: too many sessions, or, if it ``uses_audio``, no
        audio is left today.
        """
        allowed = self.quota.max_sessions
        with self._ledger.transaction():
            if allowed is not None and self._total_sessions + self._unwritten_sessions >= allowed:
                raise QuotaExceededError(
                    f"the key may have {allowed} sessions at once", SESSION_RETRY_S
                )
            if uses_audio and self.audio_used_up:
                seconds = self.quota.audio_seconds_per_day
                wait_s = math.ceil(DAY_S - self._unix_s() % DAY_S)
                raise QuotaExceededError(f"the key may use {seconds} s of audio a day", wait_s)
            self._write(sessions=1)
        self._sessions += 1

    def leave_session(self) -> None:
        """End a session."""
        self._sessions -= 1
        self._unwritten_sessions -= 1
        self._try_to_write()
        if self.shared is not None:
            self.shared.note_end()

    def use_audio(self, length_ms: int) -> None:
        """Count audio that was recognised or spoken."""
        self._begin_day()
        self._unwritten_ms += length_ms
        self._own_today_ms += length_ms
        if self._unwritten_ms >= self._due_ms:
            self._try_to_write()

    @property
    def audio_used_up(self) -> bool:
        """Whether the key has used its audio of today.

        Audio of other processes counts once they have written it to the ledger.
        """
        allowed_s = self.quota.audio_seconds_per_day
        if allowed_s is None:
            return False
        self._begin_day()
        query = "SELECT TOTAL(audio_ms) FROM key_use WHERE key_id = ? AND day = ?"
        used_ms = self._ledger.fetch_value(query, self.key_id, self._day) + self._unwritten_ms
        in_cluster_ms = self.audio_elsewhere_ms + self._own_today_ms
        return bool(max(used_ms, in_cluster_ms) >= allowed_s * 1000)

    @property
    def _total_sessions(self) -> int:
        return int(
            self._ledger.fetch_value(
                "SELECT TOTAL(sessions) FROM key_use WHERE key_id = ?", self.key_id
            )
        )

    def _begin_day(self) -> None:
        day = int(self._unix_s() // DAY_S)
        if day != self._day:
            self._day = day
            self._unwritten_ms = self._own_today_ms = self.audio_elsewhere_ms = 0

    def _try_to_write(self) -> None:
        """Write the counts to the ledger. A failed write is retried later and ends no
        session.
        """
        try:
            self._write()
            self._due_ms = WRITE_DOWN_MS * max(1, self._sessions)
        except sqlite3.OperationalError as error:
            _log.warning("what keys use cannot be written down now: %s", error)
            self._due_ms = self._unwritten_ms + WRITE_DOWN_MS

    def _write(self, *, sessions: int = 0) -> None:
        self._begin_day()
        self._ledger.execute(
            "INSERT INTO key_use (worker, key_id, sessions, day, audio_ms) VALUES (?, ?, ?, ?, "
            "?) ON CONFLICT DO UPDATE SET sessions = sessions + excluded.sessions, day = "
            "excluded.day, audio_ms = excluded.audio_ms + CASE WHEN day = excluded.day THEN "
            "audio_ms ELSE 0 END",
            self._ledger.worker,
            self.key_id,
            sessions + self._unwritten_sessions,
            self._day,
            self._unwritten_ms,
        )
        self._unwritten_ms = self._unwritten_sessions = 0


class Accounts:
    """The accounts of one server by key. Accounts of deleted keys are dropped."""

    def __init__(self, unix_s: Callable[[], float], ledger: Ledger | None = None) -> None:
        """Without a ``ledger`` only this object counts the keys' usage."""
        self._unix_s = unix_s
        self._ledger = ledger or Ledger()
        self._accounts: dict[str, Account] = {}

    def account_of(self, key_id: str, quota: Quota) -> Account:
        """Return the account of a key, opening it if needed."""
        account = self._accounts.get(key_id)
        if account is None:
            account = self._accounts[key_id] = Account(quota, self._unix_s, self._ledger, key_id)
        account.quota = quota
        return account

    def in_progress(self) -> list[int]:
        """Return each key's number of sessions in this process, in no order."""
        return [account.sessions for account in self._accounts.values()]

    def used_up(self) -> frozenset[str]:
        """Return the keys with sessions in this process that have used up their audio
        of today.
        """
        accounts = self._accounts.items()
        return frozenset(
            key_id for key_id, account in accounts if account.sessions and account.audio_used_up
        )

    def close_all_but(self, key_ids: Collection[str]) -> None:
        """Drop the accounts of other keys, except those with open sessions."""
        gone = [
            key_id
            for key_id, account in self._accounts.items()
            if key_id not in key_ids and not account.sessions
        ]
        for key_id in gone:
            del self._accounts[key_id]
            self._ledger.execute(
                "DELETE FROM key_use WHERE key_id = ? AND worker = ?", key_id, self._ledger.worker
            )
            self._ledger.execute("DELETE FROM key_rate WHERE key_id = ?", key_id)
