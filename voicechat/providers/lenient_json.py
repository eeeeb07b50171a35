"""Lenient parsing of the JSON of compatible servers: unusable values count as absent.
No I/O.
"""

import json
import re

_DECODER = json.JSONDecoder(parse_constant=lambda _: None, strict=False)
_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")


def read_json(data: str | bytes) -> object:
    """Parse JSON; returns None if it is invalid. NaN and Infinity become None.

    Texts are unchanged: unescaped control characters stay, and lone surrogates are left
    for `SurrogateJoiner` or `well_formed`.
    """
    try:
        value: object = _DECODER.decode(data if isinstance(data, str) else data.decode("utf-8-sig"))
    except (ValueError, RecursionError):  # UnicodeDecodeError is a ValueError
        return None
    return value


def may_hold_halves(data: str) -> bool:
    """Return whether a JSON text may contain a lone surrogate; if not, its values need
    no check.
    """
    return _SURROGATE_ESCAPE.search(data) is not None


def well_formed(value: object) -> object:
    """Replace each lone surrogate in the texts of ``value`` by U+FFFD, because no
    encoder accepts one.
    """
    match value:
        case str():
            return _mended(value)
        case list():
            return [well_formed(item) for item in value]
        case dict():
            return {_mended(key): well_formed(item) for key, item in value.items()}
        case _:
            return value


class SurrogateJoiner:
    """Joins surrogate pairs in a text that may be split within a pair."""

    def __init__(self) -> None:
        self._half = ""

    def push_text(self, text: str) -> str:
        """Return the next piece. A high surrogate at its end waits for the next piece;
        any other lone surrogate becomes U+FFFD.
        """
        if self._half:
            text, self._half = self._half + text, ""
        if text and "\ud800" <= text[-1] <= "\udbff":
            text, self._half = text[:-1], text[-1]
        return _mended(text)


def _mended(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text
