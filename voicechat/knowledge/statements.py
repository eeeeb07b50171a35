"""The statements of the knowledge stores, which SQLite and PostgreSQL both understand,
so that both keep and find the same.

A *shelf* is the files, or the Q&A records, of one knowledge base. A *source* is one of
them; a Q&A record has one passage, its question. Each change of what a search may find
raises the ``revision`` of its source and its shelf. A statement that changes a shelf's
row comes last in its transaction, or where other changes of the shelf must wait.
"""

import secrets
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Protocol, TypeAlias, TypeVar, get_args

import orjson

from voicechat.documents.passage import Passage
from voicechat.knowledge.interface import (
    MAX_FILES,
    MAX_PAGE_SIZE,
    MAX_QA_RECORDS,
    FileStatus,
    Finding,
    KnowledgeFile,
    KnowledgeScope,
    QaRecord,
    SourceKind,
    TooManyError,
    Vector,
    Windows,
)
from voicechat.knowledge.ranking import Posting, Ranked, postings_of, rank_by_words
from voicechat.knowledge.words import LONGEST_TEXT, question_words, search_words, storable

SNIPPET = 200
"""Characters of a file's beginning that lists show."""
SCHEMA = (
    """CREATE TABLE shelf (
    number {key}, project TEXT NOT NULL, base TEXT NOT NULL, kind TEXT NOT NULL,
    revision BIGINT NOT NULL DEFAULT 0, UNIQUE (project, base, kind))""",
    """CREATE TABLE source (
    number {key}, id TEXT NOT NULL UNIQUE, shelf BIGINT NOT NULL, status TEXT NOT NULL,
    title TEXT NOT NULL, answer TEXT NOT NULL DEFAULT '', created_s {real} NOT NULL,
    size BIGINT NOT NULL DEFAULT 0, blob TEXT NOT NULL DEFAULT '',
    error TEXT NOT NULL DEFAULT '', snippet TEXT NOT NULL DEFAULT '',
    pages BIGINT NOT NULL DEFAULT 0, passages BIGINT NOT NULL DEFAULT 0,
    words BIGINT NOT NULL DEFAULT 0, embedder TEXT NOT NULL DEFAULT '',
    revision BIGINT NOT NULL DEFAULT 0)""",
    "CREATE INDEX source_of_shelf ON source (shelf, number)",
    "CREATE TABLE content (source BIGINT PRIMARY KEY, markdown TEXT NOT NULL)",
    """CREATE TABLE passage (
    source BIGINT NOT NULL, position BIGINT NOT NULL, headings TEXT NOT NULL, page BIGINT,
    text TEXT NOT NULL, PRIMARY KEY (source, position))""",
    """CREATE TABLE passage_window (
    source BIGINT NOT NULL, number BIGINT NOT NULL, position BIGINT NOT NULL,
    vector {vector} NOT NULL, PRIMARY KEY (source, number))""",
    """CREATE TABLE posting (
    shelf BIGINT NOT NULL, word TEXT NOT NULL, source BIGINT NOT NULL, entries {blob} NOT NULL,
    PRIMARY KEY (shelf, word, source)) {clustered}""",
    "CREATE INDEX posting_of_source ON posting (source)",
)
"""The tables, with places for each database's own types."""
_COLUMNS = (
    "source.number, source.id, project, base, title, status, created_s, size, blob, error, "
    "snippet, pages, passages, answer"
)
_SHELVED = "source JOIN shelf ON shelf.number = source.shelf"

_Row: TypeAlias = tuple[Any, ...]
_T = TypeVar("_T")


class SqlConnection(Protocol):
    """A connection to one of the databases, inside a transaction."""

    def execute(self, statement: str, values: Sequence[object] = ()) -> Any:
        """Execute a statement with ``?`` for its values. Returns the cursor."""

    def executemany(self, statement: str, rows: Sequence[Sequence[object]]) -> None:
        """Execute a statement for each row of values."""

    def stored_vector(self, vector: Vector) -> object:
        """Return a vector as the column ``passage_window.vector`` keeps it."""

    def nearest(
        self, shelves: Sequence[int], vector: Vector, limit: int, embedder: str
    ) -> list[Ranked]:
        """Return the passages of these shelves' ENABLED sources whose nearest windows,
        embedded by ``embedder``, have the highest cosine with this vector; the best
        first.
        """


