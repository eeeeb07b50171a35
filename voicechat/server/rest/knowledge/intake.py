"""Uploaded files of knowledge bases: their bytes on disk, and the durable tasks that
ingest them.

The record of a file says UPLOADING before its task exists. Whatever dies in between,
`KnowledgeIntake.reconcile` submits the task again, under the same name, and ends the
files whose task has failed. Bytes that no record names are removed.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from voicechat.config import Config
from voicechat.config.knowledge import FILES_FOLDER, knowledge_folder
from voicechat.errors import AdmissionError, ConfigError
from voicechat.knowledge.ingestion import Ingestion
from voicechat.knowledge.interface import FileStatus, KnowledgeFile, KnowledgeStore
from voicechat.runtime.services import Services
from voicechat.server.auth import Principal
from voicechat.server.rest.knowledge.document_texts import DocumentTexts
from voicechat.server.rest.transcribing import Transcriber, owner_of
from voicechat.server.rest.uploads import DiskLimits, RecordingFolder, Upload
from voicechat.store.tasks.interface import ReportProgress, StoredTask, Submission

WORK = "knowledge"
LIMITS = DiskLimits(
    file_bytes=100 * 1024**2 - 1, owner_bytes=100 * 1024**3, total_bytes=400 * 1024**3
)
"""The document says less than 100 MB. Three full knowledge bases of a key fit."""
RECONCILE_S = 15.0
UNRECORDED_S = 40.0
"""How long bytes may be without a record: between the end of an upload and its record,
which the database may delay for 30 s. With ``RECONCILE_S`` it is less than a minute.
"""
DATABASE_RETRY_S = 10.0
RECONCILED_AT_ONCE = 200
"""Waiting files that one round looks at."""
_REASONS = {
    "attempts_exhausted": "reading the document ended the server's process several times",
    "internal": "internal error",
}

logger = logging.getLogger(__name__)


class KnowledgeIntake:
    """Keeps uploaded files and ingests them. Used between ``start`` and ``aclose``."""

    def __init__(
        self,
        store: KnowledgeStore,
        ingestion: Ingestion,
        transcriber: Transcriber,
        folder: Path,
        *,
        reconcile_s: float = RECONCILE_S,
    ) -> None:
        """``folder`` is for the bytes; several machines share it if they share the
        store.
        """
        self._store = store
        self._ingestion = ingestion
        self._transcriber = transcriber
        self._folder = RecordingFolder(folder, LIMITS, field_name="file", only_recordings=False)
        self._reconcile_s = reconcile_s
        self._reconciling: asyncio.Task[None] | None = None
        transcriber.works[WORK] = self.perform

    async def start(self) -> None:
        """Continue what another process has left."""
        self._reconciling = asyncio.get_running_loop().create_task(
            self._reconcile_regularly(), name="reconcile knowledge files"
        )

    async def aclose(self) -> None:
        """Stop reconciling. Tasks in progress end with the transcriber's store."""
        if self._reconciling is not None:
            self._reconciling.cancel()
            await asyncio.wait([self._reconciling])

    @asynccontextmanager
    async def receiving(self, key_id: str) -> AsyncGenerator[Upload, None]:
        """Receive a file, which is removed unless it is ``kept``."""
        async with self._folder.receiving(key_id) as upload:
            yield upload

    async def ingest(self, principal: Principal, file: KnowledgeFile) -> None:
        """Submit the durable task that makes the passages of a recorded file. If the
        database of tasks cannot be used, ``reconcile`` does it later.
        """
        try:
            await self._submit(file)
        except AdmissionError as error:
            logger.warning("file %s is ingested later: %s", file.id, error.message)

    async def forget(self, file: KnowledgeFile) -> None:
        """Remove the bytes of a deleted file."""
        await self._folder.remove(file.blob)

    def path(self, file: KnowledgeFile) -> Path:
        """Return where the bytes of a file are."""
        return self._folder.path(file.blob)

    async def progress_of(self, file: KnowledgeFile) -> float:
        """Return the share of the ingestion that is done, 0 to 1. Raises
        ``AdmissionError``.
        """
        if file.status is not FileStatus.UPLOADING:
            return 1.0
        return (await self._submit(file)).progress

    async def perform(self, task: StoredTask, report: ReportProgress) -> str:
        """Ingest the file of a task; see ``Work``."""
        project, file_id = str(task.payload["project"]), str(task.payload["file"])
        while True:  # ends when the database answers, or the task is cancelled
            try:
                status = await self._ingestion.ingest(project, file_id, self.path, report)
                return "" if status is None else status.value
            except AdmissionError as error:
                logger.warning("file %s cannot be ingested now: %s", file_id, error.message)
            await asyncio.sleep(DATABASE_RETRY_S)

    async def reconcile(self) -> None:
        """Submit the tasks of waiting files again, end those whose task has ended
        without them, and remove bytes without a record. Raises ``AdmissionError`` and
        ``OSError``.
        """
        if not self._store.in_use:
            return
        for file in (await self._store.waiting_files())[:RECONCILED_AT_ONCE]:
            task = await self._submit(file)
            if task.status.finished:
                await self._end(file, _REASONS.get(task.error, task.error or "internal error"))
        await self._folder.sweep(await self._store.blobs_in_use(), UNRECORDED_S)

    async def _submit(self, file: KnowledgeFile) -> StoredTask:
        project = file.scope.project
        submission = Submission(
            owner=owner_of(project, "", kind=WORK),
            share=f"{project}/{WORK}",
            payload={"work": WORK, "project": project, "file": file.id},
            fingerprint=file.id,
            idempotency_key=file.id,
        )
        task, _ = await self._transcriber.tasks.submit_task(submission)
        return task

    async def _end(self, file: KnowledgeFile, reason: str) -> None:
        now = await self._store.find_file(file.scope.project, file.id)
        if now is not None and now.status is FileStatus.UPLOADING:
            await self._ingestion.fail(now, reason)

    async def _reconcile_regularly(self) -> None:
        while True:
            try:
                await self.reconcile()
            except (AdmissionError, ConfigError, OSError) as error:
                logger.warning("knowledge files could not be reconciled: %s", type(error).__name__)
            await asyncio.sleep(self._reconcile_s)


def open_intake(
    config: Config, services: Services, transcriber: Transcriber, texts: DocumentTexts
) -> KnowledgeIntake | None:
    """Open the intake of the configured knowledge bases; None if there are none."""
    knowledge = services.knowledge
    if knowledge is None:
        return None
    return KnowledgeIntake(
        knowledge.store,
        Ingestion(knowledge.store, knowledge.embedder, texts.read),
        transcriber,
        knowledge_folder(config) / FILES_FOLDER,
    )
