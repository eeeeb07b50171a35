"""The contents of requests and answers about the files and Q&A records of knowledge
bases.
"""

from typing import Annotated, Literal

from pydantic import Field

from voicechat.knowledge.interface import FileStatus, KnowledgeFile, QaRecord
from voicechat.schema.checked import Check, RequestModel, one_of
from voicechat.server.rest.knowledge.envelope import KnowledgeAnswer, KnowledgePage, written_time
from voicechat.server.rest.media.openai_schemas import FilePart
from voicechat.server.rest.schemas import ResponseModel

MAX_QUESTION_CHARACTERS = 200
MAX_ANSWER_CHARACTERS = 1000


def _at_most(most: int) -> Check:
    def check(text: str) -> str:
        if not text.strip():
            raise ValueError("is empty")
        if len(text) > most:
            raise ValueError(f"{len(text)} characters are more than {most}")
        return text

    return Check(check, {"maxLength": most})


class QaForm(RequestModel):
    """A question with its answer."""

    question: Annotated[str, _at_most(MAX_QUESTION_CHARACTERS)]
    """At most 200 characters."""
    answer: Annotated[str, _at_most(MAX_ANSWER_CHARACTERS)]
    """At most 1,000 characters."""


class KnowledgeFileForm(RequestModel):
    """A form with a file."""

    file: FilePart
    """A document: pdf, docx, doc, xlsx, pptx, txt and others, smaller than 100 MB."""


class KnowledgeFileChange(RequestModel):
    """Whether a file is searched."""

    status: Annotated[str, one_of("ENABLED", "NOT_ENABLED")]


class FileItem(ResponseModel):
    """A file of a knowledge base."""

    id: str
    title: str
    """The name of the uploaded file."""
    snippet: str | None
    """The beginning of its text; null until it has been read."""
    status: Literal["UPLOADING", "ERROR", "ENABLED", "NOT_ENABLED"]
    createdAt: str  # noqa: N815 - the document's name
    error: str | None
    """Why the file cannot be used, with ERROR."""
    progress: float
    """The share of its reading that is done, 0 to 1."""
    passages: int
    """The passages into which its text is divided."""


class FileDetails(ResponseModel):
    """A file's content."""

    id: str
    title: str
    content: str
    """The whole text, in Markdown."""
    downloadUrl: str  # noqa: N815 - the document's name
    """Where the uploaded file can be fetched, with the key."""
    createdAt: str  # noqa: N815 - the document's name
    status: Literal["ENABLED", "NOT_ENABLED"]


class QaItem(ResponseModel):
    """A Q&A record."""

    id: str
    question: str
    answer: str
    createdAt: str  # noqa: N815 - the document's name


class FileAnswer(KnowledgeAnswer):
    """A file."""

    result: FileItem


class FileDetailsAnswer(KnowledgeAnswer):
    """A file's content."""

    result: FileDetails


class FilePage(KnowledgePage):
    """A page of files."""

    list: list[FileItem]


class FilePageAnswer(KnowledgeAnswer):
    """Files, the newest first."""

    result: FilePage


class QaAnswer(KnowledgeAnswer):
    """A Q&A record."""

    result: QaItem


class QaPage(KnowledgePage):
    """A page of Q&A records."""

    list: list[QaItem]


class QaPageAnswer(KnowledgeAnswer):
    """Q&A records, the newest first."""

    result: QaPage


class KnowledgeQuestion(RequestModel):
    """A question to a knowledge base."""

    question: Annotated[str, _at_most(2_000)]
    limit: Annotated[int, Field(ge=1, le=30)] = 6
    """Most passages and records."""


class FoundItem(ResponseModel):
    """What a search has found."""

    type: Literal["file", "qa"]
    title: str
    headings: list[str]
    """The headings above the passage, the outermost first."""
    content: str
    page: int | None
    """The page of the document on which the passage begins."""
    score: float
    """Higher is better; comparable within one answer."""
    url: str


class FoundItems(ResponseModel):
    """The result of a search."""

    found: list[FoundItem]
    """The best first."""
    answer: str | None
    """The fixed answer to the question, if there is one."""


class FoundAnswer(KnowledgeAnswer):
    """The result of a search."""

    result: FoundItems


def file_item(file: KnowledgeFile, progress: float | None = None) -> FileItem:
    """Return a file as it stands in a list. ``progress`` None: nothing is read yet, or
    all of it.
    """
    if progress is None:
        progress = 0.0 if file.status is FileStatus.UPLOADING else 1.0
    return FileItem(
        id=file.id,
        title=file.title,
        snippet=file.snippet or None,
        status=file.status.value,
        createdAt=written_time(file.created_s),
        error=file.error or None,
        progress=progress,
        passages=file.passages,
    )


def file_details(file: KnowledgeFile, content: str, download_url: str) -> FileDetails:
    """Return a readable file with its content."""
    return FileDetails(
        id=file.id,
        title=file.title,
        content=content,
        downloadUrl=download_url,
        createdAt=written_time(file.created_s),
        status="ENABLED" if file.status is FileStatus.ENABLED else "NOT_ENABLED",
    )


def qa_item(record: QaRecord) -> QaItem:
    """Return a Q&A record as it stands in a list."""
    return QaItem(
        id=record.id,
        question=record.question,
        answer=record.answer,
        createdAt=written_time(record.created_s),
    )
