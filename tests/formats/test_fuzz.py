import asyncio
import os

import pytest

from tests.formats.material import NAMES
from tools.fuzz_decoders import fuzz, hurtful

pytestmark = [
    pytest.mark.real_time,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a system that can fork"),
]

FIRST_SEED = 1_000_000
MAX_INPUT_S = 30.0
"""For a machine that has other things to do; on one of its own a second is enough."""


@pytest.mark.parametrize("inputs", [84, pytest.param(420, marks=pytest.mark.long)])
async def test_damaged_audio_is_answered_in_time_and_leaves_nothing_behind(inputs: int) -> None:
    findings = await fuzz(
        [(NAMES[seed % len(NAMES)], seed) for seed in range(FIRST_SEED, FIRST_SEED + inputs)],
        max_input_s=MAX_INPUT_S,
    )
    assert findings.sound, findings
    assert sum(findings.outcomes.values()) == inputs
    # It proves something only while most of the damage gets as far as a codec.
    assert findings.outcomes["heard"] > inputs / 2
    assert len(asyncio.all_tasks()) == 1


async def test_what_once_hurt_does_not_hurt_again() -> None:
    findings = await fuzz(hurtful(), max_input_s=MAX_INPUT_S)
    assert (findings.slow, findings.ended) == ([], [])
