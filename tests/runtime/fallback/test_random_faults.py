"""Sessions in which anything fails at any time, by seed: every turn ends once, and
nothing is left of it.
"""

import asyncio
import itertools
import random

import pytest

from tests.runtime.fallback.test_fault_matrix import ALWAYS, GARBAGE, MIDDLE, FaultyHarness
from voicechat.errors import FailureKind
from voicechat.session.commands import Cancel
from voicechat.session.notices import Done, ReplyNotice, TurnCommitted, TurnCompleted
from voicechat.testing.scripted import Failure

TURNS = 4
seeds = pytest.mark.parametrize("seed", range(40))
REACHED: set[str] = set()


def a_failure(dice: random.Random, stage: str) -> Failure:
    """One in two providers works; the others fail anywhere, once, a few times, or
    always.
    """
    if dice.random() < 0.5:
        return Failure(calls=0)
    how = dice.choice(["fails", "hangs", "stops", "garbage", "foreign", "busy"])
    return Failure(
        after=dice.choice([0, 0, 1, MIDDLE[stage] + 1]),
        kind=None if how == "hangs" else dice.choice(list(FailureKind)),
        calls=dice.choice([1, 2, 5, ALWAYS]),
        retry_after_s=dice.choice([0.0, 1.0, 20.0]) if how == "busy" else None,
        foreign=RuntimeError("x") if how == "foreign" else None,
        garbage=GARBAGE[stage] if how == "garbage" else None,
        stops=how == "stops",
    )


def faulty(dice: random.Random) -> FaultyHarness:
    stage = FaultyHarness(spared=dice.random() < 0.7, poll_s=0.05)
    for recognizer in (stage.recognizer, stage.spare_recognizer):
        recognizer.failure = a_failure(dice, "asr")
    for model in (stage.model, stage.spare_model):
        model.failure = a_failure(dice, "llm")
    for synthesizer in (stage.synthesizer, stage.spare_synthesizer):
        synthesizer.failure = a_failure(dice, "tts")
    stage.model.first_ms = dice.choice([0, 300, 3_000])
    stage.synthesizer.chunk_delay_ms = dice.choice([0, 40])
    return stage


async def a_turn(stage: FaultyHarness, dice: random.Random, number: int) -> None:
    """Take a turn; in one of three the user interrupts."""
    turn = asyncio.get_running_loop().create_task(stage.take_turn(number))
    if dice.random() < 0.33:
        await asyncio.sleep(0.9 + dice.choice([0.01, 0.2, 1.0, 4.0]))
        stage.send(Cancel())
    await turn
    await asyncio.sleep(dice.choice([0.0, 1.0, 15.0]))


@seeds
async def test_every_turn_ends_once_whatever_fails(seed: int) -> None:
    dice = random.Random(seed)
    stage = faulty(dice)
    async with stage:
        for number in range(1, TURNS + 1):
            await a_turn(stage, dice, number)
            REACHED.add(stage.outcome)
        kinds = [type(notice) for notice in stage.notices]
        assert kinds.count(TurnCompleted) == TURNS
        assert kinds.count(TurnCommitted) == TURNS
        for at, kind in enumerate(kinds):
            if kind is Done:
                until_next = itertools.takewhile(lambda kind: kind is not TurnCommitted, kinds[at:])
                assert not [kind for kind in until_next if issubclass(kind, ReplyNotice)]


def test_the_seeds_reach_what_they_are_for() -> None:
    """Run behind the seeds: sessions that never fail prove nothing."""
    if not REACHED:
        pytest.skip("the seeds were not run")
    said = " / ".join(sorted(REACHED))
    for outcome in (
        "reply by the fallback",
        "error 50201",
        "error 50202",
        "error 50203",
        "apology",
    ):
        assert outcome in said
