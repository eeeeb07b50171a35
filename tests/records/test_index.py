"""Finding records, in SQLite and PostgreSQL."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.postgres import postgres_url
from tests.records.recorded import BEGAN_MS, new_row
from voicechat.records.database import RecordDatabase, open_database
from voicechat.records.index import RecordIndex, RecordQuery, RecordState
from voicechat.records.summary import Summary
from voicechat.records.usage import SessionOfKey, UsageIndex, Used, total

__all__ = ["postgres_url"]


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.long)])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RecordDatabase]:
    url = "" if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    opened = open_database(url, tmp_path)
    opened.open()
    opened.open()  # a second process finds the tables
    try:
        yield opened
    finally:
        with opened.transaction() as transaction:
            for table in ("record", "record_word", "session_usage", "delivery"):
                transaction.change(f"DELETE FROM {table}")
        opened.close()


def said(*texts: str) -> Summary:
    summary = Summary()
    summary.turns = [{"user": text} for text in texts]
    return summary


def test_records_are_found_by_everything_that_is_asked(database: RecordDatabase) -> None:
    index = RecordIndex(database)
    rows = [
        new_row(began_ms=BEGAN_MS + number, agent=agent, caller=caller)
        for number, (agent, caller) in enumerate(
            [("anna", "+1"), ("anna", "+2"), ("bob", "+1"), ("bob", "+2")]
        )
    ]
    texts = ["Where is my refund?", "今天天气怎么样", "The weather is fine.", "Refunds, please"]
    for row, text in zip(rows, texts, strict=True):
        index.add(row)
        index.add(row)
        index.set_ended(row.id)
        assert index.finish(row.id, RecordState.DONE, said(text), 7)
    index.add(new_row(project="other", began_ms=BEGAN_MS + 9))

    def found(**query: Any) -> list[int]:
        page = index.search("p", RecordQuery(**query), limit=100)
        return [rows.index(next(each for each in rows if each.id == row.id)) for row in page]

    assert found() == [3, 2, 1, 0]
    assert found(words="REFUND my") == [0]
    assert found(words="refund weather") == []
    assert found(words="天气") == [1]
    assert found(words="气天") == []
    assert found(words="怎") == [1]
    assert found(words="?!") == []
    assert found(agent="anna", caller="+2") == [1]
    assert found(from_ms=BEGAN_MS + 1, before_ms=BEGAN_MS + 3) == [2, 1]
    assert found(failed=True) == []
    assert found(state="live") == []
    first = index.search("p", RecordQuery(), limit=2)
    after = (first[-1].began_ms, first[-1].id)
    rest = index.search("p", RecordQuery(), limit=2, after=after)
    assert [row.id for row in (*first, *rest)] == [row.id for row in reversed(rows)]
    assert index.find("other", rows[0].id) is None
    assert index.delete(rows[0].id)
    assert not index.delete(rows[0].id)
    assert found(words="refund") == []
    assert not index.finish(rows[0].id, RecordState.DONE, said("late"), 0)
    assert [row.id for row in index.expired("here", BEGAN_MS + 90_000_000, 10)] == [
        row.id for row in rows[1:]
    ]
    index.forget_traces()


def test_usage_is_stored_again_and_summed(database: RecordDatabase) -> None:
    usage = UsageIndex(database)

    def session(name: str, day: int, key_id: str, project: str = "p") -> SessionOfKey:
        began_ms = BEGAN_MS + day * 86_400_000
        return SessionOfKey(
            session=name, began_ms=began_ms, project=project, key_id=key_id, agent="anna"
        )

    for heard_ms in (10, 20):
        usage.put(session("a", 0, "k1"), Used(heard_ms=heard_ms))
    usage.put(session("b", 1, "k1"), Used(heard_ms=1, characters=5))
    usage.put(session("c", 1, "k2"), Used(heard_ms=2))
    usage.put(session("d", 1, "k3", "other"), Used(heard_ms=1000))
    by_day = usage.sums("p", "day")
    assert [(each.group, each.sessions, each.used.heard_ms) for each in by_day] == [
        ("2023-11-15", 2, 3),
        ("2023-11-14", 1, 20),
    ]
    assert total(by_day) == Used(heard_ms=23, characters=5)
    (only,) = usage.sums("p", "key", from_day="2023-11-15", key_id="k2")
    assert (only.group, only.used.heard_ms) == ("k2", 2)
    assert total(usage.sums(None, "session")).heard_ms == 1023
    assert usage.of_session("p", "d") is None
    assert usage.of_session("p", "b") == Used(heard_ms=1, characters=5)
