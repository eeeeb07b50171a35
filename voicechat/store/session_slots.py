"""A counting semaphore over all processes of a server, for sessions and for
requests.
"""

import logging
import sqlite3

from voicechat.store.ledger import Ledger

_log = logging.getLogger(__name__)


class SessionSlots:
    """The slots of one kind.

    A process must release the slots that it has acquired; `Ledger.remove_worker` frees
    the slots of a dead process.
    """

    def __init__(self, ledger: Ledger, kind: str, most: int) -> None:
        self._ledger = ledger
        self._kind = kind
        self.most = most
        self._owed = 0
        """Number of released slots that are not yet written to the ledger."""

    @property
    def slots_in_use(self) -> int:
        """The number of slots in use by any process."""
        return int(
            self._ledger.fetch_value("SELECT TOTAL(taken) FROM place WHERE kind = ?", self._kind)
        )

    @property
    def slots_by_worker(self) -> dict[int, int]:
        """The number of slots of each process; a process that never had any may be
        missing.
        """
        return self._ledger.fetch_mapping(
            "SELECT worker, taken FROM place WHERE kind = ? ORDER BY worker", self._kind
        )

    def try_acquire_slot(self) -> bool:
        """Acquire a slot. Returns False if none is free."""
        with self._ledger.transaction():
            if self.slots_in_use - self._owed >= self.most:
                return False
            self._add(1 - self._owed)
        self._owed = 0
        return True

    def release_slot(self) -> None:
        """Release a slot.

        Never raises: while the ledger cannot be written, the release is kept and
        written with the next one.
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
        self._ledger.execute(
            "INSERT INTO place (worker, kind, taken) VALUES (?, ?, ?) "
            "ON CONFLICT DO UPDATE SET taken = taken + excluded.taken",
            self._ledger.worker,
            self._kind,
            change,
        )
