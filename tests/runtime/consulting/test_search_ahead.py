"""Searches that begin while the user speaks. On a virtual clock."""

import asyncio
import logging
from collections.abc import AsyncIterator
from itertools import pairwise

import pytest

from tests.runtime.consulting.found import BREAKFAST, RECORD, DirectedSearch
from voicechat.knowledge.interface import Findings
from voicechat.runtime.consulting.search_ahead import (
    BETWEEN_S,
    MOST_RUNNING,
    SEARCH_S,
    KnowledgeConsulted,
    SearchAhead,
    SearchNow,
    SearchOutcome,
)


@pytest.fixture
def consulted() -> list[KnowledgeConsulted]:
    return []


@pytest.fixture
def search() -> DirectedSearch:
    return DirectedSearch()


@pytest.fixture
async def ahead(
    search: DirectedSearch, consulted: list[KnowledgeConsulted]
) -> AsyncIterator[SearchAhead]:
    ahead = SearchAhead(search, observe=consulted.append)
    yield ahead
    await ahead.aclose()
    assert not search.running


async def test_a_search_for_the_same_words_is_not_repeated_nor_waited_for(
    search: DirectedSearch, ahead: SearchAhead, consulted: list[KnowledgeConsulted]
) -> None:
    search.takes_s = 0.1
    ahead.note_words("when is breakfast")
    await asyncio.sleep(1)
    found = await ahead.find("When is breakfast?")
    assert found == search.findings
    assert search.questions == ["when is breakfast"]
    assert consulted == [KnowledgeConsulted(SearchOutcome.FOUND, 0.0)]


async def test_a_reply_waits_for_a_search_that_is_under_way(
    search: DirectedSearch, ahead: SearchAhead, consulted: list[KnowledgeConsulted]
) -> None:
    search.takes_s = 0.2
    ahead.note_words("when is breakfast")
    await asyncio.sleep(0.1)
    assert await ahead.find("When is breakfast?") == search.findings
    assert search.questions == ["when is breakfast"]
    assert consulted[0].waited_s == pytest.approx(0.1)


async def test_other_words_at_the_end_are_searched_for(
    search: DirectedSearch, ahead: SearchAhead
) -> None:
    ahead.note_words("when is")
    await asyncio.sleep(1)
    assert await ahead.find("When is breakfast?") == search.findings
    assert search.questions == ["when is", "When is breakfast?"]


async def test_a_late_search_is_left_out_and_counted(
    search: DirectedSearch, ahead: SearchAhead, consulted: list[KnowledgeConsulted]
) -> None:
    search.takes_s = 0.2
    assert await ahead.find("When is breakfast?") == Findings()
    assert consulted[0].outcome is SearchOutcome.LATE
    assert consulted[0].waited_s == pytest.approx(0.15)


async def test_when_the_whole_question_is_late_what_was_found_for_its_beginning_serves(
    search: DirectedSearch, ahead: SearchAhead, consulted: list[KnowledgeConsulted]
) -> None:
    search.findings = Findings((BREAKFAST,), RECORD)
    search.takes_s = {"When is breakfast on Sundays?": 1.0}
    ahead.note_words("when is breakfast on")
    await asyncio.sleep(1)
    found = await ahead.find("When is breakfast on Sundays?")
    assert found == Findings((BREAKFAST,)), "without the fixed answer to another question"
    assert consulted[0].outcome is SearchOutcome.LATE


async def test_when_the_search_is_late_the_quick_one_serves(
    search: DirectedSearch, consulted: list[KnowledgeConsulted]
) -> None:
    quick = DirectedSearch(Findings((BREAKFAST,)), takes_s=0.01)
    ahead = SearchAhead(search, quick=quick, observe=consulted.append)
    search.takes_s = 1.0
    ahead.note_words("when is breakfast")
    assert not quick.asked, "it is not needed before the turn ends"
    assert await ahead.find("When is breakfast?") == quick.findings
    assert consulted[-1].outcome is SearchOutcome.LATE
    await asyncio.sleep(2)
    assert await ahead.find("When is breakfast?") == search.findings
    assert len(quick.asked) == 1, "it is not needed for what has been found"
    quick.takes_s = search.takes_s = 1e6
    assert await ahead.find("May my dog stay?") == Findings()
    await ahead.aclose()
    assert not quick.running


