"""Where speech really ended. Silero's model goes on hearing it for two or three frames;
the samples know better.
"""

import numpy as np

from voicechat.voice.silero import RATE_HZ

WINDOW_MS = 8
LOOK_BACK_MS = 4_000
"""How much before the end is looked at: the loudest moment of the last second, and the
quietest of all of it.
"""
SPEECH_MS = 1_000
MOST_MS = 96
"""No more than this is taken back: the model's own delay is 45 to 80 ms on clean
speech. Beyond it, it is right.
"""
BELOW_DB = 35
"""So much quieter than the loudest moment is no speech: its faintest sounds, f and th,
lie some 30 dB below vowels.
"""
FLOOR_SHARE = 0.1
"""The part of the windows that are taken for the room alone: closures of consonants and
pauses are as long.
"""
ABOVE_FLOOR_DB = 3
"""No louder than this above the room: its own noise goes up and down by so much from
window to window.
"""
HIGHEST_FLOOR_DB = -20
"""A floor that is closer to the loudest moment is no room, but speech without a pause.
"""


def trailing_quiet_ms(pcm: bytes) -> int:
    """How much of the end of ``pcm``, which the model took for speech, was none: a
    multiple of `WINDOW_MS`.

    ``pcm`` is s16le mono 16 kHz; what is before the last `LOOK_BACK_MS` is not looked
    at.
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
