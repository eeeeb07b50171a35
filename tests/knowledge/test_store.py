"""Knowledge stores keep files, passages and Q&A records apart by project, and forget at
once.
"""

import asyncio
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.knowledge.conftest import CACHE_BYTES, OpenStore
from voicechat.documents.passage import Passage
from voicechat.errors import AdmissionError, Status
from voicechat.knowledge import interface, statements
from voicechat.knowledge.interface import (
    FileStatus,
    KnowledgeScope,
    KnowledgeStore,
    TooManyError,
    Windows,
)
from voicechat.knowledge.sqlite_store import SqliteKnowledgeStore

pytestmark = pytest.mark.real_time
MINE = KnowledgeScope(project="mine", base="handbook")
THEIRS = KnowledgeScope(project="theirs", base="handbook")


def axis(number: int, others: float = 0.0) -> np.ndarray:
    vector = np.full(4, others, np.float32)
    vector[number] = 1
    return vector / np.float32(np.linalg.norm(vector))


def windows(*axes: int) -> Windows:
    """One window for each passage, in the direction of an axis."""
    vectors = np.stack([axis(number) for number in axes])
    return Windows(tuple(range(len(axes))), vectors, "axes")


async def put(
    store: KnowledgeStore,
    scope: KnowledgeScope,
    title: str,
    *texts: str,
    axes: tuple[int, ...] = (),
) -> str:
    """Store a file of passages, whose vectors are these axes."""
    file = await store.add_file(scope, title, 10, f"blob of {title}")
    await store.put_passages(
        scope.project,
        file.id,
        "\n\n".join(texts),
        [Passage(text=text, headings=("Chapter",), page=3) for text in texts],
        pages=7,
        windows=windows(*axes) if axes else None,
    )
    return file.id


async def words_find(store: KnowledgeStore, scope: KnowledgeScope, text: str) -> list[str]:
    found = await store.by_words("file", scope.project, [scope.base], text, 10)
    return [finding.content for finding in found]


async def vectors_find(store: KnowledgeStore, scope: KnowledgeScope, number: int) -> list[str]:
    found = await store.by_vector(
        "file", scope.project, [scope.base], axis(number), 10, embedder="axes"
    )
    return [finding.content for finding in found]


async def test_a_file_goes_from_uploading_to_enabled_to_gone(store: KnowledgeStore) -> None:
    made = await store.add_file(MINE, "说明书.pdf", 12, "blob")
    assert (made.status, made.snippet, made.size, made.blob) == (
        FileStatus.UPLOADING,
        "",
        12,
        "blob",
    )
    assert await store.waiting_files() == [made]
    assert await store.content_of("mine", made.id) == ""
    passage = Passage(text="保修期为两年。", headings=("保修",), page=2)
    enabled = await store.put_passages(
        "mine", made.id, "# 保修\n\n保修期为两年。", [passage], pages=2
    )
    assert enabled == await store.find_file("mine", made.id)
    assert enabled == replace(
        made, status=FileStatus.ENABLED, snippet="# 保修 保修期为两年。", pages=2, passages=1
    )
    assert await store.waiting_files() == []
    assert await store.content_of("mine", made.id) == "# 保修\n\n保修期为两年。"
    [found] = await store.by_words("file", "mine", ["handbook"], "保修期多久？", 5)
    assert (found.title, found.headings, found.page, found.source_id, found.position) == (
        "说明书.pdf",
        ("保修",),
        2,
        made.id,
        0,
    )
    assert await store.blobs_in_use() == {"blob"}
    assert await store.delete_file("mine", made.id) == enabled
    assert await store.find_file("mine", made.id) is None
    assert await store.delete_file("mine", made.id) is None
    assert await store.content_of("mine", made.id) is None
    assert await store.blobs_in_use() == set()
    assert await words_find(store, MINE, "保修期") == []


async def test_a_failed_file_says_why_and_can_be_mended(store: KnowledgeStore) -> None:
    made = await store.add_file(MINE, "a.pdf", 1, "blob")
    failed = await store.set_status("mine", made.id, FileStatus.ERROR, "it is encrypted")
    assert failed == replace(made, status=FileStatus.ERROR, error="it is encrypted")
    mended = await store.put_passages("mine", made.id, "text", [Passage(text="text")])
    assert mended is not None
    assert (mended.status, mended.error) == (FileStatus.ENABLED, "")


