"""Questions find the passages that answer them, the same on both databases."""

from collections import Counter

import pytest

from tests.knowledge.conftest import CACHE_BYTES, new_database
from tests.knowledge.recorded import RecordedEmbedder, part_of_documents, part_of_questions
from tools.evaluate_knowledge import Read, fill, hit_rates, read_all
from voicechat.knowledge.interface import KnowledgeStore
from voicechat.knowledge.postgres_store import PostgresKnowledgeStore
from voicechat.knowledge.sqlite_store import SqliteKnowledgeStore

pytestmark = [pytest.mark.long, pytest.mark.real_time]


async def rates_of(store: KnowledgeStore, documents: list[Read]) -> dict[tuple[str, str], float]:
    embedder = RecordedEmbedder()
    await store.start()
    try:
        files = await fill(store, documents, embedder)
        return await hit_rates(store, files, part_of_questions(), embedder)
    finally:
        await store.aclose()
        await embedder.aclose()


async def test_both_searches_together_find_most_on_both_databases(
    tmp_path_factory: pytest.TempPathFactory, postgres_url: str
) -> None:
    documents = part_of_documents()
    formats = Counter(document.format for document in documents)
    assert set(formats) >= {"pdf", "docx", "xlsx", "txt", "pptx"}
    assert {document.language for document in documents} == {"en", "zh"}
    read = await read_all(documents)
    file = tmp_path_factory.mktemp("hits") / "knowledge.sqlite3"
    sqlite = await rates_of(SqliteKnowledgeStore(file, CACHE_BYTES), read)
    postgres = await rates_of(PostgresKnowledgeStore(new_database(postgres_url)), read)
    for group in ("all", "en", "zh"):
        both = sqlite["both", group]
        assert both > sqlite["words", group] > 0.5, group
        assert both > sqlite["vectors", group] > 0.5, group
    for key, rate in sqlite.items():
        assert abs(postgres[key] - rate) <= 0.01, key
