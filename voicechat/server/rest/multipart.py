"""Streaming multipart forms (RFC 7578, RFC 2046 section 5.1).

Everything around the parts' contents is bounded, and each byte is searched once.
However a client splits and pads its form, the event loop is blocked only for the search
of one piece at a time.
"""

import re
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from aiohttp.helpers import parse_mimetype
from aiohttp.multipart import content_disposition_filename, parse_content_disposition

from voicechat.errors import RemoteProtocolError, Status

MAX_PREAMBLE_BYTES = 4096
"""Bound of the data before the first part and after the last one, where RFC 2046 allows
any content.
"""
MAX_HEAD_BYTES = 8192
"""Bound of the head of one part."""
MAX_BOUNDARY_CHARACTERS = 70
MAX_FILE_NAME_CHARACTERS = 255
_MAX_PADDING_BYTES = 64
_HEAD_END = re.compile(rb"\A\r?\n|\r?\n\r?\n")

Read: TypeAlias = Callable[[], Awaitable[bytes]]
"""Returns the next piece of the body; b"" at its end."""


class FormPart:
    """One field of a form. Read its content to the end before the next part is read."""

    def __init__(self, form: "MultipartReader", name: str, file_name: str = "") -> None:
        self.name = name
        self.file_name = file_name
        """The name of the file as the client wrote it, without folders; empty if it
        wrote none.
        """
        self._form = form

    async def read_piece(self) -> bytes:
        """Return the next piece of the content; b"" at its end. Raises as
        ``next_part``.
        """
        return await self._form.read_content()


class MultipartReader:
    """Reads the parts of one form."""

    def __init__(self, content_type: str, read: Read) -> None:
        """Raises ``RemoteProtocolError`` (MALFORMED) for a content type without a
        usable boundary.
        """
        boundary = parse_mimetype(content_type).parameters.get("boundary", "")
        if not 0 < len(boundary) <= MAX_BOUNDARY_CHARACTERS or not boundary.isascii():
            raise malformed(f"its boundary should have 1 to {MAX_BOUNDARY_CHARACTERS} characters")
        delimiter = b"\\r?\\n--" + re.escape(boundary.encode())
        padding = b"[ \\t]{0,%d}\\r?\\n" % _MAX_PADDING_BYTES
        self._delimiter = re.compile(delimiter + b"(?:(--)|" + padding + b")")
        self._longest_bytes = len(boundary) + _MAX_PADDING_BYTES + 6
        self._read = read
        # The first delimiter may begin the body, without a line break before it.
        self._buffer = bytearray(b"\n")

    async def next_part(self) -> FormPart | None:
        """Return the next part; None after the last one, when the body has been read to
        its end.

        Raises ``RemoteProtocolError`` (MALFORMED), and what reading raises.
        """
        skipped_bytes = 0
        while skipped := await self.read_content():
            skipped_bytes += len(skipped)
            if skipped_bytes > MAX_PREAMBLE_BYTES:
                raise malformed(f"more than {MAX_PREAMBLE_BYTES} bytes stand outside its parts")
        delimiter = self._delimiter.match(self._buffer)
        assert delimiter is not None, "the content was read to its end"
        last = delimiter[1] is not None
        self._take(delimiter.end())
        if last:
            await self._pass_epilogue()
            return None
        return FormPart(self, *await self._read_names())

    async def read_content(self) -> bytes:
        """Return the next piece before the next delimiter; b"" at the delimiter."""
        while True:  # terminates: every iteration returns or reads more
            found = self._delimiter.search(self._buffer)
            # The last bytes may begin a delimiter, whose line break is not content.
            ready_bytes = (
                len(self._buffer) - self._longest_bytes if found is None else found.start()
            )
            if ready_bytes > 0:
                return self._take(ready_bytes)
            if found is not None:
                return b""
            await self._read_more()

    async def _read_names(self) -> tuple[str, str]:
        # Read until the head is complete, or longer than a head may be.
        while (end := _HEAD_END.search(self._buffer)) is None and len(
            self._buffer
        ) <= MAX_HEAD_BYTES:
            await self._read_more()
        if end is None or end.end() > MAX_HEAD_BYTES:
            raise malformed(f"the head of a part has more than {MAX_HEAD_BYTES} bytes")
        disposition = None
        for line in self._take(end.end()).decode("utf-8", "replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip().lower() == "content-disposition":
                disposition = value.strip()
            elif name.strip().lower() == "content-type" and "multipart/" in value.lower():
                raise malformed("a form within the form is not allowed")
        _, parameters = parse_content_disposition(disposition)
        file_name = content_disposition_filename(parameters, "filename") or ""
        return parameters.get("name", ""), _bare(file_name)

    async def _pass_epilogue(self) -> None:
        passed_bytes = len(self._buffer)
        while passed_bytes <= MAX_PREAMBLE_BYTES and (piece := await self._read()):
            passed_bytes += len(piece)
        if passed_bytes > MAX_PREAMBLE_BYTES:
            raise malformed(f"more than {MAX_PREAMBLE_BYTES} bytes stand behind its last part")

    async def _read_more(self) -> None:
        piece = await self._read()
        if not piece:
            raise malformed("it ends before its closing boundary")
        self._buffer += piece

    def _take(self, size_bytes: int) -> bytes:
        taken = bytes(self._buffer[:size_bytes])
        del self._buffer[:size_bytes]
        return taken


def _bare(file_name: str) -> str:
    """Return the last part of a path of either kind, without control characters."""
    last = file_name.replace("\\", "/").rpartition("/")[2]
    printable = "".join(character for character in last if character.isprintable())
    return printable.strip()[-MAX_FILE_NAME_CHARACTERS:]


def malformed(reason: str) -> RemoteProtocolError:
    """Return the error for an invalid form."""
    return RemoteProtocolError(Status.MALFORMED, f"the form is broken: {reason}")
