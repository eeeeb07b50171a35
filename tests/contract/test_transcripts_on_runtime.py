"""Every golden transcript, played on the whole runtime: what is sent, in which order.

The kernel's play asserts the times (``test_transcripts_on_kernel``); here the runtime's
tasks stand between.
"""

from pathlib import Path

import pytest

from voicechat.testing.queued_fakes import in_order, play_on_runtime
from voicechat.testing.transcripts import read_transcript

FILES = sorted((Path(__file__).parents[2] / "protocol" / "transcripts").glob("*.jsonl"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
async def test_the_runtime_says_what_the_transcript_says(path: Path) -> None:
    golden = read_transcript(path)
    assert await play_on_runtime(golden) == in_order(golden.expected)
