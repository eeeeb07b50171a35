"""Subtitles in SubRip form (.srt)."""

from collections.abc import Iterable

from voicechat.session.types import Transcript


def srt(sentences: Iterable[Transcript]) -> str:
    """Format final sentences as numbered subtitles in SubRip form."""
    blocks = []
    for number, sentence in enumerate(sentences, 1):
        end_ms = sentence.end_ms if sentence.end_ms is not None else sentence.begin_ms
        blocks.append(
            f"{number}\n{_clock(sentence.begin_ms)} --> {_clock(end_ms)}\n{sentence.text}\n"
        )
    return "\n".join(blocks)


def _clock(time_ms: int) -> str:
    seconds, milliseconds = divmod(time_ms, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{seconds:02d},{milliseconds:03d}"
