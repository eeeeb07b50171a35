"""What a knowledge base holds, and the interface of its store.

A *knowledge base* has a name and belongs to a project, which is that of the caller's
key. It holds *files*, which ingestion divides into passages, and *Q&A records*. Every
method takes the project, so that no project reads another's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Literal, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from voicechat.documents.passage import Passage
from voicechat.errors import AdmissionError, Status

Vectors: TypeAlias = npt.NDArray[np.float32]
"""One vector of length 1 in each row; shape (texts, dimensions)."""
Vector: TypeAlias = npt.NDArray[np.float32]
"""One vector of length 1; shape (dimensions,)."""
SourceKind: TypeAlias = Literal["file", "qa"]

MAX_FILES = 300
"""Valid files of a knowledge base (any status but ERROR), by the wire contract."""
MAX_QA_RECORDS = 10_000
"""Q&A records of a knowledge base. The wire contract names no limit; a search reads all
of them, so there is one.
"""
MAX_PAGE_SIZE = 1000
"""Items of one page of a list."""


@dataclass(frozen=True, slots=True, eq=False)
class Windows:
    """The embedded parts of passages, in the order of the passages; see
    ``voicechat.knowledge.windows``.
    """

    positions: tuple[int, ...]
    """Which passage each belongs to, from 0."""
    vectors: Vectors
    """The vector of each, in the same order."""
    embedder: str
    """``TextEmbedder.identity`` of the vectors' maker."""


class FileStatus(Enum):
    """The state of a file, by the wire contract's names."""

    UPLOADING = "UPLOADING"
    """Ingestion has not finished. The file can be neither read nor deleted."""
    ERROR = "ERROR"
    """Ingestion failed. The file can be deleted and not read."""
    ENABLED = "ENABLED"
    """The file is searched."""
    NOT_ENABLED = "NOT_ENABLED"
    """The file can be read and is not searched."""

    @property
    def readable(self) -> bool:
        """Whether the content can be shown."""
        return self in (FileStatus.ENABLED, FileStatus.NOT_ENABLED)


@dataclass(frozen=True, slots=True, kw_only=True)
class KnowledgeScope:
    """One knowledge base: its name, and the project to which it belongs."""

    project: str
    base: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KnowledgeFile:
    """A file of a knowledge base."""

    id: str
    scope: KnowledgeScope
    title: str
    """The name of the uploaded file."""
    size: int
    """Bytes of the uploaded file."""
    status: FileStatus
    created_s: float
    """Unix time."""
    blob: str
    """The name of the uploaded bytes among the stored files."""
    error: str = ""
    """Why ingestion failed, for the owner."""
    snippet: str = ""
    """The beginning of its text; empty until it has been read."""
    pages: int = 0
    passages: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class QaRecord:
    """A question with its answer."""

    id: str
    scope: KnowledgeScope
    question: str
    answer: str
    created_s: float
    """Unix time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A passage or Q&A record that a search has found."""

    kind: SourceKind
    source_id: str
    """The id of the file or of the Q&A record."""
    position: int = 0
    """Which passage of the file, from 0."""
    scope: KnowledgeScope
    title: str
    """The title of the file, or the question."""
    headings: tuple[str, ...] = ()
    """The headings above the passage, the outermost first."""
    content: str
    """The text of the passage, or the answer."""
    page: int | None = None
    created_s: float = 0.0
    """When the file or the record was made; Unix time."""
    score: float
    """Higher is better. Comparable only within one list."""
    is_asked: bool = False
    """A Q&A record whose question the searched text asks, in the same words but for
    those of politeness. Only a search by words tells it.
    """


@dataclass(frozen=True, slots=True)
class Findings:
    """The result of a search."""

    found: tuple[Finding, ...] = ()
    """The best first."""
    answer: QaRecord | None = None
    """A Q&A record whose question matches so closely that its answer is given as it
    stands.
    """


class TooManyError(AdmissionError):
    """The knowledge base is full: ``MAX_FILES`` or ``MAX_QA_RECORDS``."""

    def __init__(self, what: str, limit: int) -> None:
        super().__init__(
            Status.NOT_ALLOWED_NOW,
            f"the knowledge base has {limit} {what}, which is the most; delete some first",
        )