async def test_what_has_been_found_so_far_is_told_at_once(
    search: DirectedSearch, ahead: SearchAhead
) -> None:
    assert ahead.found_so_far("when is breakfast") == Findings()
    ahead.note_words("when is breakfast")
    assert ahead.found_so_far("when is breakfast") == Findings()
    await asyncio.sleep(1)
    assert ahead.found_so_far("When is breakfast?") == search.findings
    assert ahead.found_so_far("when is breakfast served") == search.findings
    assert ahead.found_so_far("may my dog stay") == Findings()


async def test_what_was_found_for_an_earlier_question_does_not_serve(
    search: DirectedSearch, ahead: SearchAhead
) -> None:
    search.takes_s = {"May my dog stay?": 1.0}
    await ahead.find("When is breakfast?")
    assert await ahead.find("May my dog stay?") == Findings()


async def test_a_failed_search_is_left_out_and_counted_without_its_words(
    search: DirectedSearch,
    ahead: SearchAhead,
    consulted: list[KnowledgeConsulted],
    caplog: pytest.LogCaptureFixture,
) -> None:
    search.failure = ValueError("when is breakfast")
    with caplog.at_level(logging.WARNING):
        assert await ahead.find("When is breakfast?") == Findings()
    assert consulted[0].outcome is SearchOutcome.FAILED
    assert "ValueError" in caplog.text
    assert "breakfast" not in caplog.text


async def test_a_search_that_finds_nothing_is_counted_as_such(
    search: DirectedSearch, ahead: SearchAhead, consulted: list[KnowledgeConsulted]
) -> None:
    search.findings = Findings()
    await ahead.find("When is breakfast?")
    assert consulted[0].outcome is SearchOutcome.NOTHING


async def test_partial_results_are_searched_for_now_and_then_and_the_newest_wins(
    search: DirectedSearch, ahead: SearchAhead
) -> None:
    words = "when is breakfast served on sundays in the summer".split()
    for count in range(1, len(words) + 1):
        ahead.note_words(" ".join(words[:count]))
        await asyncio.sleep(0.1)
    await asyncio.sleep(1)
    times = [at_s for _, at_s in search.asked]
    assert search.questions[-1] == " ".join(words), "the last words are not left out"
    assert 3 <= len(times) <= 5
    assert all(later - earlier >= BETWEEN_S - 1e-6 for earlier, later in pairwise(times))


async def test_a_search_that_hangs_holds_nothing_up(
    search: DirectedSearch, ahead: SearchAhead
) -> None:
    search.takes_s = 1e6
    for number in range(20):
        ahead.note_words(f"question number {number}")
        await asyncio.sleep(0.5)
    assert search.most_running <= MOST_RUNNING
    search.takes_s = 0.0
    assert await ahead.find("When is breakfast?") == search.findings
    await asyncio.sleep(SEARCH_S)
    assert not search.running


async def test_without_time_to_spare_nothing_is_searched_ahead(search: DirectedSearch) -> None:
    ahead = SearchAhead(search, may_search=lambda: False)
    ahead.note_words("when is breakfast")
    await asyncio.sleep(1)
    assert not search.asked
    assert await ahead.find("When is breakfast?") == search.findings
    await ahead.aclose()


@pytest.mark.parametrize("text", ["", "?!", "a", "  "])
async def test_what_says_nothing_is_not_searched_for(
    search: DirectedSearch, ahead: SearchAhead, text: str
) -> None:
    ahead.note_words(text)
    await asyncio.sleep(1)
    assert not search.asked


async def test_a_reply_that_is_stopped_leaves_the_search_to_the_next(
    search: DirectedSearch, ahead: SearchAhead
) -> None:
    search.takes_s = 0.1
    stopped = asyncio.get_running_loop().create_task(ahead.find("When is breakfast?"))
    await asyncio.sleep(0.05)
    stopped.cancel()
    await asyncio.sleep(0.1)
    assert await ahead.find("When is breakfast?") == search.findings
    assert len(search.asked) == 1


async def test_a_request_searches_when_it_is_made(search: DirectedSearch) -> None:
    search.takes_s = 0.5
    now = SearchNow(search, deadline_s=1.0)
    both = await asyncio.gather(now.find("When is breakfast?"), now.find("May my dog stay?"))
    assert list(both) == [search.findings] * 2
    assert await SearchNow(search, deadline_s=0.2).find("When is breakfast?") == Findings()
    assert not search.running, "a search that nobody waits for is cancelled"
