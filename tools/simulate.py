"""Whole servers in a simulation, hour after hour: ``python -m tools.simulate --hours
100 --seed 1``.

Each seed is a scenario of some hours of conversations, with everything that may go
wrong. The first one in which a rule does not hold is made small and shown; the exit
status is then 1. ``--seed`` of that one, with ``--hours 0``, plays it again. ``--bug``
puts a known bug into the servers first: then a run that finds nothing is the failure.
"""

import argparse
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import count

from voicechat.testing.simulation.bugs import BUGS, planted
from voicechat.testing.simulation.scenario import Plan, Scenario, draw_scenario
from voicechat.testing.simulation.shrinking import shrink_scenario
from voicechat.testing.simulation.world import RunOutcome, run_scenario

SHOWN_ENTRIES = 40
"""How much of a failing run's trace is shown, without its audio."""
_AUDIO = ('"status":"accepting"', " bytes")


@dataclass(frozen=True, slots=True)
class Played:
    """What one seed has shown, without its scenario."""

    seed: int
    hours: float
    turns: int
    connects: int
    cpu_s: float
    digest: str
    violations: tuple[str, ...]
    rules: tuple[str, ...]


def play(plan: Plan, bug: str, seed: int) -> Played:
    """Run the scenario of a seed."""
    begun_s = time.process_time()
    with planted(bug) if bug else nullcontext():
        outcome = run_scenario(draw_scenario(seed, plan))
    return Played(
        seed,
        outcome.hours,
        outcome.turns,
        outcome.connects,
        time.process_time() - begun_s,
        outcome.digest,
        tuple(map(str, outcome.violations)),
        tuple(violation.rule for violation in outcome.violations),
    )


def played(plan: Plan, bug: str, first: int, jobs: int) -> Iterator[Played]:
    """Run one seed after the other, in so many processes."""
    one = partial(play, plan, bug)
    if jobs == 1:
        yield from map(one, count(first))
        return
    with ProcessPoolExecutor(jobs) as pool:
        for start in count(first, jobs):
            yield from pool.map(one, range(start, start + jobs))


def explain(scenario: Scenario, bug: str, rule: str) -> None:
    """Make a failing scenario small, and show it with the end of its trace."""

    def run(smaller: Scenario, *, keep_trace: bool = False) -> RunOutcome:
        with planted(bug) if bug else nullcontext():
            return run_scenario(smaller, keep_trace=keep_trace)

    def fails(smaller: Scenario) -> bool:
        return rule in [violation.rule for violation in run(smaller).violations]

    small = shrink_scenario(scenario, fails)
    outcome = run(small, keep_trace=True)
    print(f"smallest scenario found, {small.turns} turns, {small.faults} faults:\n  {small}")
    at_s = outcome.violations[0].at_s
    entries = [
        entry
        for entry in outcome.entries or ()
        if float(entry.split(" ", 1)[0]) <= at_s + 1e-6
        and not any(sign in entry for sign in _AUDIO)
    ]
    for entry in entries[-SHOWN_ENTRIES:]:
        print("   ", entry)
    for violation in outcome.violations:
        print("  ", violation)


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=float, default=10.0, help="of conversations")
    parser.add_argument("--seed", type=int, default=1, help="the first seed")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--servers", type=int, default=3, help="of each scenario")
    parser.add_argument("--bug", choices=sorted(BUGS), default="", help="a bug to put in")
    options = parser.parse_args()
    plan = Plan(servers=options.servers)
    hours, turns, connects, cpu_s = 0.0, 0, 0, 0.0
    for done in played(plan, options.bug, options.seed, options.jobs):
        hours, turns = hours + done.hours, turns + done.turns
        connects, cpu_s = connects + done.connects, cpu_s + done.cpu_s
        if done.violations:
            print(f"seed {done.seed} fails, after {hours:.1f} conversation hours:", flush=True)
            for violation in done.violations:
                print("  ", violation)
            explain(draw_scenario(done.seed, plan), options.bug, done.rules[0])
            return 0 if options.bug else 1
        print(
            f"seed {done.seed}: {hours:.1f} hours, {turns} turns, {connects} connects, "
            f"{cpu_s / hours:.2f} s of CPU an hour, trace {done.digest[:16]}",
            flush=True,
        )
        if hours >= options.hours:
            break
    if options.bug:
        print(f"the bug {options.bug!r} was not found in {hours:.1f} hours")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
