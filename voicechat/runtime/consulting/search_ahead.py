"""Searches the knowledge of one conversation while the user is still speaking, so that
the reply need not wait for it.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from enum import Enum
from typing import Protocol, TypeAlias

from voicechat.knowledge.interface import Findings
from voicechat.runtime.error_location import location_of
from voicechat.runtime.tasks import SessionTasks
from voicechat.text.words import bare_words

DEADLINE_S = 0.15
"""How long a reply waits for a search by default."""
SEARCH_S = 3.0
"""How long a search may run. A later result would be about words long gone."""
BETWEEN_S = 0.3
"""Shortest time between the beginnings of two searches while the user speaks.
Recognisers change their result several times a second.
"""
MOST_SEARCHES = 4
"""Searches that a conversation remembers, running or finished; the oldest is dropped.
"""
MOST_RUNNING = 2
"""Searches that run at once; a newer one cancels the oldest."""
LEAST_CHARACTERS = 2
"""Letters and digits that are worth a search."""
MOST_CHARACTERS = 2_000
"""The part of a question that is searched for: its end."""
ALIKE = 0.6
"""Similarity, 0 to 1, from which the result for other words is used when the search for
the whole question is late.
"""
CLOSE_S = 1.0

logger = logging.getLogger(__name__)

Search: TypeAlias = Callable[[str], Awaitable[Findings]]
"""Searches the knowledge of an agent. May raise anything."""


class SearchOutcome(Enum):
    """What a reply got of its search."""

    FOUND = "found"
    NOTHING = "nothing"
    """The search ended and found nothing."""
    LATE = "late"
    """The search had not ended. The reply used the result of the quick search, or that
    for its first words, if there was one.
    """
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class KnowledgeConsulted:
    """A reply asked for what is known about its question. It holds no text."""

    outcome: SearchOutcome
    waited_s: float
    """How long the reply waited."""


class Knowledge(Protocol):
    """What an agent knows."""

    async def find(self, question: str) -> Findings:
        """Return what is found for a question, in bounded time; nothing if the search
        is late or fails. Never raises.
        """

    def found_so_far(self, words: str) -> Findings:
        """Return what has been found for the words of a question so far, or for words
        like these. Never waits.
        """


class SearchAhead:
    """The searches of one conversation. The newest words win."""

    def __init__(
        self,
        search: Search,
        *,
        quick: Search | None = None,
        deadline_s: float = DEADLINE_S,
        may_search: Callable[[], bool] = lambda: True,
        observe: Callable[[KnowledgeConsulted], None] = lambda _: None,
    ) -> None:
        """``quick`` is a search that asks no service. Its result is used if ``search``
        is late. ``deadline_s``: how long a reply waits. ``may_search``: whether there
        is time for searches that may be in vain. ``observe`` is called once for each
        reply.
        """
        self._search = search
        self._quick = quick
        self._deadline_s = deadline_s
        self._may_search = may_search
        self._observe = observe
        self._loop = asyncio.get_running_loop()
        self._tasks = SessionTasks(on_fault=lambda: None)
        self._searches: dict[str, _Search] = {}
        """By the bare words that are searched for, the oldest first."""
        self._wanted = ""
        self._begun_s = -BETWEEN_S
        self._timer: asyncio.TimerHandle | None = None

    def note_words(self, text: str) -> None:
        """The user has said ``text`` so far. Never waits."""
        words = bare_words(text)
        if len(words) < LEAST_CHARACTERS or words in self._searches or not self._may_search():
            return
        self._wanted = text
        if self._timer is None:
            due_s = self._begun_s + BETWEEN_S
            self._timer = self._loop.call_at(due_s, self._search_wanted)

    async def find(self, question: str) -> Findings:
        """Return what is found for a question, as ``Knowledge.find``. A search that was
        begun for the same words is used.
        """
        words = bare_words(question)
        if not words:
            return Findings()
        asked_s = self._loop.time()
        search = self._searches.get(words) or self._begin(words, question)
        quick = None
        if search.findings is None and not search.task.done():
            if self._quick is not None:
                quick = self._run(self._quick, question)
            await asyncio.wait({search.task}, timeout=self._deadline_s)
        findings, outcome = search.findings, SearchOutcome.FOUND
        if findings is None and not search.task.done():
            found = None if quick is None else quick.findings
            findings, outcome = found or self._nearest(words), SearchOutcome.LATE
        elif findings is None:
            outcome = SearchOutcome.FAILED
        elif not findings.found and findings.answer is None:
            outcome = SearchOutcome.NOTHING
        if quick is not None:
            quick.task.cancel()
        self._observe(KnowledgeConsulted(outcome, self._loop.time() - asked_s))
        return findings or Findings()

    def found_so_far(self, words: str) -> Findings:
        """See ``Knowledge.found_so_far``."""
        bare = bare_words(words)
        search = self._searches.get(bare)
        if search is not None and search.findings is not None:
            return search.findings
        return self._nearest(bare) or Findings()

    async def aclose(self) -> None:
        """Cancel all searches."""
        if self._timer is not None:
            self._timer.cancel()
        self._wanted = ""
        await self._tasks.close(CLOSE_S)

    def _search_wanted(self) -> None:
        self._timer = None
        words = bare_words(self._wanted)
        if words and words not in self._searches:
            self._begin(words, self._wanted)

    def _begin(self, words: str, text: str) -> "_Search":
        self._begun_s = self._loop.time()
        running = [key for key, search in self._searches.items() if not search.task.done()]
        for key in running[: len(running) - MOST_RUNNING + 1]:
            self._searches.pop(key).task.cancel()
        while len(self._searches) >= MOST_SEARCHES:
            self._searches.pop(next(iter(self._searches))).task.cancel()
        search = self._searches[words] = self._run(self._search, text)
        return search

    def _run(self, search: Search, text: str) -> "_Search":
        running = _Search()
        work = running.run(search, text[-MOST_CHARACTERS:])
        running.task = self._tasks.spawn(work, "knowledge-search")
        return running

    def _nearest(self, words: str) -> Findings | None:
        """Return the newest result for words like these, without a fixed answer, which
        may be one to another question.
        """
        for other, search in reversed(self._searches.items()):
            if search.findings is not None:
                alike = SequenceMatcher(None, words, other, autojunk=False)
                if alike.quick_ratio() >= ALIKE:
                    return replace(search.findings, answer=None)
        return None


class SearchNow:
    """Searches when it is asked, for requests that no one speaks."""

    def __init__(
        self,
        search: Search,
        *,
        deadline_s: float,
        observe: Callable[[KnowledgeConsulted], None] = lambda _: None,
    ) -> None:
        """``deadline_s`` and ``observe``: as for ``SearchAhead``."""
        self._search = search
        self._deadline_s = deadline_s
        self._observe = observe

    async def find(self, question: str) -> Findings:
        """Return what is found, as ``Knowledge.find``."""
        ahead = SearchAhead(self._search, deadline_s=self._deadline_s, observe=self._observe)
        try:
            return await ahead.find(question)
        finally:
            await ahead.aclose()

    def found_so_far(self, words: str) -> Findings:
        """See ``Knowledge.found_so_far``: nothing, because nobody speaks."""
        return Findings()


class _Search:
    """One search."""

    def __init__(self) -> None:
        self.task: asyncio.Task[None]
        self.findings: Findings | None = None
        """None: it has not ended, or has failed."""

    async def run(self, search: Search, text: str) -> None:
        try:
            async with asyncio.timeout(SEARCH_S):
                self.findings = await search(text)
        except Exception as error:  # noqa: BLE001 - the reply goes on without knowledge
            logger.warning(
                "a knowledge search failed: %s at %s", type(error).__name__, location_of(error)
            )
