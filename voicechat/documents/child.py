"""The processes that read documents; this module is their fork server.

A job's options are JSON: ``path`` of the file, ``suffix`` of its name, ``most_pages``.
Its payloads are requests, each answered by one message or more:

- ``open``: JSON with ``kind`` and ``pages``. Whatever is not a PDF is read as a whole.
- ``page N``, from 0: whether the page is a picture, ``scan`` or ``text``.
- ``picture N``: the page as a PNG file, in pieces.
- ``text N`` and a line end, then Markdown: what the picture of the page says.

The end of the input is answered by the document: messages that begin with ``m`` and are
Markdown, and messages that begin with ``p`` and are JSON, a list of passages.
"""

import codecs
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Protocol

import office_oxide
import orjson
import pdf_oxide

from voicechat.documents.kinds import DocumentKind, encrypted, kind_of, unsupported
from voicechat.documents.pages import joined_paragraphs, mend_page, without_running_heads
from voicechat.documents.plain_text import ENCODINGS, decode_text, table_of_csv
from voicechat.documents.sheets import without_empty_cells
from voicechat.documents.splitting import split_pages
from voicechat.errors import Fault, RemoteProtocolError
from voicechat.processes.fork_server import ForkedJob, JobLimits, JobRefusalError, serve

LIMITS = JobLimits(step_cpu_ms=30_000, total_cpu_s=600, memory_bytes=1 << 30, threads=True)
"""A page of a PDF takes 5 to 20 ms, and an office file of 10 MB a second. The office
reader parses in a thread with a large stack.
"""
MAX_CHARACTERS = 20_000_000
"""Of the Markdown: 8,000 printed pages."""
PIECE_CHARACTERS = 100_000
PIECE_BYTES = 512 * 1024
PIECE_PASSAGES = 100
PICTURE_DPI = 200
"""Resolution at which text readers are accurate: small print has 20 pixels of height.
"""
PICTURE_SIDE = 3_000
"""Longest side of a page's picture in pixels; larger pages get fewer pixels an inch."""
SCAN_SHARE = 0.3
SCAN_CHARACTERS = 40
"""A page is a scan if pictures cover more than 30 % of it and it has at most 40
characters of text, such as a stamp or a page number.
"""
_POINTS_PER_INCH = 72
_PDF_ERRORS = (OSError, RuntimeError, ValueError, LookupError)
"""What the library raises for damaged files."""


class OpenedDocument(Protocol):
    """A document with its pages."""

    kind: DocumentKind
    page_count: int
    is_paged: bool
    """Whether passages have the number of their page."""
    texts: list[str]
    """The Markdown of each page that has been read."""

    def read_page(self, number: int) -> bool:
        """Read a page; return whether it is a picture."""

    def draw_page(self, number: int) -> bytes:
        """Return the picture of a page, as PNG."""


class PdfDocument:
    """A PDF, read page by page."""

    kind = DocumentKind.PDF
    is_paged = True

    def __init__(self, content: bytes, most_pages: int) -> None:
        try:
            self._document = pdf_oxide.PdfDocument.from_bytes(content)
            if not self._document.authenticate(""):
                raise encrypted()
            self.page_count = self._document.page_count()
        except _PDF_ERRORS:
            raise unsupported("is a damaged PDF") from None
        if not self.page_count:
            raise unsupported("is a PDF without pages")
        if self.page_count > most_pages:
            raise RemoteProtocolError(
                Fault.TOO_LARGE,
                f"the document has {self.page_count} pages; {most_pages} are allowed",
            )
        self.texts = [""] * self.page_count

    def read_page(self, number: int) -> bool:
        """Read a page; one that cannot be read is left out."""
        try:
            found = self._document.to_markdown(number)
            self.texts[number] = mend_page(found)
            if len(self.texts[number]) > SCAN_CHARACTERS:
                return False
            signals = orjson.loads(self._document.classify_page(number))["signals"]
        except _PDF_ERRORS:  # a damaged page does not make the others unreadable
            return False
        return bool(signals["image_area_ratio"] > SCAN_SHARE)

    def draw_page(self, number: int) -> bytes:
        """Return the picture of a page, as PNG."""
        left, bottom, right, top = self._document.page_media_box(number)
        longest = max(abs(right - left), abs(top - bottom), 1)
        dpi = min(PICTURE_DPI, PICTURE_SIDE * _POINTS_PER_INCH / longest)
        return bytes(self._document.render_page(number, dpi=max(1, int(dpi)), format="png"))


class WholeDocument:
    """A document that is read at once."""

    def __init__(self, kind: DocumentKind, texts: list[str], *, is_paged: bool = False) -> None:
        self.kind = kind
        self.texts = texts
        self.page_count = len(texts)
        self.is_paged = is_paged

    def read_page(self, number: int) -> bool:
        """It has been read."""
        return False

    def draw_page(self, number: int) -> bytes:
        """Never asked for."""
        raise NotImplementedError


