"""A knowledge store in a database, whose statements run in threads."""

import asyncio
import logging
from abc import abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import partial
from typing import TypeVar

from voicechat.documents.passage import Passage
from voicechat.errors import AdmissionError, Status
from voicechat.knowledge import statements, words
from voicechat.knowledge.interface import (
    FileStatus,
    Finding,
    KnowledgeFile,
    KnowledgeScope,
    KnowledgeStore,
    QaRecord,
    SourceKind,
    Vector,
    Windows,
)
from voicechat.knowledge.statements import SqlConnection

T = TypeVar("T")
logger = logging.getLogger(__name__)

READERS = 2
"""Searches at once; another one waits for some milliseconds."""


class SqlKnowledgeStore(KnowledgeStore):
    """A `KnowledgeStore`; its subclasses open and close the database."""

    def __init__(self, errors: tuple[type[Exception], ...]) -> None:
        """``errors``: exceptions which mean that the database cannot be used."""
        self._errors = errors
        self._writers = ThreadPoolExecutor(1, "knowledge-write")
        self._readers = ThreadPoolExecutor(READERS, "knowledge-read")
        self._starting = asyncio.Lock()
        self._started = False

    @abstractmethod
    def open(self) -> None:
        """Create or migrate the tables; blocks."""

    @abstractmethod
    def transaction(self, *, writes: bool) -> AbstractContextManager[SqlConnection]:
        """Return this thread's connection. Inside the block it is in a transaction,
        which an exception rolls back.
        """

    @abstractmethod
    def close(self) -> None:
        """Close the connections of all threads, which have ended; blocks."""

    async def start(self) -> None:
        """See ``KnowledgeStore.start``."""
        if not self._started:
            async with self._starting:
                if not self._started:
                    await self._in_thread(self._writers, self._start)
                    self._started = True

    def _start(self) -> None:
        words.load()
        self.open()

    async def aclose(self) -> None:
        """Release everything, after the statements that run."""
        await asyncio.to_thread(self._end)

    def _end(self) -> None:
        self._writers.shutdown()
        self._readers.shutdown()
        self.close()

    async def add_file(
        self, scope: KnowledgeScope, title: str, size: int, blob: str
    ) -> KnowledgeFile:
        """See ``KnowledgeStore.add_file``."""
        return await self._write(statements.add_file, scope, title, size, blob)

    async def find_file(self, project: str, file_id: str) -> KnowledgeFile | None:
        """See ``KnowledgeStore.find_file``."""
        return await self._read(statements.find_file, project, file_id)

    async def list_files(
        self, scope: KnowledgeScope, page: int, page_size: int
    ) -> tuple[list[KnowledgeFile], int]:
        """See ``KnowledgeStore.list_files``."""
        return await self._read(statements.list_files, scope, page, page_size)

    async def set_status(
        self, project: str, file_id: str, status: FileStatus, error: str = ""
    ) -> KnowledgeFile | None:
        """See ``KnowledgeStore.set_status``."""
        return await self._write(statements.set_status, project, file_id, status, error)

    async def delete_file(self, project: str, file_id: str) -> KnowledgeFile | None:
        """See ``KnowledgeStore.delete_file``."""
        return await self._write(statements.delete_file, project, file_id)

    async def content_of(self, project: str, file_id: str) -> str | None:
        """See ``KnowledgeStore.content_of``."""
        return await self._read(statements.content_of, project, file_id)

    async def put_passages(
        self,
        project: str,
        file_id: str,
        markdown: str,
        passages: Sequence[Passage],
        *,
        pages: int = 0,
        windows: Windows | None = None,
    ) -> KnowledgeFile | None:
        """See ``KnowledgeStore.put_passages``."""
        return await self._write(
            statements.put_passages, project, file_id, markdown, passages, pages, windows
        )

    async def add_qa(
        self,
        scope: KnowledgeScope,
        question: str,
        answer: str,
        *,
        vector: Vector | None = None,
        embedder: str = "",
    ) -> QaRecord:
        """See ``KnowledgeStore.add_qa``."""
        return await self._write(statements.add_qa, scope, question, answer, vector, embedder)

    async def change_qa(
        self,
        project: str,
        qa_id: str,
        question: str,
        answer: str,
        *,
        vector: Vector | None = None,
        embedder: str = "",
    ) -> QaRecord | None:
        """See ``KnowledgeStore.change_qa``."""
        return await self._write(
            statements.change_qa, project, qa_id, question, answer, vector, embedder
        )

    async def find_qa(self, project: str, qa_id: str) -> QaRecord | None:
        """See ``KnowledgeStore.find_qa``."""
        return await self._read(statements.find_qa, project, qa_id)

    async def list_qa(
        self, scope: KnowledgeScope, page: int, page_size: int
    ) -> tuple[list[QaRecord], int]:
        """See ``KnowledgeStore.list_qa``."""
        return await self._read(statements.list_qa, scope, page, page_size)

    async def delete_qa(self, project: str, qa_id: str) -> QaRecord | None:
        """See ``KnowledgeStore.delete_qa``."""
        return await self._write(statements.delete_qa, project, qa_id)

    async def by_words(
        self, kind: SourceKind, project: str, bases: Sequence[str], text: str, limit: int
    ) -> list[Finding]:
        """See ``KnowledgeStore.by_words``."""
        return await self._read(statements.by_words, kind, project, bases, text, limit)

    async def by_vector(
        self,
        kind: SourceKind,
        project: str,
        bases: Sequence[str],
        vector: Vector,
        limit: int,
        *,
        embedder: str,
    ) -> list[Finding]:
        """See ``KnowledgeStore.by_vector``."""
        return await self._read(statements.by_vector, kind, project, bases, vector, limit, embedder)

    async def holds(self, project: str, bases: Sequence[str]) -> bool:
        """See ``KnowledgeStore.holds``."""
        return self.in_use and await self._read(statements.holds, project, bases)

    async def blobs_in_use(self) -> set[str]:
        """See ``KnowledgeStore.blobs_in_use``."""
        return await self._read(statements.blobs_in_use)

    async def waiting_files(self) -> list[KnowledgeFile]:
        """See ``KnowledgeStore.waiting_files``."""
        return await self._read(statements.waiting_files)

    async def _read(self, statement: Callable[..., T], *values: object) -> T:
        await self.start()
        return await self._in_thread(self._readers, partial(self._call, False, statement, *values))

    async def _write(self, statement: Callable[..., T], *values: object) -> T:
        await self.start()
        return await self._in_thread(self._writers, partial(self._call, True, statement, *values))

    def _call(self, writes: bool, statement: Callable[..., T], *values: object) -> T:
        with self.transaction(writes=writes) as database:
            return statement(database, *values)

    async def _in_thread(self, threads: ThreadPoolExecutor, call: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(threads, call)
        except self._errors as error:
            # Only the kind of the error, because its text may quote a document.
            logger.error("the knowledge database cannot be used: %s", type(error).__name__)
            raise AdmissionError(
                Status.AT_CAPACITY, "knowledge cannot be read or written now; try again"
            ) from error
