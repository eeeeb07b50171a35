"""Finds where speech really ended. Silero's model reports speech for two or three
frames too long; the samples show the end exactly.
"""

import numpy as np

from voicechat.voice.silero import RATE_HZ

WINDOW_MS = 8
LOOK_BACK_MS = 4_000
"""The audio before the end that is analysed. The level of speech is the maximum of its
last `SPEECH_MS`; the level of the room comes from all of it.
"""
SPEECH_MS = 1_000
MOST_MS = 96
"""The largest correction: the model's own delay is 45 to 80 ms on clean speech. Before
that the model is right.
"""
BELOW_DB = 35
"""Sound that is this much quieter than the loudest moment is not speech: the faintest
sounds of speech, f and th, lie about 30 dB below vowels.
"""
FLOOR_SHARE = 0.1
"""The part of the windows that is assumed to hold only the room's noise: closures of
consonants and pauses take at least this part.
"""
ABOVE_FLOOR_DB = 3
"""Sound up to this much above the room's level is not speech: the room's own noise
varies this much from window to window.
"""
HIGHEST_FLOOR_DB = -20
"""A higher floor, relative to the loudest moment, is not the room's noise, but speech
without a pause.
"""


def trailing_quiet_ms(pcm: bytes) -> int:
    """Return how much at the end of ``pcm``, which the model took for speech, is
    silence: a multiple of `WINDOW_MS`.

    ``pcm`` is s16le mono 16 kHz; only its last `LOOK_BACK_MS` are analysed.
    """
    window_samples = RATE_HZ * WINDOW_MS // 1000
    windows = min(len(pcm) // 2 // window_samples, LOOK_BACK_MS // WINDOW_MS)
    if windows == 0:
        return 0
    samples = np.frombuffer(pcm[-windows * window_samples * 2 :], "<i2").astype(np.float32)
    power = np.square(samples.reshape(windows, window_samples)).mean(axis=1)
    loudest = power[-(SPEECH_MS // WINDOW_MS) :].max()
    tail, before = power[-(MOST_MS // WINDOW_MS) :], power[: -(MOST_MS // WINDOW_MS)]
    limit = loudest * _power(-BELOW_DB)
    quiet_windows = int(len(before) * FLOOR_SHARE)
    floor = np.partition(before, quiet_windows)[quiet_windows] if len(before) else loudest
    if floor <= loudest * _power(HIGHEST_FLOOR_DB):
        limit = max(limit, floor * _power(ABOVE_FLOOR_DB))
    quiet = tail[::-1] < limit
    return WINDOW_MS * (len(quiet) if quiet.all() else int(np.argmin(quiet)))


def _power(db: float) -> float:
    return float(10 ** (db / 10))
