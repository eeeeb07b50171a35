import json

import pytest

from tests.rtvi.transcripts import FOLDER, SCENARIOS, play


@pytest.mark.parametrize("name", SCENARIOS)
async def test_the_dialect_says_what_the_transcript_says(name: str) -> None:
    lines = (FOLDER / f"{name}.jsonl").read_text("utf-8").splitlines()
    assert await play(name) == [json.loads(line) for line in lines]


def test_every_transcript_is_played() -> None:
    assert {file.stem for file in FOLDER.iterdir()} == set(SCENARIOS)
