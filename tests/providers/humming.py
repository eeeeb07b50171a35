"""Sounds that voice detection takes for speech, and silence: s16le mono 16 kHz."""

import numpy as np


def voice(duration_ms: int) -> bytes:
    """A hummed vowel: harmonics of 120 Hz under two formants, swelling four times a
    second.
    """
    time_s = np.arange(duration_ms * 16) / 16000
    harmonics_hz = 120 * np.arange(1, 30)
    gains = sum(np.exp(-(((harmonics_hz - formant_hz) / 200) ** 2)) for formant_hz in (700, 1200))
    tone = (np.asarray(gains)[:, None] * np.sin(2 * np.pi * harmonics_hz[:, None] * time_s)).sum(
        axis=0
    )
    swelling = 0.7 + 0.3 * np.sin(2 * np.pi * 4 * time_s)
    return np.asarray(tone * swelling * 3000, "<i2").tobytes()


def silence(duration_ms: int) -> bytes:
    return bytes(duration_ms * 32)
