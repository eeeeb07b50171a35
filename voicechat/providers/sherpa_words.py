"""Conversions for sherpa-onnx: samples in its form, and its tokens and their times to
words.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from voicechat.providers.interfaces import PCM_RATE_HZ
from voicechat.providers.timed_words import TimedText, timed_words
from voicechat.session.types import Word

TOKEN_MS = 240
"""sherpa-onnx gives the start of a token, not its end. It lasts to the next one, but no
longer than this.
"""


@dataclass(frozen=True, slots=True)
class DecodedWords:
    """One result of sherpa-onnx: the text, its tokens, and their start times."""

    text: str
    tokens: Sequence[str] = ()
    times_s: Sequence[float] = ()


def words_of(result: DecodedWords, duration_ms: int) -> tuple[Word, ...]:
    """Return the words with times within ``duration_ms``.

    If the model gives no times, or its text was rewritten (numbers), `timed_words`
    estimates them.
    """
    begins_ms = [time_s * 1000 for time_s in result.times_s]
    ends_ms = [*begins_ms[1:], float(duration_ms)]
    pieces = [
        # Drop the marks of sentencepiece ("▁") and of paraformer ("@@").
        TimedText(token, begin_ms, max(begin_ms, min(end_ms, begin_ms + TOKEN_MS)))
        for token, begin_ms, end_ms in zip(result.tokens, begins_ms, ends_ms, strict=False)
    ]
    return timed_words(result.text.strip(), pieces, duration_ms)


def samples_of(pcm: bytes) -> list[float]:
    """Convert s16le samples to numbers from -1 to 1, the form that sherpa-onnx takes
    fastest (16000 in 1 ms).
    """
    samples = np.frombuffer(pcm, "<i2").astype(np.float32) / 32768
    floats: list[float] = []
    for start in range(
        0, len(samples), PCM_RATE_HZ
    ):  # 1 s per call: each holds the interpreter lock
        floats += samples[start : start + PCM_RATE_HZ].tolist()
    return floats
