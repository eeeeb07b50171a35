"""Long texts of a JSON body, such as pictures in base64, cut out of it as it arrives.

Parsing 40 MB of JSON holds the interpreter lock for some ten milliseconds, in a thread
as well, and the event loop with it. Without its long texts a body is small. Nothing
here takes longer than a piece of the body needs.
"""

import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from voicechat.errors import RemoteProtocolError, Status

LARGE_BYTES = 256 * 1024
"""Texts of more bytes are cut out. Every usual text but a picture is shorter."""
MOST_REST_BYTES = 5 << 20
"""Bound of the body without its long texts: it is parsed at once."""
MOST_TEXTS = 5_000
"""Most texts of a body, names of fields included. The largest legitimate request has
some hundred.
"""
SLICE_BYTES = 256 * 1024
_ESCAPES = re.compile(rb"[^\"\\]*(?:\\.[^\"\\]*)*", re.DOTALL)
"""The rest of a text, up to its closing quotation mark or an unfinished escape."""


@dataclass(slots=True, eq=False, repr=False)
class LargeText:
    """A long text as it stands in the JSON, between its quotation marks."""

    pieces: list[bytes] = field(default_factory=list)

    def __repr__(self) -> str:
        return f"a text of {sum(map(len, self.pieces))} bytes"

    def slices(self) -> Iterator[bytes]:
        r"""Yield the text in pieces of at most ``SLICE_BYTES``, with ``\/`` as ``/``:
        some serialisers write it so. Other escapes stay.
        """
        cut = b""
        for piece in self.pieces:
            for begin in range(0, len(piece), SLICE_BYTES):
                part = cut + piece[begin : begin + SLICE_BYTES]
                cut = b"\\" if part.endswith(b"\\") else b""
                yield part.removesuffix(b"\\").replace(b"\\/", b"/")
        if cut:
            yield cut


class MayBeLarge:
    """Marks a text field, by ``Annotated``, whose value may also be a `LargeText`."""

    def __get_pydantic_core_schema__(
        self, source: object, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_wrap_validator_function(
            lambda value, check: value if isinstance(value, LargeText) else check(value),
            handler.generate_schema(str),
        )

    def __get_pydantic_json_schema__(
        self, checked: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return handler(checked)


class LargeTextCutter:
    """Cuts the long texts out of one JSON body."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._mark = secrets.token_hex(8)
        self._texts: dict[str, LargeText] = {}
        self._large: LargeText | None = None
        """The long text in which the body is; None: it is in none."""
        self._in_text = False
        self._begin = 0
        """Where in the rest the current text begins."""
        self._escaping = False
        """Whether the last byte begins an escape."""
        self._count = 0

    def push(self, piece: bytes) -> None:
        """Take the next piece. Raises ``RemoteProtocolError``: TOO_LARGE, and MALFORMED
        for too many texts.
        """
        at = 0
        while at < len(piece):
            if self._in_text:
                at = self._take_text(piece, at)
                continue
            quote = piece.find(b'"', at)
            end = len(piece) if quote < 0 else quote + 1
            self._rest += piece[at:end]
            at = end
            if quote >= 0:
                self._open_text()
        if len(self._rest) > MOST_REST_BYTES:
            raise RemoteProtocolError(
                Status.TOO_LARGE,
                f"the body without its pictures is limited to {MOST_REST_BYTES} bytes",
            )

    def finish(self) -> tuple[bytes, dict[str, LargeText]]:
        """Return the rest of the body, and the long texts by the texts that stand for
        them in it.
        """
        return bytes(self._rest), self._texts

    def _open_text(self) -> None:
        self._in_text, self._begin = True, len(self._rest)
        self._count += 1
        if self._count > MOST_TEXTS:
            raise RemoteProtocolError(
                Status.MALFORMED, f"JSON of more than {MOST_TEXTS} texts and names"
            )

    def _take_text(self, piece: bytes, at: int) -> int:
        """Take the current text's part of a piece; return where it ends."""
        begin = at
        if self._escaping:
            at, self._escaping = at + 1, False
        quote = piece.find(b'"', at)
        end = len(piece) if quote < 0 else quote
        if piece.find(b"\\", at, end) >= 0:
            found = _ESCAPES.match(piece, at)
            assert found is not None, "it matches nothing, too"
            end = found.end()
            self._escaping = end < len(piece) and piece[end : end + 1] == b"\\"
            end += self._escaping
        self._keep(piece[begin:end])
        if end < len(piece):
            self._close_text()
            return end + 1
        return end

    def _keep(self, part: bytes) -> None:
        if self._large is not None:
            self._large.pieces.append(part)
            return
        self._rest += part
        if len(self._rest) - self._begin > LARGE_BYTES:
            self._large = LargeText([bytes(self._rest[self._begin :])])
            del self._rest[self._begin :]

    def _close_text(self) -> None:
        if self._large is not None:
            name = f"{self._mark}-{len(self._texts)}"
            self._texts[name] = self._large
            self._rest += name.encode()
            self._large = None
        self._rest += b'"'
        self._in_text = False


def put_back(value: object, texts: dict[str, LargeText]) -> object:
    """Replace the texts that stand for long ones in parsed JSON, in place. A long name
    of a field stays replaced: no field has such a name.
    """
    if isinstance(value, str):
        return texts.get(value, value)
    if isinstance(value, dict):
        for name, item in value.items():
            value[name] = put_back(item, texts)
    elif isinstance(value, list):
        value[:] = [put_back(item, texts) for item in value]
    return value