def add_file(
    database: SqlConnection, scope: KnowledgeScope, title: str, size: int, blob: str
) -> KnowledgeFile:
    """Do ``KnowledgeStore.add_file``."""
    shelf = _changed_shelf(database, scope, "file")
    valid = "SELECT count(*) FROM source WHERE shelf = ? AND status <> 'ERROR'"
    if database.execute(valid, (shelf,)).fetchone()[0] >= MAX_FILES:
        raise TooManyError("files", MAX_FILES)
    file_id = _new_id()
    database.execute(
        "INSERT INTO source (id, shelf, status, title, size, blob, created_s)"
        " VALUES (?, ?, 'UPLOADING', ?, ?, ?, ?)",
        (file_id, shelf, storable(title), size, blob, _now_s()),
    )
    return _existing(find_file(database, scope.project, file_id))


def find_file(database: SqlConnection, project: str, file_id: str) -> KnowledgeFile | None:
    """Do ``KnowledgeStore.find_file``."""
    row = _find(database, project, "file", file_id)
    return None if row is None else _as_file(row)


def list_files(
    database: SqlConnection, scope: KnowledgeScope, page: int, page_size: int
) -> tuple[list[KnowledgeFile], int]:
    """Do ``KnowledgeStore.list_files``."""
    rows, total = _list(database, scope, "file", page, page_size)
    return [_as_file(row) for row in rows], total


def set_status(
    database: SqlConnection, project: str, file_id: str, status: FileStatus, error: str
) -> KnowledgeFile | None:
    """Do ``KnowledgeStore.set_status``."""
    row = _find(database, project, "file", file_id)
    if row is None:
        return None
    database.execute(
        "UPDATE source SET status = ?, error = ?, revision = revision + 1 WHERE number = ?",
        (status.value, storable(error), row[0]),
    )
    _change_shelf_of(database, row[0])
    return find_file(database, project, file_id)


def delete_file(database: SqlConnection, project: str, file_id: str) -> KnowledgeFile | None:
    """Do ``KnowledgeStore.delete_file``."""
    row = _delete(database, project, "file", file_id)
    return None if row is None else _as_file(row)


def content_of(database: SqlConnection, project: str, file_id: str) -> str | None:
    """Do ``KnowledgeStore.content_of``."""
    row = _find(database, project, "file", file_id)
    if row is None:
        return None
    found = database.execute("SELECT markdown FROM content WHERE source = ?", (row[0],)).fetchone()
    return found[0] if found else ""


def put_passages(
    database: SqlConnection,
    project: str,
    file_id: str,
    markdown: str,
    passages: Sequence[Passage],
    pages: int,
    windows: Windows | None,
) -> KnowledgeFile | None:
    """Do ``KnowledgeStore.put_passages``."""
    row = _find(database, project, "file", file_id)
    if row is None:
        return None
    source, title = row[0], row[4]
    # First, so that of two executions of one task the second waits for the first.
    if not _mark_changed(database, source):
        return None
    words = [search_words(passage.searched_text(title)) for passage in passages]
    _replace_passages(database, source, passages, words, windows)
    database.execute("INSERT INTO content VALUES (?, ?)", (source, storable(markdown)))
    database.execute(
        "UPDATE source SET status = 'ENABLED', error = '', snippet = ?, pages = ?, passages = ?,"
        " words = ?, embedder = ? WHERE number = ?",
        (
            " ".join(storable(markdown[: 2 * SNIPPET]).split())[:SNIPPET],
            pages,
            len(passages),
            sum(map(len, words)),
            windows.embedder if windows is not None else "",
            source,
        ),
    )
    _change_shelf_of(database, source)
    return find_file(database, project, file_id)


