"""How many may be in at once, over all processes of the server."""

import logging
import sqlite3

from voicechat.store.ledger import Ledger

_log = logging.getLogger(__name__)


class SessionSlots:
    """The places of one kind. This process must free what it has taken; what a dead one
    held `Ledger.forget` frees.
    """

    def __init__(self, ledger: Ledger, kind: str, most: int) -> None:
        self._ledger = ledger
        self._kind = kind
        self.most = most
        self._owed = 0
        """Places that have been given back, and are not written down."""

    @property
    def slots_in_use(self) -> int:
        """How many are taken, by any process."""
        return int(self._ledger.number("SELECT TOTAL(taken) FROM place WHERE kind = ?", self._kind))

    @property
    def slots_by_worker(self) -> dict[int, int]:
        """How many each process has taken; one that has never taken any may be missing."""
        return self._ledger.numbers(
            "SELECT worker, taken FROM place WHERE kind = ? ORDER BY worker", self._kind
        )

    def try_acquire_slot(self) -> bool:
        """Take a place; False when there is none."""
        with self._ledger.transaction():
            if self.slots_in_use - self._owed >= self.most:
                return False
            self._add(1 - self._owed)
        self._owed = 0
        return True

    def release_slot(self) -> None:
        """Give a place back. Raises nothing: while the ledger cannot be written, it is
        when it can.
        """
        self._owed += 1
        try:
            self._settle()
        except sqlite3.OperationalError as error:
            _log.warning("a place cannot be given back now: %s", error)

    def _settle(self) -> None:
        self._add(-self._owed)
        self._owed = 0

    def _add(self, change: int) -> None:
        self._ledger.write(
            "INSERT INTO place (worker, kind, taken) VALUES (?, ?, ?) "
            "ON CONFLICT DO UPDATE SET taken = taken + excluded.taken",
            self._ledger.worker,
            self._kind,
            change,
        )