async def test_passages_put_twice_are_there_once(store: KnowledgeStore) -> None:
    made = await store.add_file(MINE, "a.txt", 1, "blob")
    passages = [Passage(text="the quick fox"), Passage(text="a lazy dog")]
    for _ in range(2):
        await store.put_passages(
            "mine",
            made.id,
            "text",
            passages,
            windows=windows(0, 1),
        )
    assert await words_find(store, MINE, "foxes") == ["the quick fox"]
    assert await vectors_find(store, MINE, 1) == ["a lazy dog", "the quick fox"]
    await store.put_passages("mine", made.id, "text", [Passage(text="only cats")])
    assert await words_find(store, MINE, "foxes") == []
    assert await vectors_find(store, MINE, 1) == []
    assert await words_find(store, MINE, "cat") == ["only cats"]


async def test_passages_of_a_deleted_file_are_not_stored(store: KnowledgeStore) -> None:
    made = await store.add_file(MINE, "a.txt", 1, "blob")
    await store.delete_file("mine", made.id)
    assert await store.put_passages("mine", made.id, "text", [Passage(text="fox")]) is None
    assert await words_find(store, MINE, "fox") == []


async def test_texts_that_no_database_keeps_are_mended(store: KnowledgeStore) -> None:
    odd = "half \ud83d of a pair, and\0 nothing"
    made = await store.add_file(MINE, odd, 1, "blob")
    await store.put_passages("mine", made.id, odd, [Passage(text=odd, headings=(odd,))])
    [found] = await store.by_words("file", "mine", ["handbook"], odd, 5)
    assert found.content == found.title == "half ? of a pair, and nothing"
    question = await store.add_qa(MINE, odd, odd)
    assert question.question == question.answer == found.content


async def test_a_passage_is_as_near_as_its_nearest_window(store: KnowledgeStore) -> None:
    made = await store.add_file(MINE, "a.txt", 1, "blob")
    parts = Windows((0, 0, 1), np.stack([axis(0), axis(1), axis(2, others=0.5)]), "axes")
    texts = [Passage(text="first"), Passage(text="second")]
    await store.put_passages("mine", made.id, "text", texts, windows=parts)
    for near in (0, 1):
        assert await vectors_find(store, MINE, near) == ["first", "second"]
    assert await vectors_find(store, MINE, 2) == ["second", "first"]
    [best, _] = await store.by_vector("file", "mine", ["handbook"], axis(1), 5, embedder="axes")
    assert best.score == pytest.approx(1)


async def test_one_project_never_sees_anothers(store: KnowledgeStore) -> None:
    mine = await put(store, MINE, "mine.txt", "the fox is mine", axes=(0,))
    theirs = await put(store, THEIRS, "theirs.txt", "the fox is theirs", axes=(0,))
    question = await store.add_qa(
        THEIRS, "Where is the fox?", "There.", vector=axis(0), embedder="axes"
    )
    assert await words_find(store, MINE, "fox") == ["the fox is mine"]
    assert await vectors_find(store, MINE, 0) == ["the fox is mine"]
    assert await store.by_words("qa", "mine", ["handbook"], "Where is the fox?", 5) == []
    assert await store.by_vector("qa", "mine", ["handbook"], axis(0), 5, embedder="axes") == []
    assert await store.find_file("mine", theirs) is None
    assert await store.content_of("mine", theirs) is None
    assert await store.set_status("mine", theirs, FileStatus.NOT_ENABLED) is None
    assert await store.put_passages("mine", theirs, "x", [Passage(text="x")]) is None
    assert await store.delete_file("mine", theirs) is None
    assert await store.find_qa("mine", question.id) is None
    assert await store.change_qa("mine", question.id, "q", "a") is None
    assert await store.delete_qa("mine", question.id) is None
    files, total = await store.list_files(MINE, 1, 10)
    assert ([file.id for file in files], total) == ([mine], 1)
    assert await store.list_qa(MINE, 1, 10) == ([], 0)
    assert await words_find(store, THEIRS, "fox") == ["the fox is theirs"]


