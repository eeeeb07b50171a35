"""The body of a chat completion: events, or one JSON answer where a server does not
stream. No I/O.
"""

from voicechat.providers.lenient_json import read_json
from voicechat.providers.sse import SseError, SseParser

MAX_JSON_BYTES = 4 << 20
"""Of an answer that is no event stream."""
_BLANK = b"\xef\xbb\xbf \t\r\n"
"""What may stand before the first byte that counts: a byte order mark and white space.
"""


class CompletionBody:
    """One body, cut anywhere → texts that are JSON each, or ``[DONE]``.

    The first byte decides what it is, not its label: proxies and servers label events
    as JSON and JSON as events.
    """

    def __init__(self) -> None:
        self._events = SseParser()
        self._start: bytes | None = b""
        """What came before it was known what the body is; None: it is known."""
        self._json: bytearray | None = None
        self.cut_off = False
        """Whether the body ended in the middle of an event."""

    def push_bytes(self, piece: bytes) -> list[str]:
        """Take the next piece. Raises `SseError` for a body without bounds."""
        if self._start is not None:
            piece = self._start + piece
            first = piece.lstrip(_BLANK)[:1]
            if not first and len(piece) <= MAX_JSON_BYTES:
                self._start = piece
                return []
            self._start = None
            if first in (b"{", b"["):
                self._json = bytearray()
        if self._json is None:
            return self._events.push_bytes(piece)
        self._json += piece
        if len(self._json) > MAX_JSON_BYTES:
            raise SseError(f"an answer of more than {MAX_JSON_BYTES} bytes")
        return []

    def finish_body(self) -> list[str]:
        """End the body; give what is left. JSON that is not one value is given line by
        line.
        """
        if self._json is not None:
            text = self._json.decode("utf-8-sig", "replace")
            return [text] if read_json(text) is not None else text.splitlines()
        rest = self._events.finish_body()
        if not rest:
            return []
        last = rest[-1].strip()
        self.cut_off = last != "[DONE]" and not isinstance(read_json(last), dict)
        return rest[:-1] if self.cut_off else rest
