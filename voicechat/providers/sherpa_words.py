"""To and from sherpa-onnx: samples as it takes them, and words out of its tokens and
where each of them begins.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from voicechat.providers.interfaces import PCM_RATE_HZ
from voicechat.providers.timed_words import TimedText, timed_words
from voicechat.session.vocabulary import Word

TOKEN_MS = 240
"""sherpa-onnx tells where a token begins, not where it ends: it lasts to the next one,
and no longer than this.
"""


@dataclass(frozen=True, slots=True)
class DecodedWords:
    """One result of sherpa-onnx: the text, its tokens, and where each of them begins."""

    text: str
    tokens: Sequence[str] = ()
    times_s: Sequence[float] = ()


def words_of(result: DecodedWords, duration_ms: int) -> tuple[Word, ...]:
    """Give the words with times within ``duration_ms``.

    Where a model tells no times, or its text was rewritten (numbers), `timed_words`
    estimates them.
    """
    begins_ms = [time_s * 1000 for time_s in result.times_s]
    ends_ms = [*begins_ms[1:], float(duration_ms)]
    pieces = [
        # sentencepiece's "▁" and paraformer's "@@" are no letters.
        TimedText(token, begin_ms, max(begin_ms, min(end_ms, begin_ms + TOKEN_MS)))
        for token, begin_ms, end_ms in zip(result.tokens, begins_ms, ends_ms, strict=False)
    ]
    return timed_words(result.text.strip(), pieces, duration_ms)


def samples_of(pcm: bytes) -> list[float]:
    """Give s16le samples as numbers from -1 to 1, which is how sherpa-onnx is quickest
    to take them (16000 in 1 ms).
    """
    samples = np.frombuffer(pcm, "<i2").astype(np.float32) / 32768
    floats: list[float] = []
    for start in range(
        0, len(samples), PCM_RATE_HZ
    ):  # by the second: each keeps the interpreter lock
        floats += samples[start : start + PCM_RATE_HZ].tolist()
    return floats
