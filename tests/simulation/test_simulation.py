"""Whole servers in the simulation: what holds, and whether it would tell."""

from dataclasses import replace

import pytest

from tools.simulate import play
from voicechat.testing.simulation.bugs import BUGS, planted
from voicechat.testing.simulation.scenario import (
    Mishap,
    Plan,
    Scenario,
    Turn,
    draw_scenario,
)
from voicechat.testing.simulation.shrinking import shrink_scenario
from voicechat.testing.simulation.world import run_scenario

SHORT = Plan(visits=4, visit_s=300)


def fails(scenario: Scenario) -> bool:
    return run_scenario(scenario).failed


def test_the_rules_hold_and_a_seed_replays_alike() -> None:
    scenario = draw_scenario(3, SHORT)
    first, second = run_scenario(scenario), run_scenario(scenario)
    assert not first.violations
    assert first.turns > 10
    assert scenario.faults > 10
    assert first.digest == second.digest
    assert run_scenario(replace(scenario, visits=scenario.visits[1:])).digest != first.digest


def test_a_failing_scenario_shrinks() -> None:
    drawn = draw_scenario(2, Plan(visits=2, visit_s=60)).visits
    visits = [replace(visit, turns=visit.turns[:3], ending="leave") for visit in drawn]
    turns = [
        Turn(
            head=19_000 + number,
            words=(19_000 + number, 25_000),
            pause_s=5,
            mishaps=(Mishap(kind, after_s=0.1),),
        )
        for number, kind in enumerate(("ping", "forget", "played", "ping"))
    ]
    visits[1] = replace(visits[1], turns=tuple(turns))
    scenario = Scenario(seed=2, visits=tuple(visits))
    with planted("never-forgets"):
        small = shrink_scenario(scenario, fails)
        assert fails(small)
    assert not fails(small)
    assert len(small.visits) == 1
    assert small.turns <= 3
    assert {mishap.kind for turn in small.visits[0].turns for mishap in turn.mishaps} == {"forget"}


@pytest.mark.long
def test_hours_with_all_that_goes_wrong() -> None:
    for seed in range(40, 43):
        played = play(Plan(visits=8, servers=3), "", seed)
        assert not played.violations, f"{played}"


@pytest.mark.long
@pytest.mark.parametrize("bug", sorted(BUGS))
def test_a_planted_bug_is_found(bug: str) -> None:
    assert any(play(Plan(visits=6), bug, seed).violations for seed in range(1, 5))
