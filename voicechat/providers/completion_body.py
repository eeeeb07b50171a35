"""The body of a chat completion: server-sent events, or one JSON answer of a server
that does not stream. No I/O.
"""

from voicechat.providers.lenient_json import read_json
from voicechat.providers.sse import SseError, SseParser

MAX_JSON_BYTES = 4 << 20
"""Limit of an answer that is not an event stream."""
_BLANK = b"\xef\xbb\xbf \t\r\n"
"""A byte order mark and white space, which may precede the first significant byte."""


class CompletionBody:
    """Splits one body, received in arbitrary pieces, into JSON texts and ``[DONE]``.

    The first byte decides whether it is events or JSON, not the content type: proxies
    and servers mislabel both.
    """

    def __init__(self) -> None:
        self._events = SseParser()
        self._start: bytes | None = b""
        """The bytes before the kind of body is known; None after that."""
        self._json: bytearray | None = None
        self.cut_off = False
        """Whether the body ended within an event."""

    def push_bytes(self, piece: bytes) -> list[str]:
        """Add bytes; returns the texts that they complete. Raises `SseError` if a limit
        is exceeded.
        """
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
        """End the body; returns the remaining texts. A body that is not one JSON value
        is returned line by line.
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
