"""An incremental parser of server-sent events.

After
https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation;
only ``data`` is used. Other fields and comments (keep-alives) are ignored.
"""

MAX_LINE_BYTES = 1 << 20
MAX_EVENT_BYTES = 4 << 20
FIELDS = (b"", b"event", b"id", b"retry")
"""The fields besides ``data``; the empty name is that of a comment."""


class SseError(Exception):
    """The body is not an event stream, or exceeds a limit."""


class SseParser:
    """Parses one response body. Lines end with LF, CR or CRLF. UTF-8 is decoded by
    line, so the body may be split anywhere.
    """

    def __init__(self) -> None:
        self._line = bytearray()
        self._data: list[str] = []
        self._data_bytes = 0
        self._skip_lf = False
        self._first_line = True

    def push_bytes(self, body: bytes) -> list[str]:
        """Add bytes; returns the data of the events that they complete. Raises
        `SseError`.
        """
        if not body:
            return []
        events: list[str] = []
        if self._skip_lf:  # the LF of a CRLF that was split
            body = body.removeprefix(b"\n")
        self._skip_lf = body.endswith(b"\r")
        for part in body.replace(b"\r\n", b"\n").replace(b"\r", b"\n").splitlines(keepends=True):
            self._line += part.removesuffix(b"\n")
            if len(self._line) > MAX_LINE_BYTES:
                raise SseError(f"a line of more than {MAX_LINE_BYTES} bytes")
            if part.endswith(b"\n"):
                events += self._take_line(bytes(self._line))
                self._line.clear()
        return events

    def finish_body(self) -> list[str]:
        """End the body; returns the data of an unfinished event, or a line that is not
        a field.

        The standard drops these. They may be the last event of a server that omits the
        empty line, or half an event of a server that failed. Empty if the body ended
        between two events.
        """
        line = bytes(self._line)
        name = line.partition(b":")[0]
        self._line.clear()
        events = self._take_line(line) if line else []
        if self._data:
            return [*events, *self._end_event()]
        rest = "" if name in FIELDS else line.decode("utf-8", "replace").strip()
        return [*events, rest] if rest else events

    def _take_line(self, line: bytes) -> list[str]:
        if self._first_line:
            self._first_line = False
            line = line.removeprefix(b"\xef\xbb\xbf")
        if not line:
            return self._end_event()
        name, _, value = line.partition(b":")
        if name != b"data":
            return []
        data = value.removeprefix(b" ").decode("utf-8", "replace")
        events = self._end_event() if self._data and _begins_anew(self._data[-1], data) else []
        self._data_bytes += len(value)
        if self._data_bytes > MAX_EVENT_BYTES:
            raise SseError(f"an event of more than {MAX_EVENT_BYTES} bytes")
        self._data.append(data)
        return events

    def _end_event(self) -> list[str]:
        event = ["\n".join(self._data)] if self._data else []
        self._data = []
        self._data_bytes = 0
        return event


def _begins_anew(last: str, data: str) -> bool:
    """Return whether a line of data begins another event although no empty line
    separates them.

    Some servers omit it. Within one JSON text, nothing that begins like this can follow
    ``}``.
    """
    return last.rstrip().endswith("}") and data.lstrip().startswith(("{", "[DONE]", "data:"))
