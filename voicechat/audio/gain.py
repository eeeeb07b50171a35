"""The volume of a reply: 0 to 100, where 50 leaves the level unchanged.

Volume is linear in amplitude: ``20 log10(volume / 50)`` dB. So 100 is +6 dB, 25 is -6
dB, and 0 is silence.
"""

import numpy as np
from numpy.typing import NDArray

UNCHANGED = 50.0
_FULL_SCALE = 32767.0
_KNEE = 0.8
"""The part of full scale above which amplified peaks are soft-clipped."""


class Gain:
    """Changes the level of s16le mono speech. Each sample is processed independently,
    so that consecutive pieces join without a click.
    """

    def __init__(self, volume: float) -> None:
        """``volume``: 0 to 100."""
        self._factor = volume / UNCHANGED

    def apply(self, pcm: bytes) -> bytes:
        """Return the samples at the new level. Peaks are soft-clipped."""
        if self._factor == 1:
            return pcm
        samples = np.frombuffer(pcm, "<i2") * (self._factor / _FULL_SCALE)
        if self._factor > 1:
            samples = soft_clipped(samples)
        return np.rint(samples * _FULL_SCALE).astype("<i2").tobytes()


def soft_clipped(samples: NDArray[np.float64]) -> NDArray[np.float64]:
    """Soft-clip: samples below the knee are unchanged, larger ones approach full scale
    by a hyperbolic tangent.
    """
    excess = (np.abs(samples) - _KNEE) / (1 - _KNEE)
    return np.where(excess > 0, np.sign(samples) * (_KNEE + (1 - _KNEE) * np.tanh(excess)), samples)
