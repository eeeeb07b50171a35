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
import io
import re
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Protocol

import office_oxide
import orjson
import pypdfium2 as pdfium
from bs4 import BeautifulSoup
from markdownify import ATX, MarkdownConverter

from voicechat.documents.kinds import DocumentKind, encrypted, kind_of, unsupported
from voicechat.documents.pages import joined_paragraphs, without_running_heads
from voicechat.documents.pdf_pages import (
    PdfLine,
    body_size,
    character_count,
    heading_levels,
    markdown_of,
    read_lines,
)
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


class OpenedDocument(Protocol):
    """A document with its pages."""

    kind: DocumentKind
    page_count: int
    is_paged: bool
    """Whether passages have the number of their page."""

    def read_page(self, number: int) -> bool:
        """Read a page; return whether it is a picture."""

    def characters_of(self, number: int) -> int:
        """Return how many characters a page that has been read has."""

    def texts(self) -> list[str]:
        """Return the Markdown of each page that has been read."""

    def replace_page(self, number: int, markdown: str) -> None:
        """Set what the picture of a page says."""

    def draw_page(self, number: int) -> bytes:
        """Return the picture of a page, as PNG."""


class PdfDocument:
    """A PDF, read page by page."""

    kind = DocumentKind.PDF
    is_paged = True

    def __init__(self, content: bytes, most_pages: int) -> None:
        try:
            self._document = pdfium.PdfDocument(content)
        except pdfium.PdfiumError as error:
            if error.err_code == pdfium.raw.FPDF_ERR_PASSWORD:
                raise encrypted() from None
            raise unsupported("is a damaged PDF") from None
        self.page_count = len(self._document)
        if not self.page_count:
            raise unsupported("is a PDF without pages")
        if self.page_count > most_pages:
            raise RemoteProtocolError(
                Fault.TOO_LARGE,
                f"the document has {self.page_count} pages; {most_pages} are allowed",
            )
        self._lines: list[list[PdfLine]] = [[] for _ in range(self.page_count)]
        self._read_pictures: dict[int, str] = {}

    def read_page(self, number: int) -> bool:
        """Read a page; one that cannot be read is left out."""
        try:
            with closing(self._document[number]) as page:
                lines = self._lines[number] = read_lines(page)
                return (
                    character_count(lines) <= SCAN_CHARACTERS and _picture_share(page) > SCAN_SHARE
                )
        except pdfium.PdfiumError:  # a damaged page does not make the others unreadable
            return False

    def characters_of(self, number: int) -> int:
        """Return how many characters a page that has been read has."""
        return character_count(self._lines[number])

    def draw_page(self, number: int) -> bytes:
        """Return the picture of a page, as PNG."""
        with closing(self._document[number]) as page:
            scale = min(PICTURE_DPI / _POINTS_PER_INCH, PICTURE_SIDE / max(*page.get_size(), 1))
            return _drawn(page, scale)

    def replace_page(self, number: int, markdown: str) -> None:
        """Set what the picture of a page says."""
        self._read_pictures[number] = markdown

    def texts(self) -> list[str]:
        """Return the Markdown of each page."""
        body = body_size(self._lines)
        levels = heading_levels(self._lines, body)
        written = [
            self._read_pictures.get(number) or markdown_of(lines, body, levels)
            for number, lines in enumerate(self._lines)
        ]
        return joined_paragraphs(without_running_heads(written))


def _drawn(page: pdfium.PdfPage, scale: float) -> bytes:
    """Draw a page as PNG, of ``scale`` pixels a point."""
    written = io.BytesIO()
    page.render(scale=scale).to_pil().save(written, "PNG", compress_level=1)
    return written.getvalue()


def _picture_share(page: pdfium.PdfPage) -> float:
    """Return how much of a page its largest picture covers."""
    width, height = page.get_size()
    largest = 0.0
    for picture in page.get_objects(filter=[pdfium.raw.FPDF_PAGEOBJ_IMAGE], max_depth=3):
        left, bottom, right, top = picture.get_bounds()
        largest = max(largest, (right - left) * (top - bottom))
    return largest / (width * height) if width and height else 0.0


class WholeDocument:
    """A document that is read at once."""

    def __init__(self, kind: DocumentKind, texts: list[str], *, is_paged: bool = False) -> None:
        self.kind = kind
        self._texts = texts
        self.page_count = len(texts)
        self.is_paged = is_paged

    def texts(self) -> list[str]:
        """Return the Markdown of each page."""
        return self._texts

    def characters_of(self, number: int) -> int:
        """Return how many characters a page has."""
        return len(self._texts[number])

    def replace_page(self, number: int, markdown: str) -> None:
        """Never asked for."""
        raise NotImplementedError

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
    if kind is DocumentKind.HTML:
        return WholeDocument(kind, [markdown_of_page(decode_text(content))])
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


def markdown_of_page(html: str) -> str:
    """Convert a web page, without its scripts, pictures and targets of links."""
    page = BeautifulSoup(html, "html.parser")
    for hidden in page(["head", "noscript", "script", "style", "template"]):
        hidden.decompose()
    converter = MarkdownConverter(heading_style=ATX, bullets="-", strip=["a", "img"])
    return re.sub(r"\n{3,}", "\n\n", converter.convert_soup(page)).strip()


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
                self._opened.replace_page(int(number), text.decode())
                self._count(len(text))
        except RemoteProtocolError as error:
            raise JobRefusalError(f"{error.fault.name} {error.message}") from error

    def finish_input(self) -> Iterable[bytes]:
        """Return the document."""
        document = self._opened
        texts = document.texts()
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
        if document.kind is not DocumentKind.PDF:
            self._count(sum(map(len, document.texts())))
        return orjson.dumps({"kind": document.kind.value, "pages": document.page_count})

    def _read_page(self, number: int) -> bytes:
        is_scan = self._opened.read_page(number)
        if self._opened.kind is DocumentKind.PDF:
            self._count(self._opened.characters_of(number))
        return b"scan" if is_scan else b"text"

    def _count(self, characters: int) -> None:
        self._characters += characters
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
    # Load what is loaded at the first use: the sandbox opens no file.
    for encoding in ENCODINGS:
        codecs.lookup(encoding)
    markdown_of_page("<p>&eacute;</p>")
    with closing(pdfium.PdfDocument.new()) as document:
        _drawn(document.new_page(10, 10), 1.0)
    serve(open_job, LIMITS)


if __name__ == "__main__":
    main()
