"""The child process finds what the store itself finds, at once, and is replaced."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from voicechat.documents.passage import Passage
from voicechat.errors import AdmissionError
from voicechat.knowledge.interface import Finding, KnowledgeScope, SourceKind, Windows
from voicechat.knowledge.search_process import SearchProcess, SearchRequest, decoded, encoded
from voicechat.knowledge.sqlite_store import SqliteKnowledgeStore

CACHE_BYTES = 1 << 20
MINE = KnowledgeScope(project="mine", base="handbook")
THEIRS = KnowledgeScope(project="theirs", base="handbook")
TEXTS = ("the red fox", "红色的狐狸", "a blue door") * 5
VECTORS = np.eye(len(TEXTS), dtype=np.float32)
DEADLINE_S = 120


def test_a_request_arrives_as_it_was_sent() -> None:
    request = SearchRequest(kind="qa", project="p\n", bases=("甲", "b"), limit=3, embedder="e")
    again, vector = decoded(encoded(request, VECTORS[1]))
    assert (again.project, list(again.bases), again.text) == ("p\n", ["甲", "b"], None)
    assert (vector == VECTORS[1]).all()


class Both:
    """One file of knowledge, with and without the process."""

    def __init__(self, file: Path) -> None:
        self.process = SearchProcess(file, CACHE_BYTES)
        self.apart = SqliteKnowledgeStore(file, CACHE_BYTES, self.process)
        self.itself = SqliteKnowledgeStore(file, CACHE_BYTES)

    async def put(self, scope: KnowledgeScope) -> str:
        file = await self.itself.add_file(scope, "a.txt", 1, "")
        passages = [Passage(text=text, headings=("h", "标题"), page=2) for text in TEXTS]
        windows = Windows(tuple(range(len(TEXTS))), VECTORS, "axes")
        await self.itself.put_passages(scope.project, file.id, "", passages, windows=windows)
        return file.id

    async def find(self, kind: SourceKind, text: str, project: str = "mine") -> list[Finding]:
        """Search both ways; returns what both have found."""
        where = (kind, project, ["handbook"])
        words = await self.apart.by_words(*where, text, 50)
        assert words == await self.itself.by_words(*where, text, 50)
        vectors = await self.apart.by_vector(*where, VECTORS[1], 50, embedder="axes")
        assert vectors == await self.itself.by_vector(*where, VECTORS[1], 50, embedder="axes")
        return words + vectors


@pytest.fixture
async def both(tmp_path: Path) -> AsyncIterator[Both]:
    opened = Both(tmp_path / "knowledge.sqlite3")
    yield opened
    await opened.apart.aclose()
    await opened.itself.aclose()


@pytest.mark.long
@pytest.mark.real_time
async def test_the_process_finds_the_same_and_is_replaced(both: Both) -> None:
    async with asyncio.timeout(DEADLINE_S):
        file = await both.put(MINE)
        await both.put(THEIRS)
        await both.apart.start()
        found = await both.find("file", "red fox 狐狸")
        assert {finding.scope.project for finding in found} == {"mine"}
        assert len(found) == 10 + len(TEXTS)

        await both.itself.add_qa(MINE, "几点关门？", "九点。", vector=VECTORS[1], embedder="axes")
        words, vectors = await both.find("qa", "请问几点关门")
        assert (words.is_asked, vectors.is_asked) == (True, False)

        await both.itself.delete_file("mine", file)
        assert await both.find("file", "red fox") == []
        assert await both.find("file", "red fox", "theirs") != []

        [pid] = both.process.pids
        os.kill(pid, signal.SIGKILL)
        while both.process.pids in ((), (pid,)):
            with suppress(AdmissionError):  # until it has been replaced
                await both.find("qa", "几点")
        assert await both.find("qa", "几点") != []