def add_qa(
    database: SqlConnection,
    scope: KnowledgeScope,
    question: str,
    answer: str,
    vector: Vector | None,
    embedder: str,
) -> QaRecord:
    """Do ``KnowledgeStore.add_qa``."""
    shelf = _changed_shelf(database, scope, "qa")
    records = database.execute("SELECT count(*) FROM source WHERE shelf = ?", (shelf,))
    if records.fetchone()[0] >= MAX_QA_RECORDS:
        raise TooManyError("Q&A records", MAX_QA_RECORDS)
    qa_id = _new_id()
    source = database.execute(
        "INSERT INTO source (id, shelf, status, title, created_s) VALUES (?, ?, 'ENABLED', '', ?)"
        " RETURNING number",
        (qa_id, shelf, _now_s()),
    ).fetchone()[0]
    _write_qa(database, source, question, answer, vector, embedder)
    return _existing(find_qa(database, scope.project, qa_id))


def change_qa(
    database: SqlConnection,
    project: str,
    qa_id: str,
    question: str,
    answer: str,
    vector: Vector | None,
    embedder: str,
) -> QaRecord | None:
    """Do ``KnowledgeStore.change_qa``."""
    row = _find(database, project, "qa", qa_id)
    if row is None or not _mark_changed(database, row[0]):
        return None
    _write_qa(database, row[0], question, answer, vector, embedder)
    _change_shelf_of(database, row[0])
    return find_qa(database, project, qa_id)


def find_qa(database: SqlConnection, project: str, qa_id: str) -> QaRecord | None:
    """Do ``KnowledgeStore.find_qa``."""
    row = _find(database, project, "qa", qa_id)
    return None if row is None else _as_qa(row)


def list_qa(
    database: SqlConnection, scope: KnowledgeScope, page: int, page_size: int
) -> tuple[list[QaRecord], int]:
    """Do ``KnowledgeStore.list_qa``."""
    rows, total = _list(database, scope, "qa", page, page_size)
    return [_as_qa(row) for row in rows], total


def delete_qa(database: SqlConnection, project: str, qa_id: str) -> QaRecord | None:
    """Do ``KnowledgeStore.delete_qa``."""
    row = _delete(database, project, "qa", qa_id)
    return None if row is None else _as_qa(row)


def by_words(
    database: SqlConnection,
    kind: SourceKind,
    project: str,
    bases: Sequence[str],
    text: str,
    limit: int,
) -> list[Finding]:
    """Do ``KnowledgeStore.by_words``."""
    shelves = _shelves(database, kind, project, bases)
    sought = sorted(set(search_words(text[:LONGEST_TEXT]))) if shelves else []
    if not sought:
        return []
    passages, words = database.execute(
        "SELECT coalesce(sum(passages), 0), coalesce(sum(words), 0) FROM source"
        f" WHERE shelf IN {_places(shelves)} AND status = 'ENABLED'",
        shelves,
    ).fetchone()
    postings = database.execute(
        "SELECT posting.word, posting.source, posting.entries FROM posting"
        " JOIN source ON source.number = posting.source"
        f" WHERE posting.shelf IN {_places(shelves)} AND posting.word IN {_places(sought)}"
        " AND source.status = 'ENABLED'",
        (*shelves, *sought),
    ).fetchall()
    ranked = rank_by_words((Posting(*row) for row in postings), int(passages), int(words), limit)
    found = _findings(database, kind, ranked)
    if kind == "file":
        return found
    asked = question_words(text)
    return [
        replace(record, is_asked=bool(asked) and asked == question_words(record.title))
        for record in found
    ]


def by_vector(
    database: SqlConnection,
    kind: SourceKind,
    project: str,
    bases: Sequence[str],
    vector: Vector,
    limit: int,
    embedder: str,
) -> list[Finding]:
    """Do ``KnowledgeStore.by_vector``."""
    shelves = _shelves(database, kind, project, bases)
    if not shelves:
        return []
    return _findings(database, kind, database.nearest(shelves, vector, limit, embedder))


def holds(database: SqlConnection, project: str, bases: Sequence[str]) -> bool:
    """Do ``KnowledgeStore.holds``."""
    kinds: tuple[SourceKind, ...] = get_args(SourceKind)
    shelves = [shelf for kind in kinds for shelf in _shelves(database, kind, project, bases)]
    found = database.execute(
        f"SELECT 1 FROM source WHERE shelf IN {_places(shelves)} AND status = 'ENABLED' LIMIT 1",
        shelves,
    )
    return found.fetchone() is not None


