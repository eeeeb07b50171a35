"""The short form of ``python -m tools.dialogues.evaluate``: 200 dialogues that no one
tuned the policy on.
"""

from functools import cache

import pytest

from tools.dialogues.evaluate import Comparison, Staged, compare, report, stage
from tools.dialogues.script import Kind

DIALOGUES = 200


@cache
def staged() -> Staged:
    return stage(DIALOGUES)


@cache
def comparison() -> Comparison:
    return compare(staged())


def test_the_dialogues_hold_what_they_should() -> None:
    kinds = {sound.kind for dialogue, _ in staged() for sound in dialogue.sounds}
    assert kinds == set(Kind)
    assert {dialogue.chinese for dialogue, _ in staged()} == {True, False}
    assert any(overlap.interruption for dialogue, _ in staged() for overlap in dialogue.overlaps)


def test_a_dialogue_is_the_same_every_time() -> None:
    assert stage(6) == stage(6)


@pytest.mark.parametrize(
    ("errors", "of"),
    [
        ("false_ends", "turns"),
        ("missed_ends", "turns"),
        ("false_interruptions", "quiet_overlaps"),
        ("missed_interruptions", "interruptions"),
    ],
)
def test_at_most_half_the_errors_of_fixed_times(errors: str, of: str) -> None:
    ours, plain = comparison().ours, comparison().plain
    assert getattr(ours, of) >= 150
    assert getattr(ours, errors) <= getattr(plain, errors) / 2, report(comparison())
