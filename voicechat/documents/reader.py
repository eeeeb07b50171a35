"""The parent's side of `voicechat.documents.child`: one process for each document."""

import importlib.util
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TypeAlias

import orjson

from voicechat.documents.kinds import unsupported
from voicechat.documents.passage import Passage
from voicechat.errors import AtCapacityError, Fault, RemoteProtocolError
from voicechat.processes import python
from voicechat.processes.errors import WorkerError
from voicechat.processes.forked import ForkedStream, ForkServer, can_fork
from voicechat.processes.frames import FrameKind

AT_ONCE = 2
"""How many documents one process of the server should read at once: each may take
1 GiB.
"""
ANSWER_MS = 120_000
"""Time for one page, or for a whole office file. The child's CPU time is bounded more
tightly.
"""
RETRY_S = 10
"""Seconds that a client is asked to wait when no process can be started."""
MAX_PAGES = 5_000
MAX_SCANNED_PAGES = 500
"""Pages of one document that are read as pictures: each takes seconds."""
PACKAGES = ("markdownify", "office_oxide", "pypdfium2")

ReadPicture: TypeAlias = Callable[[bytes], Awaitable[str]]
"""Returns the text of a page in Markdown. The PNG file comes from a process that an
attacker may control, so it must be inspected before anything decodes it.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentText:
    """What a document says."""

    markdown: str
    passages: tuple[Passage, ...]
    pages: int
    """Pages or slides; 1 for formats without pages."""
    unread_pages: int = 0
    """Pages that are pictures and have not been read."""


class DocumentReader:
    """Reads the documents of all clients. Between the first use and ``aclose`` a fork
    server runs.
    """

    def __init__(self) -> None:
        self._server = ForkServer(python.command("voicechat.documents.child"), answer_ms=ANSWER_MS)

    async def read(
        self,
        path: Path,
        title: str,
        *,
        field_name: str = "file",
        read_picture: ReadPicture | None = None,
        report: Callable[[float], None] = lambda _: None,
    ) -> DocumentText:
        """Read the document at ``path``, whose name was ``title``.

        ``read_picture`` reads pages that are pictures; None leaves them out. ``report``
        is called with the share that has been read. Raises ``RemoteProtocolError``
        whose message begins with ``field_name``: UNSUPPORTED_FORMAT for what is no
        document that can be read, or exceeds the limits of its process; TOO_LARGE;
        and whatever ``read_picture`` raises. Raises ``AtCapacityError`` when no process
        can be started. Cancelling ends the process.
        """
        if missing := missing_packages():
            raise RemoteProtocolError(Fault.UNSUPPORTED_FORMAT, f"{field_name}: {missing}")
        try:
            async with self._opened(path, title) as job:
                return await _read(job, read_picture, report)
        except RemoteProtocolError as error:
            raise RemoteProtocolError(error.status, f"{field_name}: {error.message}") from None

    async def aclose(self) -> None:
        """Stop the fork server. Idempotent."""
        await self._server.aclose()

    @asynccontextmanager
    async def _opened(self, path: Path, title: str) -> AsyncIterator["_Job"]:
        options = {
            "path": str(path),
            "suffix": PurePath(title).suffix[:16],
            "most_pages": MAX_PAGES,
        }
        try:
            stream = await self._server.fork(orjson.dumps(options))
        except WorkerError as error:
            raise AtCapacityError("documents cannot be read now", RETRY_S) from error
        try:
            yield _Job(stream)
        finally:
            stream.close()


class _Job:
    """The requests to one process."""

    def __init__(self, stream: ForkedStream) -> None:
        self._stream = stream

    async def ask(self, request: str) -> bytes:
        """Send a request, and return its whole answer."""
        self._stream.send(request.encode("utf-8", "replace"))
        return b"".join([piece async for piece in self._answers(FrameKind.CONSUMED)])

    async def finish(self) -> AsyncIterator[bytes]:
        """Yield the pieces of the document."""
        self._stream.finish_input()
        async for piece in self._answers(FrameKind.ENDED):
            yield piece

    async def _answers(self, last: FrameKind) -> AsyncIterator[bytes]:
        try:
            while (frame := await self._stream.receive_frame()).kind is not last:
                if frame.kind is FrameKind.FAILED:
                    raise _refusal(frame.payload)
                yield bytes(frame.payload)
        except WorkerError:
            raise RemoteProtocolError(
                Fault.UNSUPPORTED_FORMAT, "the document takes too much time or memory to read"
            ) from None


def missing_packages() -> str:
    """Return what to install to read documents, or an empty string."""
    if not can_fork():
        return "this system cannot read documents safely"
    if any(importlib.util.find_spec(name) is None for name in PACKAGES):
        return "documents cannot be read here: pip install 'voicechat[knowledge]'"
    return ""


async def _read(
    job: _Job, read_picture: ReadPicture | None, report: Callable[[float], None]
) -> DocumentText:
    pages = int(orjson.loads(await job.ask("open"))["pages"])
    scans: list[int] = []
    for number in range(pages):
        if await job.ask(f"page {number}") == b"scan":
            scans.append(number)
        # A scan takes far longer than a page of text, so scans have the second half.
        report((number + 1) / pages / (2 if scans and read_picture is not None else 1))
    read = scans[:MAX_SCANNED_PAGES] if read_picture is not None else []
    for done, number in enumerate(read, 1):
        assert read_picture is not None
        found = await read_picture(await job.ask(f"picture {number}"))
        await job.ask(f"text {number}\n{found}")
        report((1 + done / len(read)) / 2)
    markdown: list[str] = []
    passages: list[Passage] = []
    async for piece in job.finish():
        if piece.startswith(b"m"):
            markdown.append(piece[1:].decode())
        else:
            passages += [_passage(fields) for fields in orjson.loads(piece[1:])]
    text = DocumentText(
        markdown="".join(markdown),
        passages=tuple(passages),
        pages=pages,
        unread_pages=len(scans) - len(read),
    )
    if not text.passages:
        raise _no_text(scans=len(scans), is_read=read_picture is not None)
    return text


def _passage(fields: dict[str, object]) -> Passage:
    return Passage(**{**fields, "headings": tuple(fields["headings"])})  # type: ignore[arg-type]


def _no_text(*, scans: int, is_read: bool) -> RemoteProtocolError:
    if scans and not is_read:
        return RemoteProtocolError(
            Fault.UNSUPPORTED_FORMAT,
            "the document's pages are pictures, which are read only where an [ocr.NAME] service "
            "is configured",
        )
    return unsupported("contains no text")


def _refusal(payload: bytes) -> RemoteProtocolError:
    fault, _, message = payload.decode().partition(" ")
    if not fault:
        return unsupported("cannot be read")
    return RemoteProtocolError(Fault[fault], message)
