"""Removes Markdown from a line of text and keeps the words. Regular expressions, each
linear in practice.

Not a parser: a reply arrives in pieces, so half a construct is the usual case, and text
that only resembles markup (``2*3``, ``snake_case``, ``C#``, ``a < b``) must be
unchanged.
"""

import re

from voicechat.text.characters import is_cjk

_RULE = re.compile(r"\s*([-*_=])(?:\s*\1){2,}\s*")
_QUOTE = re.compile(r"\s*(?:>\s?)+")
_HEADER = re.compile(r"\s{0,3}#{1,6}\s+")
_HEADER_END = re.compile(r"\s#+\s*\Z")
_BULLET = re.compile(r"\s*[-*+•▪◦]\s+(?:\[[ xX]\]\s+)?")
_TABLE_RULE = re.compile(r"\s*\|?\s*:?-+:?\s*(?:\|\s*:?-+:?\s*)*\|?\s*")
_TABLE_ROW = re.compile(r"\s*\|.*\|\s*")
_CELL_BORDER = re.compile(r"(?<!\\)\|")

_TARGET = r"\(\s*<?[^()\s<>]*(?:\([^()\s]*\)[^()\s<>]*)*>?(?:\s+(?:\"[^\"]*\"|'[^']*'))?\s*\)"
_LINK = re.compile(rf"!?\[([^\[\]]*)\](?:{_TARGET}|\[[^\[\]]*\])")
_LINK_BEGUN = re.compile(r"!?\[(?=[^\[\]]*\Z)")
_LINK_ENDED = re.compile(rf"\A([^\[\]]*)\]{_TARGET}")
_FOOTNOTE = re.compile(r"\[\^[^\[\]\s]*\]:?")

_ADDRESS = re.compile(
    r"<?(?<![A-Za-z0-9])(?:(?:https?|ftp|wss?)://|www\.(?=\w))([!-;=?-_a-z{-~]+)>?", re.IGNORECASE
)
_HOST = re.compile(r"(?:[^/?#@]*@)?(?:www\.)?([^/?#@:]*)", re.IGNORECASE)
_AFTER_ADDRESS = ".,:;!?'\"()[]*_~|{}"
_MAIL_ADDRESS = re.compile(r"<([^\s<>@]+@[^\s<>@]+)>")

_CODE_MARK = re.compile(r"\\?`")
_STARS = re.compile(r"(?<!\\)\*{2,}")
_STARRED = re.compile(r"(?<![A-Za-z0-9*)\\])\*(?=[^\s*])([^*]*[^\s*\\])\*(?![A-Za-z0-9*(])")
_STAR_TORN = re.compile(r"(?<!\S)\*(?=[^\W\d_])|(?<=[.!?,。！？，…])\*(?!\S)")
_UNDERSCORES = re.compile(r"(?<![^\W_])(?<![\\_])_{1,3}(?=[^\s_])|(?<=[^\s_\\])_{1,3}(?![^\W])")
_STRUCK = re.compile(r"~~(?=\S)|(?<=\S)~~")
_ESCAPE = re.compile(r"\\([\\*_{}\[\]()#+.!|>~-])")

_MARKUP = re.compile(r"[\[\]<*`~_\\]|://|www\.", re.IGNORECASE)
"""Most lines contain none of these, and then no pattern above can match."""


def strip_block(line: str) -> str:
    """Remove the marks of a heading, quotation, list item, table row or rule. ``line``
    must be complete at its start.
    """
    if _RULE.fullmatch(line) or ("|" in line and _TABLE_RULE.fullmatch(line)):
        return ""
    line = _QUOTE.sub("", line, count=1) if _QUOTE.match(line) else line
    if _TABLE_ROW.fullmatch(line):
        return _read_row(line)
    if heading := _HEADER.match(line):
        return _HEADER_END.sub("", line[heading.end() :])
    bullet = _BULLET.match(line)
    return line[bullet.end() :] if bullet else line


def strip_inline(line: str) -> str:
    """Remove emphasis, code marks, links (keeping the text), addresses (keeping the
    host) and escapes.
    """
    if not _MARKUP.search(line):
        return line
    line = _FOOTNOTE.sub("", line)
    line = _LINK.sub(r"\1", _LINK.sub(r"\1", line))  # twice, for an image within a link's text
    line = _LINK_BEGUN.sub("", _LINK_ENDED.sub(r"\1", line))
    line = _MAIL_ADDRESS.sub(r"\1", _ADDRESS.sub(_say_host, line))
    line = _STARS.sub(_drop_stars, _CODE_MARK.sub("", line))
    line = _STAR_TORN.sub("", _STARRED.sub(r"\1", line))
    line = _STRUCK.sub("", _UNDERSCORES.sub("", line))
    return _ESCAPE.sub(r"\1", line)


def _drop_stars(stars: re.Match[str]) -> str:
    """Remove two stars or more, but not the power operator in ``2**3``, ``x**2`` and
    ``2 ** 3``.
    """
    left = stars.string[max(0, stars.start() - 1) : stars.start()]
    right = stars.string[stars.end() : stars.end() + 1]
    is_power = left.isalnum() and right.isalnum() and (left.isdigit() or right.isdigit())
    return stars[0] if is_power or (left.isspace() and right.isspace()) else ""


def _read_row(line: str) -> str:
    """Read a table row as an enumeration of its cells."""
    cells = [cell.strip() for cell in _CELL_BORDER.split(line)]
    separator = "，" if any(is_cjk(char) for char in line) else ", "
    return separator.join(cell for cell in cells if cell)


def _say_host(address: re.Match[str]) -> str:
    bare = address[1].rstrip(_AFTER_ADDRESS)
    host = _HOST.match(bare)
    return (host[1] if host else "") + address[1][len(bare) :]
