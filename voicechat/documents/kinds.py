"""Which kind of document a file is, by its content.

The name of a file decides only between kinds of text, because texts of all kinds begin
alike.
"""

import codecs
import io
import re
import zipfile
from enum import Enum

from voicechat.audio.signatures import is_refused
from voicechat.errors import Fault, RemoteProtocolError

SUPPORTED = "pdf, docx, doc, xlsx, xls, pptx, ppt, txt, md, csv, html"
"""For messages."""
HEAD_BYTES = 1024
"""Readers of PDF look for its mark this far into a file (ISO 32000-1, annex H)."""
MAX_PARTS = 20_000
"""Parts of an office file. Documents of thousands of pages have a few thousand."""
MAX_UNPACKED_BYTES = 2 << 30
"""What the parts of an office file may have together, by its own account. A text of the
greatest length that is read, with pictures, stays far below.
"""
_TAIL_BYTES = 66_000
"""A ZIP archive's directory ends within its last 65,557 bytes (APPNOTE.TXT, 4.3.16)."""
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_ZIP = b"PK\x03\x04"


class DocumentKind(Enum):
    """The kinds of documents that are read."""

    PDF = "pdf"
    DOCX = "docx"
    DOC = "doc"
    XLSX = "xlsx"
    XLS = "xls"
    PPTX = "pptx"
    PPT = "ppt"
    CSV = "csv"
    HTML = "html"
    TEXT = "text"
    """Plain text or Markdown."""


_MAIN_PARTS = {
    "word/document.xml": DocumentKind.DOCX,
    "xl/workbook.xml": DocumentKind.XLSX,
    "ppt/presentation.xml": DocumentKind.PPTX,
}
_OLE_STREAMS = {
    "WordDocument": DocumentKind.DOC,
    "Workbook": DocumentKind.XLS,
    "PowerPoint Document": DocumentKind.PPT,
}
_OTHER_ARCHIVES = {"mimetype": "an OpenDocument or EPUB file", "xl/workbook.bin": "an xlsb file"}


def kind_of(content: bytes, suffix: str) -> DocumentKind:
    """Determine the kind of a file. ``suffix`` is that of its name, such as ``.csv``.

    Raises ``RemoteProtocolError`` (UNSUPPORTED_FORMAT, or TOO_LARGE for an archive
    that claims to unfold without a bound) whose message says what the file is.
    """
    if not content.strip(b"\0 \t\r\n"):
        raise unsupported("is empty")
    head = content[:HEAD_BYTES]
    if head.startswith(_ZIP):
        return _kind_of_archive(content)
    if head.startswith(_OLE):
        return _kind_of_ole(content)
    if _is_pdf(content):
        if b"PK\x05\x06" in content[-_TAIL_BYTES:]:
            raise unsupported("is a PDF and an archive at once")
        return DocumentKind.PDF
    if _start(head).startswith((b"<!doctype html", b"<html")):
        return DocumentKind.HTML
    if _start(head).startswith(b"{\\rtf"):
        raise unsupported("is RTF, although its name may say doc")
    if _is_other(head):
        raise unsupported("is a picture, a program, an archive or markup")
    return DocumentKind.CSV if suffix.lower() in (".csv", ".tsv") else DocumentKind.TEXT


def unsupported(what: str) -> RemoteProtocolError:
    """Return the error for a file that cannot be read; ``what`` continues "the
    document".
    """
    return RemoteProtocolError(
        Fault.UNSUPPORTED_FORMAT, f"the document {what}; these formats are read: {SUPPORTED}"
    )


def encrypted() -> RemoteProtocolError:
    """Return the error for a file that opens with a password only."""
    return RemoteProtocolError(
        Fault.UNSUPPORTED_FORMAT,
        "the document is encrypted; save it without a password and upload it again",
    )


def _is_pdf(content: bytes) -> bool:
    """Whether the mark of a PDF begins the file, or stands behind something else and
    the file ends like one. A text may mention the mark.
    """
    at = content.find(b"%PDF-", 0, HEAD_BYTES)
    return at == 0 or (at > 0 and b"startxref" in content[-HEAD_BYTES:])


def _is_other(head: bytes) -> bool:
    """Whether a file is something else by its first bytes. What begins like JSON, an
    address or a list is a text.
    """
    start = _start(head)
    if start.startswith((b"<!doctype html", b"<html", b"<?xml", b"<svg", b"<script", b"<?php")):
        return True
    text_like = start.startswith((b"<", b"{", b"[", b"#ext", b"ffconcat", b"v=0", b"http", b"file"))
    return not text_like and not start.startswith(b"%pdf") and is_refused(head)


def _start(head: bytes) -> bytes:
    """Return the first letters of a text in lower case, without its mark."""
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        head = head.decode("utf-16", "ignore").encode("utf-8", "ignore")
    return head.removeprefix(codecs.BOM_UTF8).lstrip().lower()


def _kind_of_archive(content: bytes) -> DocumentKind:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            parts = archive.infolist()
    except (zipfile.BadZipFile, ValueError, EOFError, NotImplementedError, OverflowError):
        raise unsupported("is a damaged archive") from None
    names = {part.filename for part in parts}
    for name, kind in _MAIN_PARTS.items():
        if name in names:
            unpacked_bytes = sum(part.file_size for part in parts)
            if len(parts) > MAX_PARTS or unpacked_bytes > MAX_UNPACKED_BYTES:
                raise RemoteProtocolError(
                    Fault.TOO_LARGE,
                    f"the document unfolds to {len(parts)} parts of {unpacked_bytes} bytes; "
                    f"{MAX_PARTS} of {MAX_UNPACKED_BYTES} in all are allowed",
                )
            return kind
    for name, what in _OTHER_ARCHIVES.items():
        if name in names:
            raise unsupported(f"is {what}")
    raise unsupported("is an archive")


def _kind_of_ole(content: bytes) -> DocumentKind:
    """Find the main stream's entry in the directory of a compound file: its name in
    UTF-16 (MS-CFB, 2.6.1).
    """
    if _has_entry(content, "EncryptedPackage"):
        raise encrypted()
    for name, kind in _OLE_STREAMS.items():
        if _has_entry(content, name):
            return kind
    raise unsupported("is no document of Word, Excel or PowerPoint 97 to 2003")


def _has_entry(content: bytes, name: str) -> bool:
    encoded = (name + "\0").encode("utf-16-le")
    size = len(encoded).to_bytes(2, "little")
    # An entry has 128 bytes: the name in 64 of them, then its length.
    return any(
        content[found.start() + 64 : found.start() + 66] == size
        for found in re.finditer(re.escape(encoded), content)
    )
