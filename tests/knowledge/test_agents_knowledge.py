"""Which knowledge bases an agent reads, and what it finds when a service fails."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from voicechat.agents import Agents
from voicechat.documents.passage import Passage
from voicechat.errors import FailureKind, ProviderError, RemoteProtocolError
from voicechat.knowledge.interface import Finding, KnowledgeScope
from voicechat.knowledge.retriever import Retriever
from voicechat.knowledge.sqlite_store import SqliteKnowledgeStore
from voicechat.providers.interfaces import EmbeddingRequest, Embeddings, TextEmbedder
from voicechat.server import knowledge as module
from voicechat.server.knowledge import AgentsKnowledge, source_url
from voicechat.session.agent import Agent

pytestmark = pytest.mark.real_time

ANNA = Agent(name="anna", knowledge=("handbook", "anna"))
AGENTS = Agents({"default": Agent(), "anna": ANNA}, aliases={"4930": "anna"})


class BrokenEmbedder(TextEmbedder):
    """Fails, or never answers."""

    def __init__(self, *, hangs: bool) -> None:
        self._hangs = hangs

    @property
    def identity(self) -> str:
        return "broken/1"

    async def embed(self, request: EmbeddingRequest) -> Embeddings:
        if self._hangs:
            await asyncio.Event().wait()
        raise ProviderError("embedder", FailureKind.CONNECTIVITY, "no answer")


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteKnowledgeStore]:
    store = SqliteKnowledgeStore(tmp_path / "knowledge.sqlite3", 1 << 20)
    await store.start()
    for base in ("anna", "handbook", "other"):
        scope = KnowledgeScope(project="p", base=base)
        file = await store.add_file(scope, f"{base}.txt", 1, "blob")
        passage = Passage(text="Breakfast is served at seven.")
        await store.put_passages("p", file.id, passage.text, [passage])
    yield store
    await store.aclose()


def test_a_service_is_an_agent_its_alias_or_a_base_that_one_reads(
    store: SqliteKnowledgeStore,
) -> None:
    known = AgentsKnowledge(Retriever(store), AGENTS)
    names = ("default", "anna", "4930", "handbook")
    meant = ["default", "anna", "anna", "handbook"]
    assert [known.base_of(name) for name in names] == meant
    with pytest.raises(RemoteProtocolError, match="default, handbook"):
        known.base_of("other")
    assert known.bases_read_by("anna") == ("anna", "handbook")
    assert known.bases_read_by("handbook") == ("handbook",)


async def test_an_agent_reads_its_own_base_and_those_that_it_names(
    store: SqliteKnowledgeStore,
) -> None:
    known = AgentsKnowledge(Retriever(store), AGENTS)
    found = await known.for_request(ANNA, "p", "").knowledge.find("When is breakfast served?")
    assert {finding.title for finding in found.found} == {"anna.txt", "handbook.txt"}
    found = await known.for_request(ANNA, "q", "").knowledge.find("When is breakfast served?")
    assert found.found == ()


@pytest.mark.long
@pytest.mark.parametrize("hangs", [False, True])
async def test_what_words_find_is_not_lost_with_a_broken_embedder(
    store: SqliteKnowledgeStore, monkeypatch: pytest.MonkeyPatch, *, hangs: bool
) -> None:
    monkeypatch.setattr(module, "REQUEST_DEADLINE_S", 60.0)
    known = AgentsKnowledge(Retriever(store, BrokenEmbedder(hangs=hangs)), AGENTS, deadline_s=60)
    question = "When is breakfast served?"
    for consultation in (
        known.for_request(ANNA, "p", ""),
        known.for_conversation(ANNA, "p", ""),
    ):
        assert len((await consultation.knowledge.find(question)).found) == 2
        if consultation.ahead is not None:
            await consultation.ahead.aclose()


def test_the_address_of_a_source() -> None:
    scope = KnowledgeScope(project="我的", base="a b")
    finding = Finding(kind="file", source_id="x1", scope=scope, title="t", content="c", score=1)
    folder = "https://v/api/open-apis/projects/%E6%88%91%E7%9A%84/service/a%20b/kn"
    assert source_url("https://v/", finding) == f"{folder}/files/x1/download"
    record = Finding(kind="qa", source_id="x1", scope=scope, title="t", content="c", score=1)
    assert source_url("https://v", record) == f"{folder}/qa-records/x1"
