"""Calls that an agent has transferred: the destination of each, until the telephone
system requests it.

They are in the ledger, because the request may reach any process of the server.
"""

from voicechat.store.ledger import Ledger

LIFE_S = 600
"""How long a handover is kept. Providers request it at once."""
MAX_HANDOVERS = 10_000
"""Most handovers kept. Beyond it the oldest is deleted."""


class Handovers:
    """The handovers of one server. Times are seconds of the machine's monotonic
    clock.
    """

    def __init__(self, ledger: Ledger | None = None) -> None:
        """Without a ``ledger`` the handovers exist only in this object."""
        self._ledger = ledger or Ledger()

    def add(self, call_id: str, transfer_to: str, now_s: float) -> None:
        """Store the destination of a call. A call without an id is not stored, because
        it could not be requested.
        """
        if not call_id:
            return
        with self._ledger.transaction():
            self._ledger.execute("DELETE FROM handover WHERE expires_s <= ?", now_s)
            if int(self._ledger.fetch_value("SELECT COUNT(*) FROM handover")) >= MAX_HANDOVERS:
                oldest = "SELECT call_id FROM handover ORDER BY expires_s LIMIT 1"
                self._ledger.execute(f"DELETE FROM handover WHERE call_id IN ({oldest})")
            self._ledger.execute(
                "INSERT OR REPLACE INTO handover VALUES (?, ?, ?)",
                call_id,
                transfer_to,
                now_s + LIFE_S,
            )

    def take(self, call_id: str, now_s: float) -> str:
        """Remove and return the destination of a call; empty if there is none."""
        query = "DELETE FROM handover WHERE call_id = ? RETURNING transfer_to, expires_s"
        found = self._ledger.fetch_row(query, call_id)
        return str(found[0]) if found is not None and now_s < found[1] else ""
