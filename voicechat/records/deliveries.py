"""The queue of webhook messages: stored with the records until they are delivered."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from voicechat.records.database import RecordDatabase
from voicechat.records.summary import Summary
from voicechat.records.usage import COUNTS, Prices, SessionOfKey, Used

STARTED, ENDED = "session.started", "session.ended"
LEASE_MS = 60_000
"""How long a message that is being sent belongs to the process that sends it."""
_RETRIES_S = (5, 60, 300, 1800, 7200, 18_000, 36_000)
"""The pauses after failed attempts; the last one is repeated."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message to deliver."""

    id: str
    """The same at every attempt."""
    body: bytes
    attempts: int
    """Attempts so far, this one included."""
    created_ms: int


class DeliveryQueue:
    """The messages of all processes. Methods block for some milliseconds, and raise
    ``RecordsUnavailableError``.
    """

    def __init__(self, database: RecordDatabase) -> None:
        self._database = database

    def put(self, session: str, body: Mapping[str, Any], now_ms: int) -> None:
        """Store a message about a session. The same event of a session is stored
        once.
        """
        name = f"{session}/{body['type']}"
        message_id = f"msg_{hashlib.sha256(name.encode()).hexdigest()[:32]}"
        with self._database.transaction() as database:
            database.change(
                "INSERT INTO delivery (id, record, body, due_ms, attempts, created_ms) "
                "VALUES (?, ?, ?, ?, 0, ?) ON CONFLICT (id) DO NOTHING",
                message_id,
                session,
                orjson.dumps(body).decode(),
                now_ms,
                now_ms,
            )

    def take(self, now_ms: int, limit: int) -> list[Delivery]:
        """Take messages that are due. Nobody else gets them for ``LEASE_MS``."""
        taken = []
        with self._database.transaction() as database:
            rows = database.rows(
                "SELECT id, body, due_ms, attempts, created_ms FROM delivery "
                "WHERE due_ms <= ? ORDER BY due_ms LIMIT ?",
                now_ms,
                limit,
            )
            for message_id, body, due_ms, attempts, created_ms in rows:
                if database.change(
                    "UPDATE delivery SET due_ms = ?, attempts = attempts + 1 "
                    "WHERE id = ? AND due_ms = ?",
                    now_ms + LEASE_MS,
                    message_id,
                    due_ms,
                ):
                    taken.append(Delivery(message_id, body.encode(), attempts + 1, created_ms))
        return taken

    def remove(self, delivery: Delivery) -> None:
        """Remove a message that was delivered, or is given up."""
        with self._database.transaction() as database:
            database.change("DELETE FROM delivery WHERE id = ?", delivery.id)

    def retry_later(self, delivery: Delivery, now_ms: int) -> None:
        """Note that an attempt has failed."""
        pause_s = _RETRIES_S[min(delivery.attempts, len(_RETRIES_S)) - 1]
        with self._database.transaction() as database:
            database.change(
                "UPDATE delivery SET due_ms = ? WHERE id = ?", now_ms + pause_s * 1000, delivery.id
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageWriter:
    """Writes the messages' bodies."""

    public_url: str = ""
    """How clients reach the server; empty: the links are paths."""
    prices: Prices = field(default_factory=Prices)

    def started(self, session: SessionOfKey, *, recorded: bool) -> dict[str, Any]:
        """Return the message that a session has begun."""
        return {"type": STARTED, "data": self._about(session, recorded=recorded)}

    def ended(
        self, session: SessionOfKey, used: Used | None, summary: Summary | None
    ) -> dict[str, Any]:
        """Return the message that a session has ended. ``summary``: of its record, if
        it has one; the message holds no words of it.
        """
        data = self._about(session, recorded=summary is not None)
        if used is not None:
            counts = {name: getattr(used, name) for name in COUNTS}
            cost, currency = self.prices.cost_of(used), self.prices.currency
            data["usage"] = {**counts, "cost": cost, "currency": currency}
        if summary is not None:
            data["summary"] = {
                "duration_ms": summary.duration_ms,
                "turns": len(summary.turns),
                "interruptions": summary.interruptions,
                "failures": len(summary.failures),
                "gaps": len(summary.gaps),
                "slowest_ms": summary.slowest_ms,
                "ending": summary.ending,
            }
        return {"type": ENDED, "data": data}

    def _about(self, session: SessionOfKey, *, recorded: bool) -> dict[str, Any]:
        data: dict[str, Any] = {
            "session": session.session,
            "project": session.project,
            "key": session.key_id,
            "agent": session.agent,
            "began_at": session.began_ms,
        }
        if recorded:
            record = f"{self.public_url.rstrip('/')}/v1/records/{session.session}"
            data["links"] = {
                "record": record,
                "events": f"{record}/events",
                "audio": f"{record}/audio",
            }
        return data
