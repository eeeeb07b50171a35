"""The work of making an uploaded file searchable: read it, divide it, embed its
passages, store them.

Doing it again, after a process has died at any moment, gives the same result: passages
are replaced as a whole, and a file that is no longer UPLOADING is left as it is.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np

from voicechat.documents.passage import Passage
from voicechat.documents.reader import DocumentText
from voicechat.errors import AtCapacityError, ProviderError, RemoteProtocolError
from voicechat.knowledge.embedding import embed_passages
from voicechat.knowledge.interface import (
    FileStatus,
    KnowledgeFile,
    KnowledgeStore,
    Vectors,
    Windows,
)
from voicechat.knowledge.windows import windows_of
from voicechat.providers.interfaces import TextEmbedder

READ_SHARE = 0.5
"""Share of the progress that has been made when the text is read."""
RETRY_S = (1.0, 5.0, 20.0, 60.0, 300.0, 900.0, 1800.0)
"""Waits before a service is asked again that may work later: 51 minutes together."""
EMBEDDED_AT_ONCE = 32
"""Passages between two reports of progress. The event loop waits for 2 ms while they
are divided into windows.
"""

T = TypeVar("T")
logger = logging.getLogger(__name__)


class ReadFile(Protocol):
    """Reads a document; see ``DocumentReader.read``."""

    def __call__(
        self, path: Path, title: str, key: str, report: Callable[[float], None]
    ) -> Awaitable[DocumentText]:
        """Read the document at ``path`` on behalf of ``key``. Raises as
        ``DocumentReader.read``, and ``ProviderError`` of a service that reads scans.
        """
        ...


class Ingestion:
    """Makes files searchable."""

    def __init__(
        self,
        store: KnowledgeStore,
        embedder: TextEmbedder | None,
        read: ReadFile,
        retry_s: Sequence[float] = RETRY_S,
    ) -> None:
        """``embedder`` None: passages are found by words only."""
        self._store = store
        self._embedder = embedder
        self._read = read
        self._retry_s = tuple(retry_s)

    async def ingest(
        self,
        project: str,
        file_id: str,
        path_of: Callable[[KnowledgeFile], Path],
        report: Callable[[float], None],
    ) -> FileStatus | None:
        """Make a file ENABLED, or ERROR with the reason; return what it is then. None:
        it has been deleted.

        ``path_of`` returns where the uploaded bytes are. A service that fails for the
        time being is asked again after each wait of ``retry_s``; then the file becomes
        ERROR. Raises ``AdmissionError`` when the store cannot be used: nothing has
        happened then. Cancelling leaves the file UPLOADING.
        """
        file = await self._store.find_file(project, file_id)
        if file is None or file.status is not FileStatus.UPLOADING:
            return None if file is None else file.status
        try:
            text = await self._retrying(lambda: self._text(file, path_of(file), report))
            windows = await self._windows(file.title, text.passages, report)
        except RemoteProtocolError as error:
            return await self.fail(file, error.message)
        except ProviderError as error:
            logger.error("file %s cannot be ingested: %s", file.id, error)
            return await self.fail(file, _reason(error))
        except AtCapacityError as error:
            return await self.fail(file, error.message)
        except FileNotFoundError:
            return await self.fail(
                file, "the uploaded file is not on this machine; upload it again"
            )
        stored = await self._store.put_passages(
            project,
            file_id,
            text.markdown,
            text.passages,
            pages=text.pages,
            windows=windows,
        )
        report(1.0)
        return None if stored is None else stored.status

    async def fail(self, file: KnowledgeFile, reason: str) -> FileStatus | None:
        """Make a file ERROR. Raises ``AdmissionError``."""
        changed = await self._store.set_status(
            file.scope.project, file.id, FileStatus.ERROR, reason
        )
        return None if changed is None else changed.status

    async def _text(
        self, file: KnowledgeFile, path: Path, report: Callable[[float], None]
    ) -> DocumentText:
        key = file.scope.project
        return await self._read(path, file.title, key, lambda done: report(READ_SHARE * done))

    async def _windows(
        self, title: str, passages: Sequence[Passage], report: Callable[[float], None]
    ) -> Windows | None:
        embedder = self._embedder
        if embedder is None:
            return None
        positions: list[int] = []
        parts: list[Vectors] = []
        for begin in range(0, len(passages), EMBEDDED_AT_ONCE):
            some = passages[begin : begin + EMBEDDED_AT_ONCE]
            owners, texts = windows_of(title, some)
            positions += [begin + owner for owner in owners]
            parts.append(await self._retrying(partial(embed_passages, embedder, texts)))
            report(READ_SHARE + (1 - READ_SHARE) * (begin + len(some)) / len(passages))
        return Windows(tuple(positions), np.concatenate(parts), embedder.identity)

    async def _retrying(self, attempt: Callable[[], Awaitable[T]]) -> T:
        for wait_s in self._retry_s:
            try:
                return await attempt()
            except ProviderError as error:
                if not error.retryable:
                    raise
            except AtCapacityError:
                pass  # no process could be started to read the document
            await asyncio.sleep(wait_s)
        return await attempt()


def _reason(error: ProviderError) -> str:
    code = f" ({error.code})" if error.code else ""
    return f"a service that is needed for it fails: {error.kind.value}{code}; upload it again later"