def blobs_in_use(database: SqlConnection) -> set[str]:
    """Do ``KnowledgeStore.blobs_in_use``."""
    return {row[0] for row in database.execute("SELECT blob FROM source WHERE blob <> ''")}


def waiting_files(database: SqlConnection) -> list[KnowledgeFile]:
    """Do ``KnowledgeStore.waiting_files``."""
    rows = database.execute(
        f"SELECT {_COLUMNS} FROM {_SHELVED} WHERE status = 'UPLOADING' ORDER BY source.number"
    )
    return [_as_file(row) for row in rows]


def _find(database: SqlConnection, project: str, kind: SourceKind, source_id: str) -> _Row | None:
    row: _Row | None = database.execute(
        f"SELECT {_COLUMNS} FROM {_SHELVED} WHERE source.id = ? AND project = ? AND kind = ?",
        (source_id, project, kind),
    ).fetchone()
    return row


def _list(
    database: SqlConnection, scope: KnowledgeScope, kind: SourceKind, page: int, page_size: int
) -> tuple[list[_Row], int]:
    within = f"FROM {_SHELVED} WHERE project = ? AND base = ? AND kind = ?"
    values = (scope.project, scope.base, kind)
    total = database.execute(f"SELECT count(*) {within}", values).fetchone()[0]
    size = min(page_size, MAX_PAGE_SIZE)
    rows = database.execute(
        f"SELECT {_COLUMNS} {within} ORDER BY source.number DESC LIMIT ? OFFSET ?",
        (*values, size, (page - 1) * size),
    ).fetchall()
    return rows, total


def _delete(database: SqlConnection, project: str, kind: SourceKind, source_id: str) -> _Row | None:
    row = _find(database, project, kind, source_id)
    if row is None or not _mark_changed(database, row[0]):
        return None
    _delete_passages(database, row[0])
    _change_shelf_of(database, row[0])
    database.execute("DELETE FROM source WHERE number = ?", (row[0],))
    return row


def _delete_passages(database: SqlConnection, source: int) -> None:
    for table in ("posting", "passage_window", "passage", "content"):
        database.execute(f"DELETE FROM {table} WHERE source = ?", (source,))


def _write_qa(
    database: SqlConnection,
    source: int,
    question: str,
    answer: str,
    vector: Vector | None,
    embedder: str,
) -> None:
    words = search_words(question)
    windows = None if vector is None else Windows((0,), vector[None, :], embedder)
    _replace_passages(database, source, [Passage(text=question)], [words], windows)
    database.execute(
        "UPDATE source SET title = ?, answer = ?, passages = 1, words = ?, embedder = ?"
        " WHERE number = ?",
        (
            storable(question),
            storable(answer),
            len(words),
            embedder if windows is not None else "",
            source,
        ),
    )


def _replace_passages(
    database: SqlConnection,
    source: int,
    passages: Sequence[Passage],
    words: Sequence[Sequence[str]],
    windows: Windows | None,
) -> None:
    _delete_passages(database, source)
    shelf = database.execute("SELECT shelf FROM source WHERE number = ?", (source,)).fetchone()[0]
    database.executemany(
        "INSERT INTO passage VALUES (?, ?, ?, ?, ?)",
        [
            (
                source,
                position,
                orjson.dumps([storable(heading) for heading in passage.headings]).decode(),
                passage.page,
                storable(passage.text),
            )
            for position, passage in enumerate(passages)
        ],
    )
    if windows is not None:
        database.executemany(
            "INSERT INTO passage_window VALUES (?, ?, ?, ?)",
            [
                (source, number, position, database.stored_vector(vector))
                for number, (position, vector) in enumerate(
                    zip(windows.positions, windows.vectors, strict=True)
                )
            ],
        )
    database.executemany(
        "INSERT INTO posting VALUES (?, ?, ?, ?)",
        [
            (shelf, posting.word, source, posting.entries)
            # In the order of the index, whose pages are then written once.
            for posting in sorted(postings_of(source, words), key=lambda posting: posting.word)
        ],
    )


