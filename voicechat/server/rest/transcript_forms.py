"""Formats of a recognised recording."""

from collections.abc import Iterable

from voicechat.server.rest.recognising import RecordingResult, RecordingUtterance
from voicechat.text.words import join


def plain(recognised: RecordingResult) -> str:
    """Join the sentences to one text."""
    return join(one_line(utterance) for utterance in recognised.utterances)


def lines(recognised: RecordingResult) -> str:
    """Format one line per sentence, as transcription tasks return them."""
    return "".join(
        f"[{_minutes(spoken.begin_ms)},{_minutes(spoken.end_ms)},{spoken.channel}] "
        f"{one_line(spoken)}\n"
        for spoken in recognised.utterances
    )


def srt(recognised: RecordingResult) -> str:
    """Format as SubRip."""
    return "\n".join(
        f"{number}\n{cue}" for number, cue in enumerate(_cues(recognised.utterances, ","), 1)
    )


def vtt(recognised: RecordingResult) -> str:
    """Format as WebVTT (W3C, 4.1); markup characters are escaped."""
    return "WEBVTT\n\n" + "\n".join(
        cue.replace("&", "&amp;").replace("<", "&lt;") for cue in _cues(recognised.utterances, ".")
    )


def _cues(utterances: Iterable[RecordingUtterance], decimal: str) -> Iterable[str]:
    for spoken in utterances:
        begin, end = _clock(spoken.begin_ms, decimal), _clock(spoken.end_ms, decimal)
        yield f"{begin} --> {end}\n{one_line(spoken)}\n"


def one_line(spoken: RecordingUtterance) -> str:
    """Return a sentence without line breaks."""
    return " ".join(spoken.transcript.text.split())


def _minutes(time_ms: int) -> str:
    minutes, rest_ms = divmod(time_ms, 60_000)
    return f"{minutes}:{rest_ms // 1000}.{rest_ms % 1000:03d}"


def _clock(time_ms: int, decimal: str) -> str:
    minutes, rest_ms = divmod(time_ms, 60_000)
    return (
        f"{minutes // 60:02d}:{minutes % 60:02d}:{rest_ms // 1000:02d}{decimal}{rest_ms % 1000:03d}"
    )
