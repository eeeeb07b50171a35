"""Server-sent events, incrementally: bytes in any cut → the data of each event.

After
https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation;
only ``data`` matters here, the other fields and comments (keep-alives) are read and
dropped.
"""

MAX_LINE_BYTES = 1 << 20
MAX_EVENT_BYTES = 4 << 20
FIELDS = (b"", b"event", b"id", b"retry")
"""Besides ``data``; the empty name is that of a comment."""


class SseError(Exception):
    """The stream is no event stream, or one without bounds."""


class SseParser:
    """One response body. Lines end with LF, CR or CRLF; UTF-8 is decoded line by line,
    so it may be cut anywhere.
    """

    def __init__(self) -> None:
        self._line = bytearray()
        self._data: list[str] = []
        self._data_bytes = 0
        self._skip_lf = False
        self._first_line = True

    def push(self, body: bytes) -> list[str]:
        """Read the next bytes; give the data of each event they complete. Raises
        `SseError`.
        """
        if not body:
            return []
        events: list[str] = []
        if self._skip_lf:  # the LF of a CRLF that was cut in two
            body = body.removeprefix(b"\n")
        self._skip_lf = body.endswith(b"\r")
        for part in body.replace(b"\r\n", b"\n").replace(b"\r", b"\n").splitlines(keepends=True):
            self._line += part.removesuffix(b"\n")
            if len(self._line) > MAX_LINE_BYTES:
                raise SseError(f"a line of more than {MAX_LINE_BYTES} bytes")
            if part.endswith(b"\n"):
                event = self._take_line(bytes(self._line))
                self._line.clear()
                if event is not None:
                    events.append(event)
        return events

    def finish(self) -> str | None:
        """End the body; give what it ended in the middle of: the data of an event, or a
        line that is no field.

        The standard drops it. It may be the last event of a server that leaves the
        empty line out, or half an event of one that broke down. None: the body ended
        between two events.
        """
        line = bytes(self._line)
        name = line.partition(b":")[0]
        self._line.clear()
        if line:
            self._take_line(line)
        if self._data:
            return "\n".join(self._data)
        return None if name in FIELDS else line.decode("utf-8", "replace").strip() or None

    def _take_line(self, line: bytes) -> str | None:
        if self._first_line:
            self._first_line = False
            line = line.removeprefix(b"\xef\xbb\xbf")
        if not line:
            event = "\n".join(self._data) if self._data else None
            self._data = []
            self._data_bytes = 0
            return event
        name, _, value = line.partition(b":")
        if name == b"data":
            self._data_bytes += len(value)
            if self._data_bytes > MAX_EVENT_BYTES:
                raise SseError(f"an event of more than {MAX_EVENT_BYTES} bytes")
            self._data.append(value.removeprefix(b" ").decode("utf-8", "replace"))
        return None
