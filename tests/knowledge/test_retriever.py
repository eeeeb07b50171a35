"""A search joins words and vectors, goes on without a half, and knows its questions."""

import asyncio
from collections.abc import Sequence

import pytest

from tests.knowledge.conftest import OpenStore
from tests.knowledge.word_embedder import WordEmbedder
from voicechat.documents.passage import Passage
from voicechat.errors import AdmissionError, FailureKind, ProviderError, Status
from voicechat.knowledge.embedding import embed_in_batches, embed_passages, embed_question
from voicechat.knowledge.interface import (
    FileStatus,
    Finding,
    KnowledgeScope,
    KnowledgeStore,
    Windows,
)
from voicechat.knowledge.retriever import Retriever, fuse
from voicechat.knowledge.windows import windows_of
from voicechat.providers.interfaces import EmbeddingRequest, Embeddings

pytestmark = pytest.mark.real_time
MINE = KnowledgeScope(project="mine", base="handbook")
PATIENT_S = 60.0


class Stage:
    """A retriever, and what it left out."""

    def __init__(self, store: KnowledgeStore) -> None:
        self.store = store
        self.embedder = WordEmbedder()
        self.retriever = Retriever(store, self.embedder)
        self.omitted: list[tuple[str, str]] = []
        self.retriever.on_omission = lambda half, reason: self.omitted.append((half, reason))

    async def put(self, title: str, *texts: str, scope: KnowledgeScope = MINE) -> str:
        passages = [Passage(text=text) for text in texts]
        positions, parts = windows_of("", passages)
        vectors = await embed_passages(self.embedder, [part.removeprefix(": ") for part in parts])
        windows = Windows(tuple(positions), vectors, self.embedder.identity)
        file = await self.store.add_file(scope, title, 1, "")
        await self.store.put_passages(scope.project, file.id, "", passages, windows=windows)
        return file.id

    async def ask(
        self, text: str, bases: Sequence[str] = ("handbook",), project: str = "mine"
    ) -> list[str]:
        found = await self.retriever.search(project, bases, text, deadline_s=PATIENT_S)
        return [finding.content for finding in found.found]


@pytest.fixture
def stage(store: KnowledgeStore) -> Stage:
    return Stage(store)


async def test_what_both_halves_find_comes_first(stage: Stage) -> None:
    await stage.put("a.txt", "the red fox sleeps", "red paint for walls", "a fox in the snow")
    found = await stage.ask("red fox")
    assert found[0] == "the red fox sleeps"
    assert set(found) == {"the red fox sleeps", "red paint for walls", "a fox in the snow"}
    assert stage.omitted == []


async def test_file_names_are_searched(stage: Stage) -> None:
    await stage.put("Invoice 2024-17.pdf", "to be paid in two weeks")
    await stage.put("b.txt", "something else")
    assert (await stage.ask("invoice 2024-17"))[0] == "to be paid in two weeks"


async def test_a_failing_embedder_leaves_the_words(stage: Stage) -> None:
    await stage.put("a.txt", "the red fox", "blue sky")
    stage.embedder.failure = ProviderError("e", FailureKind.CONNECTIVITY, "down")
    assert await stage.ask("fox") == ["the red fox"]
    assert stage.omitted == [("vectors", "failed")]


