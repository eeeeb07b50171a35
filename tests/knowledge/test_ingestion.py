"""Ingestion: what becomes of an uploaded file, whatever fails or dies meanwhile."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tools.knowledge_chaos import LEAST_KILLS, torment
from voicechat.documents.passage import Passage
from voicechat.documents.reader import DocumentText
from voicechat.errors import (
    AdmissionError,
    AtCapacityError,
    FailureKind,
    Fault,
    ProviderError,
    RemoteProtocolError,
    Status,
)
from voicechat.knowledge.ingestion import Ingestion
from voicechat.knowledge.interface import FileStatus, KnowledgeFile, KnowledgeScope
from voicechat.knowledge.sqlite_store import SqliteKnowledgeStore
from voicechat.providers.interfaces import EmbeddingRequest, Embeddings, TextEmbedder
from voicechat.server.auth import Principal
from voicechat.server.rest.knowledge.intake import KnowledgeIntake
from voicechat.store.tasks.interface import (
    StoredTask,
    Submission,
    TaskStatus,
    Work,
)

pytestmark = pytest.mark.real_time
SCOPE = KnowledgeScope(project="p", base="handbook")
PRINCIPAL = Principal("key", "p")
PASSAGES = tuple(Passage(text=text, headings=("A",)) for text in ("one", "two", "three"))
TEXT = DocumentText(markdown="one\n\ntwo\n\nthree", passages=PASSAGES, pages=2)
UNREADABLE = RemoteProtocolError(Fault.UNSUPPORTED_FORMAT, "file: the document is encrypted")
BUSY = ProviderError("embedder", FailureKind.CONNECTIVITY, "no answer")
REFUSED = ProviderError("embedder", FailureKind.REJECTED, "no", code="invalid_api_key")


class Embedder(TextEmbedder):
    """Embeds each text as its length, after the failures."""

    def __init__(self, *failures: ProviderError) -> None:
        self.failures = list(failures)
        self.texts: list[str] = []

    @property
    def identity(self) -> str:
        return "scripted/2"

    async def embed(self, request: EmbeddingRequest) -> Embeddings:
        if self.failures:
            raise self.failures.pop(0)
        self.texts += request.texts
        vectors = np.array([[len(text), 1.0] for text in request.texts], np.float32)
        return Embeddings(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


@dataclass
class Reading:
    """Reads every document as ``TEXT``, after the failures."""

    failures: list[Exception] = field(default_factory=list)
    begun: int = 0
    before: Callable[[], Any] | None = None

    async def __call__(
        self, path: Path, title: str, key: str, report: Callable[[float], None]
    ) -> DocumentText:
        self.begun += 1
        if self.before is not None:
            await self.before()
        if self.failures:
            raise self.failures.pop(0)
        await asyncio.to_thread(path.read_bytes)
        report(1.0)
        return TEXT


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteKnowledgeStore]:
    opened = SqliteKnowledgeStore(tmp_path / "knowledge.sqlite3", 1 << 20)
    await opened.start()
    yield opened
    await opened.aclose()


@pytest.fixture
async def file(store: SqliteKnowledgeStore, tmp_path: Path) -> KnowledgeFile:
    (tmp_path / "blob").write_bytes(b"text")
    return await store.add_file(SCOPE, "handbook.txt", 4, "blob")


async def ingest(
    store: SqliteKnowledgeStore,
    file: KnowledgeFile,
    reading: Reading,
    embedder: TextEmbedder | None,
    folder: Path,
    report: Callable[[float], None] = lambda _: None,
) -> KnowledgeFile | None:
    ingestion = Ingestion(store, embedder, reading, retry_s=(0.0, 0.0))
    status = await ingestion.ingest("p", file.id, lambda file: folder / file.blob, report)
    found = await store.find_file("p", file.id)
    assert status == (None if found is None else found.status)
    return found


async def test_a_file_is_read_embedded_and_enabled_once(
    store: SqliteKnowledgeStore, file: KnowledgeFile, tmp_path: Path
) -> None:
    reading, embedder, progress = Reading(), Embedder(), list[float]()
    for _ in range(2):
        found = await ingest(store, file, reading, embedder, tmp_path, progress.append)
        assert found is not None
        assert (found.status, found.pages, found.passages) == (FileStatus.ENABLED, 2, 3)
    assert reading.begun == 1
    assert embedder.texts[0] == "A: one"
    assert progress == [0.5, 1.0, 1.0]
    assert await store.content_of("p", file.id) == TEXT.markdown
    nearest = np.array([1.0, 0.0], np.float32)
    assert (
        len(await store.by_vector("file", "p", ["handbook"], nearest, 9, embedder="scripted/2"))
        == 3
    )
    assert len(await store.by_words("file", "p", ["handbook"], "three", 9)) == 1


async def test_without_an_embedder_words_are_found(
    store: SqliteKnowledgeStore, file: KnowledgeFile, tmp_path: Path
) -> None:
    found = await ingest(store, file, Reading(), None, tmp_path)
    assert found is not None
    assert found.status is FileStatus.ENABLED
    assert len(await store.by_words("file", "p", ["handbook"], "two", 9)) == 1


@pytest.mark.parametrize(
    ("reading", "embedder", "reason"),
    [
        (Reading([UNREADABLE]), Embedder(), "file: the document is encrypted"),
        (Reading(), Embedder(REFUSED), "rejected (invalid_api_key); upload it again"),
        (Reading(), Embedder(BUSY, BUSY, BUSY), "connectivity; upload it again later"),
        (Reading([AtCapacityError("full", 1)] * 3), Embedder(), "full; try again in 1 s"),
        (Reading([FileNotFoundError()]), Embedder(), "not on this machine"),
    ],
)
async def test_what_cannot_be_ingested_is_an_error_with_the_reason(
    store: SqliteKnowledgeStore,
    file: KnowledgeFile,
    reading: Reading,
    embedder: Embedder,
    reason: str,
    tmp_path: Path,
) -> None:
    found = await ingest(store, file, replace(reading), embedder, tmp_path)
    assert found is not None
    assert found.status is FileStatus.ERROR
    assert reason in found.error
    assert await store.by_words("file", "p", ["handbook"], "one", 9) == []


async def test_services_that_fail_for_a_while_are_asked_again(
    store: SqliteKnowledgeStore, file: KnowledgeFile, tmp_path: Path
) -> None:
    reading = Reading([BUSY, AtCapacityError("full", 1)])
    found = await ingest(store, file, reading, Embedder(BUSY), tmp_path)
    assert found is not None
    assert (found.status, found.error) == (FileStatus.ENABLED, "")
    assert reading.begun == 3


async def test_a_file_that_is_deleted_meanwhile_leaves_nothing(
    store: SqliteKnowledgeStore, file: KnowledgeFile, tmp_path: Path
) -> None:
    reading = Reading(before=lambda: store.delete_file("p", file.id))
    assert await ingest(store, file, reading, Embedder(), tmp_path) is None
    assert await store.by_words("file", "p", ["handbook"], "one", 9) == []


class Tasks:
    """A task store in memory that performs what it is told to."""

    def __init__(self) -> None:
        self.works: dict[str, Work] = {}
        self.tasks = self
        self.stored: dict[str, StoredTask] = {}
        self.is_down = False

    async def submit_task(self, submission: Submission) -> tuple[StoredTask, bool]:
        if self.is_down:
            raise AdmissionError(Status.AT_CAPACITY, "tasks cannot be reached now; try again")
        task = StoredTask(
            id=submission.idempotency_key,
            owner=submission.owner,
            payload=submission.payload,
            status=TaskStatus.WAITING,
            created_s=0,
        )
        is_new = task.id not in self.stored
        return self.stored.setdefault(task.id, task), is_new

    async def perform_all(self) -> None:
        for task in list(self.stored.values()):
            if not task.status.finished:
                result = await self.works[str(task.payload["work"])](task, lambda _: None)
                self.end(task.id, TaskStatus.SUCCESS, result=result)

    def end(self, task_id: str, status: TaskStatus, *, result: str = "", error: str = "") -> None:
        task = self.stored[task_id]
        self.stored[task_id] = replace(task, status=status, result=result, error=error)


@dataclass
class Stage:
    store: SqliteKnowledgeStore
    tasks: Tasks
    intake: KnowledgeIntake
    folder: Path

    async def upload(self) -> KnowledgeFile:
        async with self.intake.receiving("key") as upload:
            await upload.write_piece(b"text")
            await upload.finish_upload()
            file = await self.store.add_file(SCOPE, "a.txt", upload.size_bytes, upload.name)
            upload.kept = True
        return file

    async def status(self, file: KnowledgeFile) -> FileStatus:
        found = await self.store.find_file("p", file.id)
        assert found is not None
        return found.status

    def on_disk(self) -> set[str]:
        return {path.name for path in self.folder.iterdir()}


@pytest.fixture
def stage(store: SqliteKnowledgeStore, tmp_path: Path) -> Stage:
    tasks = Tasks()
    ingestion = Ingestion(store, None, Reading())
    folder = tmp_path / "files"
    intake = KnowledgeIntake(store, ingestion, tasks, folder)  # type: ignore[arg-type]
    return Stage(store, tasks, intake, folder)


async def test_a_task_ingests_an_upload(stage: Stage) -> None:
    file = await stage.upload()
    await stage.intake.ingest(PRINCIPAL, file)
    assert await stage.intake.progress_of(file) == 0.0
    await stage.tasks.perform_all()
    assert await stage.status(file) is FileStatus.ENABLED
    await stage.intake.reconcile()
    assert stage.on_disk() == {file.blob}


async def test_a_file_whose_server_died_before_its_task_was_stored_is_ingested(
    stage: Stage,
) -> None:
    forgotten, down = await stage.upload(), await stage.upload()
    stage.tasks.is_down = True
    await stage.intake.ingest(PRINCIPAL, down)
    with pytest.raises(AdmissionError):
        await stage.intake.reconcile()
    stage.tasks.is_down = False
    await stage.intake.reconcile()
    await stage.intake.reconcile()
    assert len(stage.tasks.stored) == 2
    await stage.tasks.perform_all()
    assert await stage.status(forgotten) is await stage.status(down) is FileStatus.ENABLED


async def test_a_file_whose_task_cannot_end_becomes_an_error(stage: Stage) -> None:
    file = await stage.upload()
    await stage.intake.ingest(PRINCIPAL, file)
    stage.tasks.end(file.id, TaskStatus.FAILED, error="attempts_exhausted")
    await stage.intake.reconcile()
    found = await stage.store.find_file("p", file.id)
    assert found is not None
    assert (found.status, found.error) == (
        FileStatus.ERROR,
        "reading the document ended the server's process several times",
    )


async def test_the_bytes_of_a_deleted_file_are_removed_even_if_the_server_died(
    stage: Stage,
) -> None:
    kept, deleted, died = [await stage.upload() for _ in range(3)]
    for file in (deleted, died):
        await stage.store.delete_file("p", file.id)
    await stage.intake.forget(deleted)
    assert stage.on_disk() == {kept.blob, died.blob}
    for path in stage.folder.iterdir():
        os.utime(path, (0, 0))
    await stage.intake.reconcile()
    assert stage.on_disk() == {kept.blob}


async def test_what_reconciles_goes_on_after_failures(stage: Stage) -> None:
    stage.intake._reconcile_s = 0.0
    file = await stage.upload()
    stage.tasks.is_down = True
    await stage.intake.start()
    try:
        await asyncio.sleep(0)
        stage.tasks.is_down = False
        async with asyncio.timeout(120):
            while not stage.tasks.stored:  # noqa: ASYNC110 - a fake has no event
                await asyncio.sleep(0.005)
    finally:
        await stage.intake.aclose()
    assert set(stage.tasks.stored) == {file.id}


@pytest.mark.long
async def test_a_hundred_uploads_end_in_one_state_each(tmp_path: Path) -> None:
    tally = await torment(tmp_path, "", uploads=100, workers=2, seed=5)
    assert tally.wrong == []
    assert tally.ended == {"ENABLED": 80, "ERROR": 20}
    assert tally.kills >= LEAST_KILLS