async def test_other_projects_and_bases_do_not_change_a_score(store: KnowledgeStore) -> None:
    await put(store, MINE, "a.txt", "the fox sleeps", "the dog barks")
    before = await store.by_words("file", "mine", ["handbook"], "fox", 5)
    await put(store, THEIRS, "b.txt", *["the fox runs"] * 20)
    await put(store, replace(MINE, base="other"), "c.txt", *["the fox jumps"] * 20)
    after = await store.by_words("file", "mine", ["handbook"], "fox", 5)
    assert [found.score for found in after] == [found.score for found in before]


async def test_only_enabled_files_are_searched(store: KnowledgeStore) -> None:
    made = await put(store, MINE, "a.txt", "the fox", axes=(0,))
    assert await vectors_find(store, MINE, 0) == ["the fox"]
    await store.set_status("mine", made, FileStatus.NOT_ENABLED)
    assert await words_find(store, MINE, "fox") == []
    assert await vectors_find(store, MINE, 0) == []
    assert await store.content_of("mine", made) == "the fox"
    await store.set_status("mine", made, FileStatus.ENABLED)
    assert await words_find(store, MINE, "fox") == ["the fox"]
    assert await vectors_find(store, MINE, 0) == ["the fox"]


async def test_vectors_of_another_embedder_are_not_compared(store: KnowledgeStore) -> None:
    await put(store, MINE, "a.txt", "the fox", axes=(0,))
    assert await store.by_vector("file", "mine", ["handbook"], axis(0), 5, embedder="other") == []


async def test_two_processes_see_each_others_changes_at_once(
    store: KnowledgeStore, open_store: OpenStore
) -> None:
    other = open_store()
    await other.start()
    try:
        kept = await put(store, MINE, "a.txt", "the fox", axes=(0,))
        gone = await put(store, MINE, "b.txt", "the dog", axes=(1,))
        assert await vectors_find(other, MINE, 1) == ["the dog", "the fox"]
        await store.delete_file("mine", gone)
        assert await vectors_find(other, MINE, 1) == ["the fox"]
        assert await words_find(other, MINE, "dog") == []
        await other.put_passages("mine", kept, "x", [Passage(text="a cat")], windows=windows(2))
        assert await vectors_find(store, MINE, 2) == ["a cat"]
    finally:
        await other.aclose()


async def test_vectors_that_were_dropped_from_memory_are_read_again(tmp_path: Path) -> None:
    store = SqliteKnowledgeStore(tmp_path / "small.sqlite3", 1)
    await store.start()
    await put(store, MINE, "a.txt", "the fox", axes=(0,))
    await put(store, THEIRS, "b.txt", "the dog", axes=(0,))
    for _ in range(2):
        assert await vectors_find(store, MINE, 0) == ["the fox"]
        assert await vectors_find(store, THEIRS, 0) == ["the dog"]
    await store.aclose()


async def test_several_bases_are_searched_together(store: KnowledgeStore) -> None:
    await put(store, MINE, "a.txt", "the fox", axes=(0,))
    await put(store, replace(MINE, base="second"), "b.txt", "a fox and a fox", axes=(0,))
    await put(store, replace(MINE, base="third"), "c.txt", "fox fox fox", axes=(0,))
    bases = ["handbook", "second", "missing"]
    words = await store.by_words("file", "mine", bases, "fox", 5)
    assert {found.scope.base for found in words} == {"handbook", "second"}
    vectors = await store.by_vector("file", "mine", bases, axis(0), 5, embedder="axes")
    assert {found.scope.base for found in vectors} == {"handbook", "second"}
    assert await store.by_words("file", "mine", [], "fox", 5) == []


async def test_lists_are_paged_the_newest_first(store: KnowledgeStore) -> None:
    ids = [(await store.add_file(MINE, f"{number}.txt", 1, "")).id for number in range(5)]
    pages = [await store.list_files(MINE, page, 2) for page in (1, 2, 3, 4)]
    assert [[file.id for file in files] for files, _ in pages] == [
        [ids[4], ids[3]],
        [ids[2], ids[1]],
        [ids[0]],
        [],
    ]
    assert {total for _, total in pages} == {5}


