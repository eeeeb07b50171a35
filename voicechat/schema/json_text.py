"""JSON on the wire: strict parsing within limits, and serialisation that cannot
fail.
"""

import json
import re
from collections.abc import Iterable

import orjson

from voicechat.errors import RemoteProtocolError, Status
from voicechat.schema.large_text import LargeText

MAX_NESTING = 64
"""Deepest nesting of a client's JSON. orjson parses 1024 levels but serialises only
254, so deeper values might not be passed on to a chat model; the deepest legitimate
message, a tool's schema, has about 20.
"""

MAX_VALUES = 50_000
"""Most values in a client's JSON: parsing that many takes 10 ms. The largest legitimate
request, 2,048 messages of a few parts and some hundred tools, has half as many.
"""

_PIECE_BYTES = 64 * 1024
_SHOWN_CHARS = 60
_FEW_KEYS = 16
_SURROGATE = re.compile("[\ud800-\udfff]")


def read_json(text: str | bytes) -> object:
    """Parse one JSON value.

    Raises ``RemoteProtocolError(MALFORMED)`` for anything that is not strict JSON: NaN
    and infinite numbers, lone surrogates, nesting beyond ``MAX_NESTING``, more than
    ``MAX_VALUES`` values. Of duplicate keys the last one counts.
    """
    try:
        content = text.encode() if isinstance(text, str) else text
        _bound_values(content)
        value = orjson.loads(content)
    except (orjson.JSONDecodeError, UnicodeEncodeError) as exc:
        raise RemoteProtocolError(Status.MALFORMED, "not valid JSON") from exc
    if (
        not _is_flat(value)
        and content.count(b"{") + content.count(b"[") > MAX_NESTING
        and _nested_deeper_than(value, MAX_NESTING)
    ):
        raise RemoteProtocolError(Status.MALFORMED, f"JSON nested deeper than {MAX_NESTING} levels")
    return value


def read_object(text: str | bytes) -> dict[str, object]:
    """Parse one JSON object as ``read_json`` does; any other value is MALFORMED."""
    value = read_json(text)
    if not isinstance(value, dict):
        raise RemoteProtocolError(Status.MALFORMED, "not a JSON object")
    return value


def write_json(value: object) -> str:
    """Serialise a message. A lone surrogate becomes U+FFFD: no socket can carry it."""
    try:
        return orjson.dumps(value).decode()
    except orjson.JSONEncodeError:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        return _SURROGATE.sub("\ufffd", text)


def shown(value: object) -> str:
    """Quote a value for an error message: as JSON, cut to 60 characters."""
    if isinstance(value, (dict, list)):
        return "an object" if isinstance(value, dict) else "an array"
    if isinstance(value, LargeText):
        return repr(value)
    text = write_json(value[: _SHOWN_CHARS + 1] if isinstance(value, str) else value)
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}…"


def _bound_values(content: bytes) -> None:
    """Raise ``RemoteProtocolError(MALFORMED)`` when there are more than ``MAX_VALUES``.

    Parsing cannot be interrupted, so the size is checked first. The values are counted
    piece by piece, so that in a thread the interpreter lock is released in between.
    """
    if len(content) <= MAX_VALUES:  # shorter than the shortest JSON of that many values
        return
    values, in_text, cut = 1, False, b""
    for start in range(0, len(content), _PIECE_BYTES):
        piece = cut + content[start : start + _PIECE_BYTES]
        whole = piece.rstrip(b"\\")
        # A single backslash at the end escapes the next piece's first character; pairs
        # are literal.
        cut = b"\\" * ((len(piece) - len(whole)) % 2)
        texts = whole.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')
        # Every second part is between quotation marks.
        outside = b"".join(texts[in_text::2])
        in_text ^= len(texts) % 2 == 0
        values += outside.count(b",") + outside.count(b"[") + outside.count(b"{")
        if values > MAX_VALUES:
            raise RemoteProtocolError(Status.MALFORMED, f"JSON of more than {MAX_VALUES} values")


def _is_flat(value: object) -> bool:
    """Whether a value is a small object that nothing is nested in, as most messages
    are: of one with much audio, counting its brackets takes as long as parsing it.
    """
    if not isinstance(value, dict) or len(value) > _FEW_KEYS:
        return False
    return not any(isinstance(child, (dict, list)) for child in value.values())


def _nested_deeper_than(value: object, levels: int) -> bool:
    containers = [value] if isinstance(value, (dict, list)) else []
    for _ in range(levels):
        children = (child for container in containers for child in _children(container))
        containers = [child for child in children if isinstance(child, (dict, list))]
        if not containers:
            return False
    return True


def _children(container: dict[str, object] | list[object]) -> Iterable[object]:
    return container.values() if isinstance(container, dict) else container
