"""Finds records: by time, agent, person and words. Each project sees only its own."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from enum import Enum

from voicechat.records.database import RecordDatabase, RecordTransaction
from voicechat.records.summary import Summary, searched_words, words_of

MAX_PAGE = 100


class RecordState(Enum):
    """How far a record is."""

    LIVE = "live"
    """The conversation is in progress."""
    ENDED = "ended"
    """The conversation has ended; its summary and audio are being made."""
    DONE = "done"
    CUT = "cut"
    """Done, but the process died during the conversation: its last second may be
    missing.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordRow:
    """What a list shows of a record. Times are milliseconds; ``began_ms`` is Unix
    time.
    """

    id: str
    place: str
    """Which folder holds the files, if several machines share the database."""
    writer: str
    """The process that writes it."""
    state: str
    project: str
    key_id: str
    person: str
    """The holder of the token with which the session was opened, as a digest."""
    caller: str
    device: str
    agent: str
    dialect: str
    mode: str
    began_ms: int
    duration_ms: int = 0
    turns: int = 0
    interruptions: int = 0
    failures: int = 0
    gaps: int = 0
    slowest_ms: int | None = None
    opening: str = ""
    """The first words of the conversation."""
    ending: str = ""
    audio_bytes: int = 0
    expires_ms: int


_COLUMNS = tuple(field.name for field in fields(RecordRow))
_SELECT = f"SELECT {', '.join(_COLUMNS)} FROM record"
_INSERT = f"INSERT INTO record ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))})"


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordQuery:
    """Which records are wanted; an empty field means any."""

    words: str = ""
    agent: str = ""
    key_id: str = ""
    person: str = ""
    caller: str = ""
    device: str = ""
    state: str = ""
    from_ms: int | None = None
    before_ms: int | None = None
    failed: bool = False
    """Only those in which something failed."""


class RecordIndex:
    """The rows of the records. Methods block for some milliseconds, and raise
    ``RecordsUnavailableError``.
    """

    def __init__(self, database: RecordDatabase) -> None:
        self._database = database

    def add(self, row: RecordRow) -> None:
        """Add a record whose conversation begins. Adding it again does nothing."""
        with self._database.transaction() as database:
            values = [getattr(row, name) for name in _COLUMNS]
            database.change(f"{_INSERT} ON CONFLICT (id) DO NOTHING", *values)

    def set_ended(self, record_id: str) -> None:
        """Note that the conversation has ended, so that the record can be finished."""
        with self._database.transaction() as database:
            database.change(
                "UPDATE record SET state = ? WHERE id = ? AND state = ?",
                RecordState.ENDED.value,
                record_id,
                RecordState.LIVE.value,
            )

    def finish(
        self, record_id: str, state: RecordState, summary: Summary, audio_bytes: int
    ) -> bool:
        """Store the summary of a record. Returns False if it was deleted meanwhile."""
        with self._database.transaction() as database:
            changed = database.change(
                "UPDATE record SET state = ?, duration_ms = ?, turns = ?, interruptions = ?, "
                "failures = ?, gaps = ?, slowest_ms = ?, opening = ?, ending = ?, "
                "audio_bytes = ? WHERE id = ?",
                state.value,
                summary.duration_ms,
                len(summary.turns),
                summary.interruptions,
                len(summary.failures),
                len(summary.gaps),
                summary.slowest_ms,
                summary.opening(),
                summary.ending,
                audio_bytes,
                record_id,
            )
            if changed:
                database.change("DELETE FROM record_word WHERE record = ?", record_id)
                database.change_many(
                    "INSERT INTO record_word (word, record) VALUES (?, ?)",
                    [(word, record_id) for word in words_of(summary.text())],
                )
        return bool(changed)

    def find(self, project: str, record_id: str) -> RecordRow | None:
        """Return a record of a project; None if it has none of that id."""
        with self._database.transaction(writes=False) as database:
            return _first(database, "WHERE id = ? AND project = ?", record_id, project)

    def search(
        self, project: str, query: RecordQuery, *, limit: int, after: tuple[int, str] | None = None
    ) -> list[RecordRow]:
        """Return the newest records of a project that fit, at most ``limit``.
        ``after``: those behind the one that began then and has that id.
        """
        where, values = _conditions(project, query)
        if after is not None:
            where += " AND (began_ms < ? OR (began_ms = ? AND id < ?))"
            values += [after[0], after[0], after[1]]
        with self._database.transaction(writes=False) as database:
            rows = database.rows(
                f"{_SELECT} {where} ORDER BY began_ms DESC, id DESC LIMIT ?", *values, limit
            )
        return [_row(row) for row in rows]

    def waiting(self, place: str, states: Iterable[RecordState], limit: int) -> list[RecordRow]:
        """Return the oldest records in one of the states whose files are at
        ``place``.
        """
        wanted = [state.value for state in states]
        with self._database.transaction(writes=False) as database:
            rows = database.rows(
                f"{_SELECT} WHERE state IN ({', '.join('?' * len(wanted))}) AND place = ? "
                "ORDER BY began_ms LIMIT ?",
                *wanted,
                place,
                limit,
            )
        return [_row(row) for row in rows]

    def expired(self, place: str, now_ms: int, limit: int) -> list[RecordRow]:
        """Return records at ``place`` whose time is over."""
        with self._database.transaction(writes=False) as database:
            rows = database.rows(
                f"{_SELECT} WHERE expires_ms <= ? AND place = ? AND state <> ? "
                "ORDER BY expires_ms LIMIT ?",
                now_ms,
                place,
                RecordState.LIVE.value,
                limit,
            )
        return [_row(row) for row in rows]

    def delete(self, record_id: str) -> bool:
        """Delete a record's row and words. Returns False if there was none."""
        with self._database.transaction() as database:
            database.change("DELETE FROM record_word WHERE record = ?", record_id)
            database.change("DELETE FROM delivery WHERE record = ?", record_id)
            return bool(database.change("DELETE FROM record WHERE id = ?", record_id))

    def forget_traces(self) -> None:
        """See ``RecordDatabase.forget_traces``."""
        self._database.forget_traces()


def _conditions(project: str, query: RecordQuery) -> tuple[str, list[object]]:
    conditions, values = ["project = ?"], list[object]([project])
    exact: Mapping[str, str] = {
        "agent": query.agent,
        "key_id": query.key_id,
        "person": query.person,
        "caller": query.caller,
        "device": query.device,
        "state": query.state,
    }
    for column, value in exact.items():
        if value:
            conditions.append(f"{column} = ?")
            values.append(value)
    if query.from_ms is not None:
        conditions.append("began_ms >= ?")
        values.append(query.from_ms)
    if query.before_ms is not None:
        conditions.append("began_ms < ?")
        values.append(query.before_ms)
    if query.failed:
        conditions.append("failures > 0")
    words = searched_words(query.words)
    if words:
        conditions.append(
            f"id IN (SELECT record FROM record_word WHERE word IN ({', '.join('?' * len(words))}) "
            "GROUP BY record HAVING COUNT(*) = ?)"
        )
        values += [*words, len(words)]
    elif query.words.strip():
        conditions.append("1 = 0")  # nothing that is searched by: signs only
    return f"WHERE {' AND '.join(conditions)}", values


def _first(database: RecordTransaction, where: str, *values: object) -> RecordRow | None:
    rows = database.rows(f"{_SELECT} {where}", *values)
    return _row(rows[0]) if rows else None


def _row(values: tuple[object, ...]) -> RecordRow:
    return RecordRow(**dict(zip(_COLUMNS, values, strict=True)))  # type: ignore[arg-type]