async def test_a_base_takes_a_bounded_number(
    store: KnowledgeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statements, "MAX_FILES", 2)
    monkeypatch.setattr(statements, "MAX_QA_RECORDS", 1)
    first = await store.add_file(MINE, "a", 1, "")
    await store.add_file(MINE, "b", 1, "")
    with pytest.raises(TooManyError, match="2 files"):
        await store.add_file(MINE, "c", 1, "")
    await store.add_file(THEIRS, "c", 1, "")
    await store.set_status("mine", first.id, FileStatus.ERROR)
    await store.add_file(MINE, "c", 1, "")
    await store.add_qa(MINE, "q", "a")
    with pytest.raises(TooManyError, match="1 Q&A records"):
        await store.add_qa(MINE, "q", "a")
    assert (interface.MAX_FILES, interface.MAX_QA_RECORDS) == (300, 10_000)


async def test_the_last_place_is_given_once(
    store: KnowledgeStore, monkeypatch: pytest.MonkeyPatch, open_store: OpenStore
) -> None:
    monkeypatch.setattr(statements, "MAX_FILES", 5)
    other = open_store()
    await other.start()
    results = await asyncio.gather(
        *(one.add_file(MINE, "a", 1, "") for one in [store, other] * 5), return_exceptions=True
    )
    assert sum(isinstance(result, TooManyError) for result in results) == 5
    assert (await store.list_files(MINE, 1, 10))[1] == 5
    await other.aclose()


async def test_a_record_is_found_by_its_question_until_it_changes(store: KnowledgeStore) -> None:
    made = await store.add_qa(MINE, "你们几点关门？", "晚上九点。", vector=axis(0), embedder="axes")
    assert made == await store.find_qa("mine", made.id)
    assert await store.list_qa(MINE, 1, 10) == ([made], 1)
    [found] = await store.by_words("qa", "mine", ["handbook"], "请问几点关门", 5)
    assert (found.kind, found.source_id, found.title, found.content) == (
        "qa",
        made.id,
        "你们几点关门？",
        "晚上九点。",
    )
    assert await store.by_words("qa", "mine", ["handbook"], "九点", 5) == []
    [near] = await store.by_vector("qa", "mine", ["handbook"], axis(0), 5, embedder="axes")
    assert near.source_id == made.id
    assert await words_find(store, MINE, "几点关门") == []
    changed = await store.change_qa("mine", made.id, "Do you deliver?", "Yes.")
    assert changed == replace(made, question="Do you deliver?", answer="Yes.")
    assert await store.by_words("qa", "mine", ["handbook"], "几点关门", 5) == []
    assert await store.by_vector("qa", "mine", ["handbook"], axis(0), 5, embedder="axes") == []
    [found] = await store.by_words("qa", "mine", ["handbook"], "delivering?", 5)
    assert found.content == "Yes."
    assert await store.delete_qa("mine", made.id) == changed
    assert await store.by_words("qa", "mine", ["handbook"], "deliver", 5) == []
    assert await store.list_qa(MINE, 1, 10) == ([], 0)


async def test_a_broken_database_is_told_without_its_contents(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = SqliteKnowledgeStore(tmp_path / "knowledge.sqlite3", CACHE_BYTES)
    await store.start()
    with closing(sqlite3.connect(tmp_path / "knowledge.sqlite3")) as database:
        database.execute("DROP TABLE shelf")
    with pytest.raises(AdmissionError) as raised:
        await store.add_file(MINE, "secret.pdf", 1, "")
    assert raised.value.status is Status.AT_CAPACITY
    assert "secret" not in caplog.text
    await store.aclose()


async def test_nothing_is_opened_before_something_is_stored(tmp_path: Path) -> None:
    store = SqliteKnowledgeStore(tmp_path / "folder" / "knowledge.sqlite3", CACHE_BYTES)
    assert not await store.holds("mine", ["handbook"])
    assert not store.in_use
    assert not (tmp_path / "folder").exists()
    await store.add_qa(MINE, "q", "a")
    assert await store.holds("mine", ["other", "handbook"])
    assert not await store.holds("mine", ["other"])
    assert not await store.holds("theirs", ["handbook"])
    await store.aclose()