async def test_a_failing_store_finds_nothing_and_says_so(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stage.put("a.txt", "the red fox")

    async def fail(*_: object, **__: object) -> list[Finding]:
        raise AdmissionError(Status.AT_CAPACITY, "no database")

    monkeypatch.setattr(stage.store, "by_words", fail)
    assert await stage.ask("fox") == ["the red fox"]
    monkeypatch.setattr(stage.store, "by_vector", fail)
    assert await stage.ask("fox") == []
    monkeypatch.setattr(stage.store, "holds", fail)
    assert await stage.ask("fox") == []
    assert stage.omitted == [
        ("words", "failed"),
        ("words", "failed"),
        ("vectors", "failed"),
        ("words", "failed"),
    ]


async def test_a_late_half_is_left_out(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    await stage.put("a.txt", "the red fox")
    cancelled = asyncio.Event()

    async def never(_: EmbeddingRequest) -> Embeddings:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            cancelled.set()
        raise AssertionError

    monkeypatch.setattr(stage.embedder, "embed", never)
    found = await stage.retriever.search("mine", ["handbook"], "fox", deadline_s=0.1)
    assert [finding.content for finding in found.found] in (["the red fox"], [])
    assert ("vectors", "late") in stage.omitted
    assert cancelled.is_set()


async def test_nothing_is_asked_of_the_embedder_where_nothing_is_held(stage: Stage) -> None:
    await stage.put("a.txt", "the red fox")
    asked = len(stage.embedder.requests)
    assert await stage.ask("fox", bases=["other"]) == []
    assert await stage.ask("fox", project="theirs") == []
    assert await stage.ask("fox", bases=[]) == []
    assert await stage.ask("  ") == []
    assert len(stage.embedder.requests) == asked


async def test_a_deleted_or_switched_off_file_is_gone_at_once(stage: Stage) -> None:
    kept = await stage.put("a.txt", "the red fox")
    gone = await stage.put("b.txt", "a red fox too")
    assert len(await stage.ask("red fox")) == 2
    await stage.store.delete_file("mine", gone)
    assert await stage.ask("red fox") == ["the red fox"]
    await stage.store.set_status("mine", kept, FileStatus.NOT_ENABLED)
    assert await stage.ask("red fox") == []


async def test_projects_and_bases_are_apart(stage: Stage) -> None:
    theirs = KnowledgeScope(project="theirs", base="handbook")
    other = KnowledgeScope(project="mine", base="other")
    await stage.put("a.txt", "my red fox")
    await stage.put("a.txt", "their red fox", scope=theirs)
    await stage.put("a.txt", "another red fox", scope=other)
    assert await stage.ask("red fox") == ["my red fox"]
    assert await stage.ask("red fox", project="theirs") == ["their red fox"]
    assert set(await stage.ask("red fox", ["handbook", "other"])) == {
        "my red fox",
        "another red fox",
    }


@pytest.mark.parametrize(
    ("question", "asked", "same"),
    [
        ("几点关门？", "请问几点关门", True),
        ("How do I cancel an order?", "um how do i cancel the order please", True),
        ("How do I cancel an order?", "how do I change an order", False),
        ("Where is my order?", "When is my order", False),
        ("Can I return it?", "Can I not return it?", False),
        ("Is room 12 free?", "Is room 21 free?", False),
    ],
)
async def test_a_question_in_the_same_words_has_its_answer(
    stage: Stage, question: str, asked: str, same: bool
) -> None:
    vector, name = await embed_question(stage.embedder, question)
    record = await stage.store.add_qa(MINE, question, "The answer.", vector=vector, embedder=name)
    await stage.put("a.txt", "orders are cancelled at the counter", "关门时间")
    found = await stage.retriever.search("mine", ["handbook"], asked, deadline_s=PATIENT_S)
    assert found.answer == (record if same else None)
    if same:
        assert [finding.source_id for finding in found.found] == [record.id]
    else:
        assert "The answer." in [finding.content for finding in found.found]


async def test_few_records_are_among_many_passages(stage: Stage) -> None:
    for number in range(9):
        await stage.store.add_qa(MINE, f"What of fox {number}?", f"Answer {number}.")
    await stage.put("a.txt", *(f"fox {number} is red" for number in range(9)))
    found = await stage.retriever.search("mine", ["handbook"], "the red fox", 6, PATIENT_S)
    assert len(found.found) == 6
    assert sum(finding.kind == "qa" for finding in found.found) <= 2


def ranking(**scores: float) -> list[Finding]:
    return [
        Finding(kind="file", source_id=name, scope=MINE, title="", content=name, score=score)
        for name, score in scores.items()
    ]


@pytest.mark.parametrize(
    ("by_words", "by_vectors", "fused"),
    [
        (ranking(a=9, b=8), ranking(c=0.9, b=0.85, d=0.5), {"b": 0.88, "a": 0.5, "c": 0.5, "d": 0}),
        (ranking(a=9, b=3), [], {"a": 0.5, "b": 0.17}),
        ([], ranking(a=0.9), {"a": 0.5}),
        # A few passages with nearly the same cosine: the words decide.
        (ranking(a=2), ranking(b=0.87, a=0.86), {"a": 0.83, "b": 0.5}),
        ([], [], {}),
    ],
)
def test_what_both_searches_like_comes_first(
    by_words: list[Finding], by_vectors: list[Finding], fused: dict[str, float]
) -> None:
    found = {finding.content: round(finding.score, 2) for finding in fuse(by_words, by_vectors)}
    assert found == fused
    assert list(found) == list(fused)


async def test_many_texts_are_embedded_in_batches_and_in_order() -> None:
    embedder = WordEmbedder(batch=2)
    texts = tuple(f"word{number}" for number in range(5))
    made = await embed_in_batches(embedder, EmbeddingRequest(texts=texts))
    assert [len(request.texts) for request in embedder.requests] == [2, 2, 1]
    whole = await WordEmbedder().embed(EmbeddingRequest(texts=texts))
    assert (made.vectors == whole.vectors).all()
    assert made.prompt_tokens == 5


async def test_starting_loads_nothing_before_something_is_stored(open_store: OpenStore) -> None:
    store, embedder = open_store(), WordEmbedder()
    retriever = Retriever(store, embedder)
    in_use = store.in_use
    await retriever.start()
    assert bool(embedder.requests) == in_use
    await retriever.aclose()
    embedder.failure = ProviderError("e", FailureKind.BROKEN, "no model")
    needed = Retriever(open_store(), embedder, needed=True)
    await needed.start()
    assert embedder.requests
    assert needed.store.in_use
    await needed.aclose()
