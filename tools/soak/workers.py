"""Measures whether two workers hold 1.8 times what one holds: ``python -m
tools.soak.workers``, on a machine of two cores.

The users need a core as well, so two full workers cannot be had there, and what they
would hold is reckoned from what a session costs them. One worker has N sessions and two
have 2 N, in turn: each worker has the same to do. A core that may be busy for a part b
holds b / c sessions when a session takes the part c of it, so two hold 2 c1 / c2 times
what one holds. The parent's own time counts as the workers'. Of each kind the cheapest
run counts: others only add to it.
"""

import argparse
import asyncio
import sys
from collections.abc import Sequence
from dataclasses import replace

from voicechat.bench.conversations import ConversationFigures, Workload, bench_conversations
from voicechat.bench.ramp import RampStep
from voicechat.session.types import VoiceSettings

WANTED = 1.8


async def measure(
    one: Workload, rounds: int
) -> tuple[list[ConversationFigures], list[ConversationFigures]]:
    """Take turns: what else the machine does falls on both."""
    two = replace(one, sessions=2 * one.sessions, workers=2)
    found: tuple[list[ConversationFigures], list[ConversationFigures]] = ([], [])
    for _ in range(rounds):
        for work, figures in zip((one, two), found, strict=True):
            figures.append(await bench_conversations(work, lambda: None))
            print(told(figures[-1]), flush=True)
    return found


def told(figures: ConversationFigures) -> str:
    work = figures.workload
    cost = f"{figures.cpu_s_per_session_minute:.3f} s of a core per session-minute"
    times = f"added {figures.overhead}; the users' lag {figures.client_lag}"
    return (
        f"{work.workers} x {work.sessions // work.workers} sessions: {cost}; {times}; "
        f"{RampStep(figures).verdict}"
    )


def cheapest_s(figures: Sequence[ConversationFigures]) -> float:
    costs_s = [
        run.cpu_s_per_session_minute for run in figures if run.cpu_s_per_session_minute is not None
    ]
    return min(costs_s)


def held(figures: Sequence[ConversationFigures]) -> bool:
    """Whether nothing was ever lost, and once all figures were good: what others do to
    a run is no fault of it.
    """
    return all(run.sound for run in figures) and any(not RampStep(run).broken for run in figures)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--sessions",
        type=int,
        default=30,
        help="of each worker; all of them and their users need room",
    )
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    one = Workload(
        sessions=options.sessions, seconds=options.seconds, output=VoiceSettings().format
    )
    alone, together = asyncio.run(measure(one, options.rounds))
    ratio = 2 * cheapest_s(alone) / cheapest_s(together)
    print(f"two workers on two cores hold {ratio:.2f} times what one holds on one")
    return int(ratio < WANTED or not held(alone) or not held(together))


if __name__ == "__main__":
    sys.exit(main())
