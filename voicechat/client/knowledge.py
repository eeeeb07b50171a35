"""The client of knowledge bases: their files, their Q&A records, and questions."""

import asyncio
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp

from voicechat.client.rest import Api, JsonTree

LISTED = 100
"""Items of one page."""
POLL_S = (0.3, 0.5, 1.0, 2.0)
"""Intervals between polls of a file; the last one repeats."""


@dataclass(frozen=True, slots=True)
class UploadedFile:
    """A file of a knowledge base."""

    id: str
    title: str
    status: str
    """UPLOADING, ERROR, ENABLED or NOT_ENABLED."""
    created_at: str
    progress: float
    """The share of its reading that is done, 0 to 1."""
    passages: int
    error: str
    """Why it cannot be used, with ERROR."""


@dataclass(frozen=True, slots=True)
class FoundPassage:
    """A passage or a Q&A record that a question finds."""

    kind: str
    """``file`` or ``qa``."""
    title: str
    headings: tuple[str, ...]
    """The headings above the passage, the outermost first; empty if unknown."""
    content: str
    page: int | None
    url: str


@dataclass(frozen=True, slots=True)
class KnownAnswer:
    """An agent's answer and its sources, the first one cited first."""

    content: str
    sources: tuple[FoundPassage, ...]


class KnowledgeApi(Api):
    """A client of one knowledge base. Use it as ``Api``, whose errors it raises."""

    def __init__(self, url: str, *, key: str, service: str, project: str = "default") -> None:
        """``service`` is an agent, or a knowledge base that an agent reads."""
        super().__init__(url, key=key, project=project)
        self._service = service
        self._folder = f"{self._project}/service/{quote(service, safe='')}/kn"

    async def upload(
        self, path: Path, on_sent: Callable[[int], None] = lambda _: None
    ) -> UploadedFile:
        """Upload a document. ``on_sent`` is called with the bytes of each piece.

        Raises ``OSError`` if the document cannot be read.
        """
        loop = asyncio.get_running_loop()
        with await asyncio.to_thread(path.open, "rb", 0) as raw:

            def report(count: int) -> None:  # in the thread that reads the file
                loop.call_soon_threadsafe(on_sent, count)

            reading = _ReportingReader(raw, report)
            form = aiohttp.FormData(quote_fields=False)
            form.add_field("file", reading, filename=path.name.replace('"', "'"))
            return _file((await self._json("POST", f"{self._folder}/files", form))["result"])

    async def wait_until_read(
        self, file: UploadedFile, on_progress: Callable[[float], None] = lambda _: None
    ) -> UploadedFile:
        """Poll a file until it is no longer UPLOADING. ``on_progress`` is called with
        its progress, 0 to 1.

        Raises ``KeyError`` if the file is deleted meanwhile.
        """
        looks = 0
        while file.status == "UPLOADING":
            await asyncio.sleep(POLL_S[min(looks, len(POLL_S) - 1)])
            looks += 1
            file = {each.id: each for each in await self.files()}[file.id]
            on_progress(file.progress)
        return file

    async def files(self) -> list[UploadedFile]:
        """List all files, the newest first."""
        found: list[UploadedFile] = []
        number = 1
        while True:  # ends with the last page
            path = f"{self._folder}/files?pageNum={number}&pageSize={LISTED}"
            page = (await self._json("GET", path))["result"]
            found += map(_file, page["list"])
            if number >= page["pages"]:
                return found
            number += 1

    async def remove(self, file_id: str) -> None:
        """Delete a file."""
        await self._json("DELETE", f"{self._folder}/files/{quote(file_id, safe='')}")

    async def search(self, question: str) -> list[FoundPassage]:
        """Return what a question finds, the best first."""
        body = {"question": question}
        answer = await self._json("POST", f"{self._folder}/search", body)
        return [_passage(item) for item in answer["result"]["found"]]

    async def ask(self, question: str, *, model: str = "") -> KnownAnswer:
        """Ask the agent; ``model`` names another agent, or a chat model, which then
        answers from this knowledge base.
        """
        messages = [{"role": "user", "content": question}]
        about = {"model": model, "category": self._service} if model else {"model": self._service}
        path = "/api/open-apis/v1/chat/completions"
        [choice] = (await self._json("POST", path, {"messages": messages, **about}))["choices"]
        sources = tuple(_passage(ref) for ref in choice.get("refs") or ())
        return KnownAnswer(str(choice["message"].get("content") or ""), sources)


class _ReportingReader(io.BufferedReader):
    """A file that reports how much of it is read."""

    def __init__(self, raw: io.RawIOBase, report: Callable[[int], None]) -> None:
        super().__init__(raw)
        self._report = report

    def read(self, size: int | None = -1, /) -> bytes:
        content = super().read(size)
        self._report(len(content))
        return content


def _file(item: JsonTree) -> UploadedFile:
    done = item["status"] != "UPLOADING"
    return UploadedFile(
        id=str(item["id"]),
        title=str(item["title"]),
        status=str(item["status"]),
        created_at=str(item["createdAt"]),
        progress=1.0 if done else float(item.get("progress") or 0.0),
        passages=int(item.get("passages") or 0),
        error=str(item.get("error") or ""),
    )


def _passage(item: dict[str, Any]) -> FoundPassage:
    return FoundPassage(
        kind=str(item["type"]),
        title=str(item["title"]),
        headings=tuple(item.get("headings") or ()),
        content=str(item["content"]),
        page=item.get("page"),
        url=str(item["url"]),
    )
