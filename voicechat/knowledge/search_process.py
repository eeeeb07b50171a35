"""Searches a SQLite store in a child process, which all workers of a server share.

A search takes some 10 ms of processor time, most of it with the interpreter lock, and
would delay the event loop of the server. The vectors are then in memory once, and not
once for each worker.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from voicechat.errors import AdmissionError, Status
from voicechat.knowledge.interface import Finding, KnowledgeScope, SourceKind, Vector
from voicechat.processes import python
from voicechat.processes.errors import WorkerError
from voicechat.processes.machine_share import machine_share
from voicechat.processes.pool import WorkerPool
from voicechat.processes.worker import WorkerLimits

CHILD = "voicechat.knowledge.search_child"
SEARCHES = 64
"""Searches of all workers that run at once, one after the other; others wait."""
WAIT_MS = 2_000
"""How long a search waits to be one of them. Its result would be late then."""
READY_MS = 300_000
"""Time to load the vectors of all knowledge bases from a slow disk."""
ANSWER_MS = 30_000
"""A child that is silent for so long is replaced. Reading the vectors of a base of
100,000 passages takes some 3 s.
"""
_UNUSABLE = "knowledge cannot be searched now; try again"


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchOptions:
    """The options of the child process."""

    path: str
    """The file of the store."""
    vector_cache_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchRequest:
    """One search, by the words of ``text`` or by a vector."""

    kind: SourceKind
    project: str
    bases: Sequence[str]
    limit: int
    text: str | None = None
    """None: the search is by the vector, and ``embedder`` has made it."""
    embedder: str = ""


class SearchProcess:
    """The parent's side."""

    def __init__(self, path: Path, vector_cache_bytes: int) -> None:
        options = SearchOptions(path=str(path.resolve()), vector_cache_bytes=vector_cache_bytes)
        share = machine_share()
        self._pool = WorkerPool(
            python.command(CHILD, orjson.dumps(options).decode()),
            size=1,
            limits=WorkerLimits(
                channels=max(1, share.part_of(SEARCHES)), ready_ms=READY_MS, answer_ms=ANSWER_MS
            ),
            host=share.host,
        )

    @property
    def pids(self) -> tuple[int, ...]:
        """The process id of the child; empty while it starts."""
        return self._pool.pids

    async def start(self) -> None:
        """Start the child and have it load the dictionaries and all vectors. The file
        must exist. Raises ``AdmissionError`` (AT_CAPACITY) if it does not start.
        """
        try:
            await self._pool.start()
        except WorkerError as error:
            raise AdmissionError(Status.AT_CAPACITY, f"{_UNUSABLE}: {error}") from error

    async def aclose(self) -> None:
        """End the child."""
        await self._pool.aclose()

    async def by_words(
        self, kind: SourceKind, project: str, bases: Sequence[str], text: str, limit: int
    ) -> list[Finding]:
        """See ``KnowledgeStore.by_words``. Cancelling drops the search."""
        return await self._search(
            SearchRequest(kind=kind, project=project, bases=tuple(bases), limit=limit, text=text)
        )

    async def by_vector(
        self,
        kind: SourceKind,
        project: str,
        bases: Sequence[str],
        vector: Vector,
        limit: int,
        *,
        embedder: str,
    ) -> list[Finding]:
        """See ``KnowledgeStore.by_vector``. Cancelling drops the search."""
        request = SearchRequest(
            kind=kind, project=project, bases=tuple(bases), limit=limit, embedder=embedder
        )
        return await self._search(request, vector)

    async def _search(self, request: SearchRequest, vector: Vector | None = None) -> list[Finding]:
        try:
            channel = await self._pool.open_channel(encoded(request, vector), wait_ms=WAIT_MS)
            try:
                channel.finish_input()
                answers = [answer async for answer in channel]
            finally:
                channel.close()
        except WorkerError as error:
            raise AdmissionError(Status.AT_CAPACITY, _UNUSABLE) from error
        return [_finding(fields) for answer in answers for fields in orjson.loads(answer)]


def encoded(request: SearchRequest, vector: Vector | None) -> bytes:
    """Return a request as a line of JSON, and the vector after it."""
    numbers = b"" if vector is None else vector.astype("<f4").tobytes()
    return orjson.dumps(request) + b"\n" + numbers


def decoded(message: bytes) -> tuple[SearchRequest, Vector]:
    """Undo ``encoded``; without a vector it is empty."""
    line, _, numbers = message.partition(b"\n")
    return SearchRequest(**orjson.loads(line)), np.frombuffer(numbers, "<f4")


def _finding(fields: dict[str, Any]) -> Finding:
    scope = KnowledgeScope(**fields["scope"])
    return Finding(**{**fields, "scope": scope, "headings": tuple(fields["headings"])})
