"""JSON as compatible servers write it: whatever cannot be used counts as absent. No
I/O.
"""

import json
import re

_DECODER = json.JSONDecoder(parse_constant=lambda _: None, strict=False)
_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")


def read_json(data: str | bytes) -> object:
    """Read JSON; None for what is none. Numbers that JSON does not have (NaN, Infinity)
    are None.

    Its texts are as they came: control characters that are not escaped stay, and halves
    of a surrogate pair are left for `SurrogateJoiner`, or for `well_formed`.
    """
    try:
        value: object = _DECODER.decode(data if isinstance(data, str) else data.decode("utf-8-sig"))
    except (ValueError, RecursionError):  # UnicodeDecodeError is a ValueError
        return None
    return value


def may_hold_halves(data: str) -> bool:
    """Whether a JSON text may have half of a surrogate pair: the rest of the text need
    not be looked through.
    """
    return _SURROGATE_ESCAPE.search(data) is not None


def well_formed(value: object) -> object:
    """Replace each lone half of a surrogate pair in the texts of ``value`` by U+FFFD;
    no encoder takes one.
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
    """A text in pieces that may be cut between the two halves of a surrogate pair: the
    halves are joined.
    """

    def __init__(self) -> None:
        self._half = ""

    def push_text(self, text: str) -> str:
        """Take the next piece; a first half at its end waits for the second, any other
        lone half becomes U+FFFD.
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
