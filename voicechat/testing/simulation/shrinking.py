"""Makes a failing scenario small: leaves out what is not needed for its failure."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TypeVar

from voicechat.testing.simulation.scenario import Scenario, Turn, Visit

T = TypeVar("T")


def shrink_scenario(
    scenario: Scenario, fails: Callable[[Scenario], bool], most_runs: int = 300
) -> Scenario:
    """Return the smallest scenario that is found and still ``fails``, within
    ``most_runs`` runs. Visits are left out first, then turns, then what goes wrong.
    """
    runs = 0
    progress = True
    while progress and runs < most_runs:
        progress = False
        for smaller in _smaller(scenario):
            runs += 1
            if fails(smaller):
                scenario, progress = smaller, True
                break
            if runs >= most_runs:
                break
    return scenario


def _smaller(scenario: Scenario) -> Iterator[Scenario]:
    """Yield scenarios with less in them, those with the least first."""
    for visits in _fewer(scenario.visits):
        if visits:
            yield replace(scenario, visits=visits)
    for incidents in _fewer(scenario.incidents):
        yield replace(scenario, incidents=incidents)
    if len(scenario.visits) > 3:
        return
    for number, visit in enumerate(scenario.visits):
        for less in _smaller_visits(visit):
            visits = (*scenario.visits[:number], less, *scenario.visits[number + 1 :])
            yield replace(scenario, visits=visits)


def _smaller_visits(visit: Visit) -> Iterator[Visit]:
    for turns in _fewer(visit.turns):
        if turns:
            yield replace(visit, turns=turns)
    if len(visit.turns) > 8:
        return
    for number, turn in enumerate(visit.turns):
        for less in _smaller_turns(turn):
            turns = (*visit.turns[:number], less, *visit.turns[number + 1 :])
            yield replace(visit, turns=turns)
    for option in sorted(visit.options):
        yield replace(visit, options=visit.options - {option})
    if visit.ending != "leave":
        yield replace(visit, ending="leave")


def _smaller_turns(turn: Turn) -> Iterator[Turn]:
    for mishaps in _fewer(turn.mishaps):
        yield replace(turn, mishaps=mishaps)
    if turn.recognizer:
        yield replace(turn, recognizer=())
    if turn.model:
        yield replace(turn, model=())
    if turn.synthesizer:
        yield replace(turn, synthesizer=())


def _fewer(items: Sequence[T]) -> Iterator[tuple[T, ...]]:
    """Yield the items without a part of them: without half, a quarter, ... one."""
    size = len(items)
    while size > 1:
        size = (size + 1) // 2
        for start in range(0, len(items), size):
            yield (*items[:start], *items[start + size :])
    if len(items) == 1:
        yield ()
