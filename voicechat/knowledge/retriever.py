"""Finds what a question asks for, by words and by vectors together.

A BM25 score and a cosine cannot be compared, so each ranking's scores are brought to 0
to 1 before they are added: the convex combination of Bruch, Gai and Ingber (2023).
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Literal, TypeAlias

from voicechat.errors import AdmissionError, ProviderError
from voicechat.knowledge.embedding import embed_question
from voicechat.knowledge.interface import Finding, Findings, KnowledgeStore, QaRecord, SourceKind
from voicechat.knowledge.words import LONGEST_TEXT
from voicechat.providers.interfaces import TextEmbedder

CANDIDATES = 50
"""Results of each search that are fused. If there are so many, the last counts as
nothing.
"""
LEAST_SPREAD = 0.03
"""The least difference between the best cosine and one that counts as nothing. Among a
few passages all cosines are nearly the same, and say little. With multilingual
E5 the first and the fiftieth usually differ by 0.04.
"""
QA_SHARE = 3
"""At most one of so many results is a Q&A record, but one may always be: the nearest
question is near only if somebody has answered such a question.
"""
DEADLINE_S = 2.0
logger = logging.getLogger(__name__)

SearchHalf: TypeAlias = Literal["words", "vectors"]
OmissionReason: TypeAlias = Literal["failed", "late"]


class Retriever:
    """Searches knowledge bases; used by all conversations at once."""

    def __init__(
        self,
        store: KnowledgeStore,
        embedder: TextEmbedder | None = None,
        *,
        needed: bool = False,
    ) -> None:
        """``embedder`` None: only words are searched. ``needed``: something will be
        stored soon, so ``start`` prepares for it.
        """
        self.store = store
        self.embedder = embedder
        self.on_omission: Callable[[SearchHalf, OmissionReason], None] = lambda half, reason: None
        """Called for each half of a search that is left out."""
        self._needed = needed

    async def start(self) -> None:
        """Open the store and load the embedder's model, if they are needed: otherwise
        the first use does. Raises ``ConfigError`` as the store.

        An embedder that fails is left out of searches until it works.
        """
        if not (self._needed or self.store.in_use):
            return
        await self.store.start()
        if self.embedder is not None:
            try:
                await embed_question(self.embedder, "warm up")
            except ProviderError as error:
                logger.warning("knowledge is searched by words only for now: %s", error)

    async def aclose(self) -> None:
        """Close the store."""
        await self.store.aclose()

    async def search(
        self,
        project: str,
        bases: Sequence[str],
        text: str,
        limit: int = 6,
        deadline_s: float = DEADLINE_S,
    ) -> Findings:
        """Return what answers ``text`` best in these knowledge bases of the project, at
        most ``limit`` items.

        It never fails: a half of the search that fails, or is not done after
        ``deadline_s``, is left out and told to ``on_omission``. Cancelling stops
        waiting for it.
        """
        text = text.strip()[:LONGEST_TEXT]
        try:
            if not text or not await self.store.holds(project, bases):
                return Findings()
        except AdmissionError:
            self.on_omission("words", "failed")
            return Findings()
        halves = await asyncio.gather(
            self._half("words", self._by_words(project, bases, text), deadline_s),
            self._half("vectors", self._by_vectors(project, bases, text), deadline_s),
        )
        by_words, by_vectors = (half or {"file": [], "qa": []} for half in halves)
        files = fuse(by_words["file"], by_vectors["file"])
        records = fuse(by_words["qa"], by_vectors["qa"])
        answer = next((found for found in records if found.is_asked), None)
        if answer is not None:
            return Findings((answer,), _as_record(answer))
        few = records[: max(1, limit // QA_SHARE)]
        best = sorted([*files, *few], key=lambda found: -found.score)
        return Findings(tuple(best[:limit]))

    async def _half(
        self,
        half: SearchHalf,
        searching: Awaitable[dict[SourceKind, list[Finding]]],
        deadline_s: float,
    ) -> dict[SourceKind, list[Finding]] | None:
        try:
            async with asyncio.timeout(deadline_s):
                return await searching
        except TimeoutError:
            self.on_omission(half, "late")
        except (AdmissionError, ProviderError):
            self.on_omission(half, "failed")
        return None

    async def _by_words(
        self, project: str, bases: Sequence[str], text: str
    ) -> dict[SourceKind, list[Finding]]:
        store = self.store
        return {
            "file": await store.by_words("file", project, bases, text, CANDIDATES),
            "qa": await store.by_words("qa", project, bases, text, CANDIDATES),
        }

    async def _by_vectors(
        self, project: str, bases: Sequence[str], text: str
    ) -> dict[SourceKind, list[Finding]]:
        if self.embedder is None:
            return {"file": [], "qa": []}
        vector, name = await embed_question(self.embedder, text)

        async def nearest(kind: SourceKind) -> list[Finding]:
            return await self.store.by_vector(
                kind, project, bases, vector, CANDIDATES, embedder=name
            )

        return {"file": await nearest("file"), "qa": await nearest("qa")}


def fuse(by_words: Sequence[Finding], by_vectors: Sequence[Finding]) -> list[Finding]:
    """Join two rankings, each the best first. What is the best of both scores 1."""
    scores: defaultdict[tuple[str, int], float] = defaultdict(float)
    found: dict[tuple[str, int], Finding] = {}
    for ranking, spread in (
        (by_words, _spread_of_words([finding.score for finding in by_words])),
        (by_vectors, _spread_of_cosines([finding.score for finding in by_vectors])),
    ):
        for finding in ranking:
            place = (finding.source_id, finding.position)
            scores[place] += (1 - (ranking[0].score - finding.score) / spread) / 2
            found.setdefault(place, finding)
    best = sorted(found, key=lambda place: -scores[place])
    return [replace(found[place], score=scores[place]) for place in best]


def _spread_of_words(scores: Sequence[float]) -> float:
    """Return the difference between the best score and nothing, of ranked scores."""
    if len(scores) >= CANDIDATES and scores[-1] < scores[0]:
        return scores[0] - scores[-1]
    return scores[0] if scores else 1.0


def _spread_of_cosines(cosines: Sequence[float]) -> float:
    return max(LEAST_SPREAD, cosines[0] - cosines[-1]) if cosines else 1.0


def _as_record(found: Finding) -> QaRecord:
    return QaRecord(
        id=found.source_id,
        scope=found.scope,
        question=found.title,
        answer=found.content,
        created_s=found.created_s,
    )
