"""Every golden transcript, played against the kernel to the millisecond."""

from pathlib import Path

import pytest

from voicechat.testing.transcripts import GoldenTranscript, play_on_kernel, read_transcript

FILES = sorted((Path(__file__).parents[2] / "protocol" / "transcripts").glob("*.jsonl"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_kernel_says_what_the_transcript_says(path: Path) -> None:
    golden = read_transcript(path)
    assert play_on_kernel(golden) == golden.expected


def test_there_are_transcripts() -> None:
    assert len(FILES) >= 25


def test_a_transcript_of_a_dialect_that_does_not_exist_is_not_played_as_another() -> None:
    with pytest.raises(ValueError, match="speech_chatt"):
        play_on_kernel(GoldenTranscript("typo", "speech_chatt", ()))
