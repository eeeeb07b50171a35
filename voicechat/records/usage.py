"""Counts what each session uses, and sums it up."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any

from voicechat.records.database import RecordDatabase

MAX_GROUPS = 10_000
GROUPS: Mapping[str, str] = {
    "day": "day",
    "key": "key_id",
    "agent": "agent",
    "session": "session",
}
"""What usage is summed by, and its column."""


@dataclass(slots=True, kw_only=True)
class Used:
    """What was used. Not frozen: a session adds to its own."""

    length_ms: int = 0
    """How long sessions were open."""
    heard_ms: int = 0
    """Audio that recognisers got."""
    spoken_ms: int = 0
    """Speech that was synthesised, heard or not."""
    prompt_tokens: int = 0
    """Tokens that chat models read, and wrote, as far as their servers told."""
    completion_tokens: int = 0
    characters: int = 0
    """Characters of text that was synthesised."""


COUNTS = tuple(field.name for field in fields(Used))
_COLUMNS = ("session", "day", "project", "key_id", "agent", *COUNTS)
_UPDATES = ", ".join(f"{name} = excluded.{name}" for name in COUNTS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """What usage costs, in ``currency``."""

    currency: str = "USD"
    heard_minute: float = 0.0
    spoken_minute: float = 0.0
    million_characters: float = 0.0
    million_prompt_tokens: float = 0.0
    million_completion_tokens: float = 0.0

    def cost_of(self, used: Used) -> float:
        """Return what usage costs, rounded to a millionth."""
        cost = (
            used.heard_ms / 60_000 * self.heard_minute
            + used.spoken_ms / 60_000 * self.spoken_minute
            + used.characters / 1e6 * self.million_characters
            + used.prompt_tokens / 1e6 * self.million_prompt_tokens
            + used.completion_tokens / 1e6 * self.million_completion_tokens
        )
        return round(cost, 6)


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionOfKey:
    """Whose usage it is."""

    session: str
    began_ms: int
    """Unix time. The whole session belongs to the day, in UTC, on which it began."""
    project: str
    key_id: str
    agent: str


@dataclass(frozen=True, slots=True)
class UsageSum:
    """The usage of one group."""

    group: str
    sessions: int
    used: Used


def day_of(unix_ms: int) -> str:
    """Return the day of a Unix time in UTC, ``2026-01-31``."""
    return datetime.fromtimestamp(unix_ms / 1000, UTC).date().isoformat()


class UsageIndex:
    """The usage of all sessions. Methods block for some milliseconds, and raise
    ``RecordsUnavailableError``.
    """

    def __init__(self, database: RecordDatabase) -> None:
        self._database = database

    def put(self, session: SessionOfKey, used: Used) -> None:
        """Store what a session has used so far."""
        values: list[Any] = [session.session, day_of(session.began_ms), session.project]
        values += [session.key_id, session.agent, *(getattr(used, name) for name in COUNTS)]
        with self._database.transaction() as database:
            database.change(
                f"INSERT INTO session_usage ({', '.join(_COLUMNS)}) "
                f"VALUES ({', '.join('?' * len(_COLUMNS))}) "
                f"ON CONFLICT (session) DO UPDATE SET {_UPDATES}",
                *values,
            )

    def of_session(self, project: str, session: str) -> Used | None:
        """Return what a session of a project has used; None if there is none."""
        with self._database.transaction(writes=False) as database:
            rows = database.rows(
                f"SELECT {', '.join(COUNTS)} FROM session_usage WHERE session = ? AND project = ?",
                session,
                project,
            )
        return Used(**dict(zip(COUNTS, rows[0], strict=True))) if rows else None

    def sums(
        self,
        project: str | None,
        by: str,
        *,
        from_day: str = "",
        to_day: str = "",
        key_id: str = "",
        agent: str = "",
    ) -> Sequence[UsageSum]:
        """Return the usage of a project, or of all (None), by one of ``GROUPS``, for at
        most ``MAX_GROUPS`` groups, the newest days first. ``to_day`` is included.
        """
        column = GROUPS[by]
        wanted = {"project = ?": project, "day >= ?": from_day, "day <= ?": to_day}
        wanted |= {"key_id = ?": key_id, "agent = ?": agent}
        given = {condition: value for condition, value in wanted.items() if value}
        where = f"WHERE {' AND '.join(given)} " if given else ""
        sums = ", ".join(f"CAST(SUM({name}) AS BIGINT)" for name in COUNTS)
        with self._database.transaction(writes=False) as database:
            rows = database.rows(
                f"SELECT {column}, COUNT(*), {sums} FROM session_usage {where}"
                f"GROUP BY {column} ORDER BY MAX(day) DESC, {column} LIMIT ?",
                *given.values(),
                MAX_GROUPS,
            )
        return [
            UsageSum(str(row[0]), int(row[1]), Used(**dict(zip(COUNTS, row[2:], strict=True))))
            for row in rows
        ]


def total(sums: Sequence[UsageSum]) -> Used:
    """Return the sum of all groups."""
    return Used(**{name: sum(getattr(each.used, name) for each in sums) for name in COUNTS})
