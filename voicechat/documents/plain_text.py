"""Text files: their encoding, and tables of comma-separated values."""

import codecs
import csv
import io
import unicodedata
from contextlib import suppress

from voicechat.documents.kinds import unsupported

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_CHINESE = (
    ("gb18030", "gb2312", (0xB0, 0xD7)),
    ("big5hkscs", "big5", (0xA4, 0xC6)),
)
"""Encodings of Chinese: the one that is decoded, the one whose frequent characters are
counted, and the first bytes of those (3,755 of GB 2312, 5,401 of Big5).
"""
ENCODINGS = (
    *("utf-8", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252", "cp437"),
    *(name for names in _CHINESE for name in names[:2]),
)
"""Everything that is decoded here, and the names in archives."""
_SCANNED_CHARACTERS = 20_000
_MOST_STRANGE = 0.02
"""Share of control characters and unassigned ones in a text; binary files have more."""
MAX_COLUMNS = 200


def decode_text(content: bytes) -> str:
    """Decode a text file: UTF-8, UTF-16 and UTF-32 with or without a mark, GB 18030,
    Big5 or Windows-1252. Every line end becomes a line feed.

    Raises ``RemoteProtocolError`` (UNSUPPORTED_FORMAT) for what is no text.
    """
    text = _decoded(content).replace("\r\n", "\n").replace("\r", "\n").lstrip("\ufeff")
    scanned = text[:_SCANNED_CHARACTERS]
    if _strange(scanned) > _MOST_STRANGE * len(scanned):
        raise unsupported("is no text and of no known format")
    return text.replace("\f", "\n\n").replace("\0", "")


def table_of_csv(text: str, *, tabs: bool) -> str:
    """Return comma- or tab-separated values as a Markdown table. Lines that are no
    table are returned as they are.
    """
    first = text[: text.find("\n") if "\n" in text else len(text)]
    delimiter = "\t" if tabs else max(",;\t|", key=first.count)
    try:
        rows = [row[:MAX_COLUMNS] for row in csv.reader(io.StringIO(text), delimiter=delimiter)]
    except csv.Error:
        return text
    rows = [row for row in rows if any(cell.strip() for cell in row)]
    if not rows or max(map(len, rows)) < 2:
        return text
    width = max(map(len, rows))
    lines = [
        "| " + " | ".join(map(_cell, [*row, *[""] * (width - len(row))])) + " |" for row in rows
    ]
    lines.insert(1, "| " + " | ".join(["---"] * width) + " |")
    return "\n".join(lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _decoded(content: bytes) -> str:
    for mark, encoding in _MARKS:
        if content.startswith(mark):
            return content.decode(encoding, "replace")
    if 0 in content[:4096]:
        return _utf_16(content)
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start >= len(content) - 3 and error.reason == "unexpected end of data":
            return content[: error.start].decode("utf-8")  # cut in the last character
    candidates = []
    for encoding, counted, (first, last) in _CHINESE:
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError:
            continue
        candidates.append((_frequent(text[:_SCANNED_CHARACTERS], counted, first, last), text))
    best, text = max(candidates, default=(0.0, ""), key=lambda each: each[0])
    return text if best > 0.5 else content.decode("cp1252", "replace")


def _utf_16(content: bytes) -> str:
    """Decode UTF-16 without a mark in the order that gives the more usual text."""
    texts = []
    for encoding in ("utf-16-le", "utf-16-be"):
        with suppress(UnicodeDecodeError):
            texts.append(content.decode(encoding))
    if not texts:
        raise unsupported("is no text and of no known format")
    return max(texts, key=lambda text: _usual(text[:_SCANNED_CHARACTERS]))


def _usual(text: str) -> int:
    """Count letters of Latin alphabets, spaces and frequent Chinese punctuation."""
    return sum(character.isascii() or character in "，。、：；" for character in text)


def _strange(text: str) -> int:
    """Count control characters and unassigned ones."""
    return sum(
        unicodedata.category(character) in ("Cc", "Cn", "Co", "Cs") and character not in "\n\r\t\f"
        for character in text
    )


def _frequent(text: str, encoding: str, first: int, last: int) -> float:
    """The share of frequent Chinese characters and punctuation among the characters
    that are not ASCII.
    """
    others = [character for character in text if not character.isascii()]
    frequent = 0
    for character in others:
        encoded = character.encode(encoding, "ignore")
        frequent += len(encoded) == 2 and (
            first <= encoded[0] <= last or unicodedata.category(character).startswith("P")
        )
    return frequent / len(others) if others else 0.0