class KnowledgeStore(Protocol):
    """Knowledge bases that survive their processes and are shared by all of a server.

    No method holds the event loop. All raise ``AdmissionError`` (AT_CAPACITY) when the
    database cannot be used. A method that writes is one transaction; after a
    cancellation it has happened or not.
    """

    @property
    def in_use(self) -> bool:
        """False while nothing has ever been stored."""

    async def start(self) -> None:
        """Open the database, creating or migrating it, and load the dictionaries. The
        first use does it if nobody else has; it holds the event loop for 0.1 s.

        Raises ``ConfigError`` if a package or an extension of the database is missing.
        """

    async def aclose(self) -> None:
        """Release everything."""

    async def add_file(
        self, scope: KnowledgeScope, title: str, size: int, blob: str
    ) -> KnowledgeFile:
        """Record an uploaded file as UPLOADING. Raises ``TooManyError``."""

    async def find_file(self, project: str, file_id: str) -> KnowledgeFile | None:
        """Return a file; None if it does not exist or belongs to another project."""

    async def list_files(
        self, scope: KnowledgeScope, page: int, page_size: int
    ) -> tuple[list[KnowledgeFile], int]:
        """Return a page of files, the newest first, and how many files there are.

        ``page`` counts from 1; ``page_size`` is at most ``MAX_PAGE_SIZE``.
        """

    async def set_status(
        self, project: str, file_id: str, status: FileStatus, error: str = ""
    ) -> KnowledgeFile | None:
        """Change a file's status and error. Returns it, or None as ``find_file``."""

    async def delete_file(self, project: str, file_id: str) -> KnowledgeFile | None:
        """Delete a file with its passages, and return it; None as ``find_file``.

        No search that begins afterwards finds it. The caller deletes the stored bytes.
        """

    async def content_of(self, project: str, file_id: str) -> str | None:
        """Return a file's whole text in Markdown; None as ``find_file``."""

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
        """Replace a file's text and passages; the file becomes ENABLED. Doing it twice
        is doing it once. Returns the file, or None as ``find_file``: it was deleted
        meanwhile, and nothing is stored.

        ``windows``: what is searched by vectors; None without an embedder. Words are
        searched in each passage's ``searched_text(title)``.
        """

    async def add_qa(
        self,
        scope: KnowledgeScope,
        question: str,
        answer: str,
        *,
        vector: Vector | None = None,
        embedder: str = "",
    ) -> QaRecord:
        """Store a Q&A record. ``vector`` is the question's. Raises ``TooManyError``."""

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
        """Replace a Q&A record; None if there is none or it is another project's."""

    async def find_qa(self, project: str, qa_id: str) -> QaRecord | None:
        """Return a Q&A record; None as ``change_qa``."""

    async def list_qa(
        self, scope: KnowledgeScope, page: int, page_size: int
    ) -> tuple[list[QaRecord], int]:
        """Return a page of Q&A records, the newest first, and how many there are."""

    async def delete_qa(self, project: str, qa_id: str) -> QaRecord | None:
        """Delete a Q&A record and return it; None as ``change_qa``."""

    async def by_words(
        self, kind: SourceKind, project: str, bases: Sequence[str], text: str, limit: int
    ) -> list[Finding]:
        """Return what shares words with ``text``, ranked by BM25: passages of ENABLED
        files by their ``searched_text``, or Q&A records by their questions.
        """

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
        """Return what is nearest to ``vector``, ranked by the cosine, as ``by_words``;
        only what the same embedder has embedded.
        """

    async def holds(self, project: str, bases: Sequence[str]) -> bool:
        """Return whether a search in these knowledge bases can find anything. It costs
        nothing while nothing has ever been stored.
        """

    async def blobs_in_use(self) -> set[str]:
        """Return the stored bytes that files of all projects have."""

    async def waiting_files(self) -> list[KnowledgeFile]:
        """Return the files of all projects that are UPLOADING, the oldest first."""