def _changed_shelf(database: SqlConnection, scope: KnowledgeScope, kind: SourceKind) -> int:
    """Raise a shelf's revision, making the shelf if need be. Until the end of this
    transaction, others that change the shelf wait.
    """
    number: int = database.execute(
        "INSERT INTO shelf (project, base, kind) VALUES (?, ?, ?)"
        " ON CONFLICT (project, base, kind) DO UPDATE SET revision = shelf.revision + 1"
        " RETURNING number",
        (scope.project, scope.base, kind),
    ).fetchone()[0]
    return number


def _change_shelf_of(database: SqlConnection, source: int) -> None:
    database.execute(
        "UPDATE shelf SET revision = revision + 1"
        " WHERE number = (SELECT shelf FROM source WHERE number = ?)",
        (source,),
    )


def _mark_changed(database: SqlConnection, source: int) -> bool:
    """Raise a source's revision; False if it was deleted meanwhile. Until the end of
    this transaction, others that change the source wait.
    """
    changed = database.execute(
        "UPDATE source SET revision = revision + 1 WHERE number = ?", (source,)
    )
    return bool(changed.rowcount)


def _shelves(
    database: SqlConnection, kind: SourceKind, project: str, bases: Sequence[str]
) -> list[int]:
    if not bases:
        return []
    rows = database.execute(
        "SELECT number FROM shelf WHERE project = ? AND kind = ?"
        f" AND base IN {_places(bases)} ORDER BY number",
        (project, kind, *bases),
    )
    return [row[0] for row in rows]


def _findings(database: SqlConnection, kind: SourceKind, ranked: Sequence[Ranked]) -> list[Finding]:
    """Read what was ranked; what was deleted meanwhile is left out."""
    if not ranked:
        return []
    wanted = ", ".join(["(?, ?)"] * len(ranked))
    rows = database.execute(
        # From the places that are wanted to the rows: SQLite uses no index for
        # "(source, position) IN (...)".
        f"WITH wanted (source, position) AS (VALUES {wanted})"
        " SELECT source.number, passage.position, source.id, project, base, title, answer,"
        " headings, text, page, created_s FROM wanted JOIN passage"
        " ON passage.source = wanted.source AND passage.position = wanted.position"
        " JOIN source ON source.number = passage.source JOIN shelf ON shelf.number = source.shelf",
        [number for place in ranked for number in (place.source, place.position)],
    )
    by_place = {(row[0], row[1]): row[2:] for row in rows}
    return [
        _as_finding(kind, place, by_place[place.source, place.position])
        for place in ranked
        if (place.source, place.position) in by_place
    ]


def _as_finding(kind: SourceKind, place: Ranked, row: _Row) -> Finding:
    source_id, project, base, title, answer, headings, text, page, created_s = row
    return Finding(
        kind=kind,
        source_id=source_id,
        position=place.position,
        scope=KnowledgeScope(project=project, base=base),
        title=title,
        headings=tuple(orjson.loads(headings)),
        content=answer if kind == "qa" else text,
        page=page,
        created_s=created_s,
        score=place.score,
    )


def _as_file(row: _Row) -> KnowledgeFile:
    return KnowledgeFile(
        id=row[1],
        scope=KnowledgeScope(project=row[2], base=row[3]),
        title=row[4],
        status=FileStatus(row[5]),
        created_s=row[6],
        size=row[7],
        blob=row[8],
        error=row[9],
        snippet=row[10],
        pages=row[11],
        passages=row[12],
    )


def _as_qa(row: _Row) -> QaRecord:
    return QaRecord(
        id=row[1],
        scope=KnowledgeScope(project=row[2], base=row[3]),
        question=row[4],
        answer=row[13],
        created_s=row[6],
    )


def _existing(found: _T | None) -> _T:
    assert found is not None, "it was written in this transaction"
    return found


def _places(values: Sequence[object]) -> str:
    return f"({', '.join('?' * len(values))})"


def _new_id() -> str:
    return secrets.token_urlsafe(16)


def _now_s() -> float:
    return datetime.now(UTC).timestamp()
