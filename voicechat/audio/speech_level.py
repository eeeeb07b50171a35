"""Measures how loud a voice speaks, and brings it to another level.

The level is the active speech level of ITU-T P.56, method B: the power of the speech
over the time in which somebody speaks, including pauses of up to 200 ms. It is measured
on frames of 20 ms, which agrees with the standard's envelope within 1 dB. Levels are in
dBov: 0 is the power of a square wave at full scale.
"""

import math
from collections import deque

import numpy as np
from numpy.typing import NDArray

from voicechat.audio.gain import soft_clipped

FRAME_MS = 20
MARGIN_DB = 15.9
"""Sound that is quieter than the level by more than this is a pause (P.56, method
B).
"""
HANGOVER_FRAMES = 10
"""A pause of 200 ms still counts as speech (P.56, method B)."""
MEASURE_EVERY = 10
"""A known level is measured again every 200 ms."""
ITERATIONS = 8
"""The threshold depends on the level, and the level on the threshold; both converge in
3 or 4 rounds.
"""
MEASURED_FRAMES = 500
"""The level is that of the last 10 s; a longer time would take longer to measure."""
MIN_ACTIVE_FRAMES = 3
"""The fewest active frames from which a level is measured."""
SILENCE_DBOV = -65.0
"""Quieter sound is not a voice."""
MOST_VOICES = 200
"""The most voices of one synthesiser whose level is kept."""
GAIN_BOUNDS_DB = (-20.0, 12.0)
_FULL_SCALE = 32767.0


class SpeechLevel:
    """The active speech level of one voice, measured as it speaks."""

    def __init__(self) -> None:
        self._powers: deque[float] = deque(maxlen=MEASURED_FRAMES)
        self._rest = np.zeros(0)
        self._rate_hz = 0
        self._new = 0
        """Frames since the last measurement."""
        self.dbov: float | None = None
        """None: there was too little speech."""

    def add_audio(self, samples: NDArray[np.float64], rate_hz: int) -> None:
        """Measure the next samples, which are fractions of full scale."""
        if rate_hz != self._rate_hz:
            self._rest, self._rate_hz = np.zeros(0), rate_hz
        samples = np.concatenate([self._rest, samples])
        size = rate_hz * FRAME_MS // 1000
        whole = len(samples) // size
        self._rest = samples[whole * size :]
        if not whole:
            return
        frames = samples[: whole * size].reshape(whole, size)
        self._powers.extend(np.mean(frames**2, axis=1).tolist())
        self._new += whole
        if self.dbov is None or self._new >= MEASURE_EVERY:
            self.dbov, self._new = self._measured(), 0

    def _measured(self) -> float | None:
        powers = np.array(self._powers)
        threshold, level = 10 ** (SILENCE_DBOV / 10), None
        for _ in range(ITERATIONS):
            loud = powers > threshold
            if np.count_nonzero(loud) < MIN_ACTIVE_FRAMES:
                return None
            active = np.convolve(loud, np.ones(1 + HANGOVER_FRAMES))[: len(powers)] > 0
            mean = float(powers[active].sum()) / int(np.count_nonzero(active))
            before, level = level, 10 * math.log10(mean)
            if level == before:
                break
            threshold = mean * 10 ** (-MARGIN_DB / 10)
        return level


class VoiceLevels:
    """The levels of the voices of one synthesiser, shared by all its replies."""

    def __init__(self) -> None:
        self._voices: dict[tuple[str, str], SpeechLevel] = {}

    def level_of(self, model: str, voice: str) -> SpeechLevel:
        """Return the level of a voice."""
        if len(self._voices) >= MOST_VOICES:  # clients choose the names
            self._voices.clear()
        return self._voices.setdefault((model, voice), SpeechLevel())


class LevelControl:
    """Brings one reply of a voice to a level. The gain changes within a piece, never at
    a border between pieces.
    """

    def __init__(self, target_dbov: float, voice: SpeechLevel) -> None:
        """``voice`` holds the level from earlier replies, and this reply updates it.
        Without earlier replies, the first words may be at another level.
        """
        self._target_dbov = target_dbov
        self._voice = voice
        self._gain: float | None = None if voice.dbov is None else self._wanted(voice.dbov)

    def apply(self, pcm: bytes, rate_hz: int) -> bytes:
        """Return s16le mono samples at the level. Peaks are soft-clipped."""
        samples = np.frombuffer(pcm, "<i2") / _FULL_SCALE
        self._voice.add_audio(samples, rate_hz)
        if self._voice.dbov is None:
            return pcm
        wanted = self._wanted(self._voice.dbov)
        before = wanted if self._gain is None else self._gain
        self._gain = wanted
        gain = wanted if before == wanted else np.linspace(before, wanted, len(samples))
        samples = samples * gain
        if max(before, wanted) > 1:
            samples = soft_clipped(samples)
        return np.rint(samples * _FULL_SCALE).astype("<i2").tobytes()

    def _wanted(self, level_dbov: float) -> float:
        low, high = GAIN_BOUNDS_DB
        return float(10 ** (min(max(self._target_dbov - level_dbov, low), high) / 20))