def open_document(content: bytes, suffix: str, most_pages: int) -> OpenedDocument:
    """Open a document of any kind. Raises ``RemoteProtocolError``: UNSUPPORTED_FORMAT,
    TOO_LARGE.
    """
    kind = kind_of(content, suffix)
    if kind is DocumentKind.PDF:
        return PdfDocument(content, most_pages)
    if kind is DocumentKind.TEXT:
        return WholeDocument(kind, [decode_text(content)])
    if kind is DocumentKind.CSV:
        return WholeDocument(
            kind, [table_of_csv(decode_text(content), tabs=suffix.lower() == ".tsv")]
        )
    try:
        markdown = office_oxide.Document.from_bytes(content, kind.value).to_markdown()
    except office_oxide.OfficeOxideError as error:
        if "encrypt" in str(error).lower() or "password" in str(error).lower():
            raise encrypted() from None
        if "limit exceeded" in str(error):
            raise RemoteProtocolError(
                Fault.TOO_LARGE, "the document has a part that unfolds to more than 512 MiB"
            ) from None
        raise unsupported(f"is a damaged {kind.value} file") from None
    if kind in (DocumentKind.XLSX, DocumentKind.XLS):
        markdown = without_empty_cells(markdown)
    if kind in (DocumentKind.PPTX, DocumentKind.PPT):
        return WholeDocument(kind, slides_of(markdown), is_paged=True)
    return WholeDocument(kind, [markdown.strip()])


def slides_of(markdown: str) -> list[str]:
    """Divide a presentation: the reader begins each slide with a heading of level 2."""
    slides: list[list[str]] = [[]]
    for line in markdown.strip().split("\n"):
        if line.startswith("## ") and slides[-1]:
            slides.append([])
        slides[-1].append(line)
    return ["\n".join(slide).strip() for slide in slides]


class DocumentJob:
    """Reads one document."""

    def __init__(self, content: bytes, suffix: str, most_pages: int) -> None:
        self._content = content
        self._suffix = suffix
        self._most_pages = most_pages
        self._document: OpenedDocument | None = None
        self._characters = 0

    def feed_payload(self, payload: bytes) -> Iterator[bytes]:
        """Carry out a request."""
        request, _, text = payload.partition(b"\n")
        name, _, number = request.decode().partition(" ")
        try:
            if name == "open":
                yield self._open()
            elif name == "page":
                yield self._read_page(int(number))
            elif name == "picture":
                yield from _in_pieces(self._opened.draw_page(int(number)))
            else:
                self._opened.texts[int(number)] = text.decode()
                self._count(text.decode())
        except RemoteProtocolError as error:
            raise JobRefusalError(f"{error.fault.name} {error.message}") from error

    def finish_input(self) -> Iterable[bytes]:
        """Return the document."""
        document = self._opened
        texts = document.texts
        if document.kind is DocumentKind.PDF:
            texts = joined_paragraphs(without_running_heads(texts))
        markdown = "\n\n".join(filter(None, texts))
        for begin in range(0, len(markdown), PIECE_CHARACTERS):
            yield b"m" + markdown[begin : begin + PIECE_CHARACTERS].encode("utf-8", "replace")
        passages = split_pages(texts, numbered=document.is_paged)
        for begin in range(0, len(passages), PIECE_PASSAGES):
            some = [asdict(passage) for passage in passages[begin : begin + PIECE_PASSAGES]]
            yield b"p" + orjson.dumps(some)

    @property
    def _opened(self) -> OpenedDocument:
        assert self._document is not None
        return self._document

    def _open(self) -> bytes:
        document = self._document = open_document(self._content, self._suffix, self._most_pages)
        self._content = b""
        for text in document.texts:
            self._count(text)
        return orjson.dumps({"kind": document.kind.value, "pages": document.page_count})

    def _read_page(self, number: int) -> bytes:
        is_scan = self._opened.read_page(number)
        self._count(self._opened.texts[number])
        return b"scan" if is_scan else b"text"

    def _count(self, text: str) -> None:
        self._characters += len(text)
        if self._characters > MAX_CHARACTERS:
            raise RemoteProtocolError(
                Fault.TOO_LARGE,
                f"the text of the document has more than {MAX_CHARACTERS} characters",
            )


def open_job(options: bytes) -> ForkedJob:
    """Read the file, which the sandbox would not allow later."""
    asked = orjson.loads(options)
    return DocumentJob(Path(asked["path"]).read_bytes(), asked["suffix"], asked["most_pages"])


def _in_pieces(content: bytes) -> Iterator[bytes]:
    for begin in range(0, len(content), PIECE_BYTES):
        yield content[begin : begin + PIECE_BYTES]


def main() -> None:
    """Serve until the parent closes the connection."""
    pdf_oxide.disable_logging()
    # Load what is loaded at the first use: the sandbox opens no file.
    for encoding in ENCODINGS:
        codecs.lookup(encoding)
    serve(open_job, LIMITS)


if __name__ == "__main__":
    main()
