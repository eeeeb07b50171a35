"""Finds the channels of a recording that carry the same sound, and mixes channels.

In a telephone recording each channel holds one speaker, and is transcribed separately.
Recorders and converters often write the same sound to both channels, with another
level, delay or polarity. That sound must be transcribed only once.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

RATE_HZ = 16000
_FRAME_BYTES = 2 * RATE_HZ // 10
_SAME_SOUND = 0.85
"""Threshold of the correlation of loudness over time. Speakers who take turns are below
0, simultaneous speakers around 0.3, the same sound through two microphones or a lossy
codec above 0.9.
"""
_STEADY = 1e-6
"""A channel whose loudness varies by less than this part of its squared mean has no
speech.
"""


class ChannelComparison:
    """Compares the channels of one recording by their loudness in frames of 100 ms."""

    def __init__(self) -> None:
        self._frames = 0
        self._rest: list[bytes] = []
        """For each channel, the samples that do not fill a frame yet."""
        self._sums: NDArray[np.float64] = np.zeros(0)
        self._products: NDArray[np.float64] = np.zeros((0, 0))

    def push_audio(self, channels: Sequence[bytes]) -> None:
        """Add the next piece: s16le 16 kHz, of equal length for each channel. The
        number of channels must not change.
        """
        if not self._rest:
            self._rest = [b""] * len(channels)
            self._sums = np.zeros(len(channels))
            self._products = np.zeros((len(channels), len(channels)))
        joined = [rest + pcm for rest, pcm in zip(self._rest, channels, strict=True)]
        frames = len(joined[0]) // _FRAME_BYTES
        self._rest = [pcm[frames * _FRAME_BYTES :] for pcm in joined]
        if not frames:
            return
        samples = np.stack(
            [np.frombuffer(pcm, "<i2", frames * _FRAME_BYTES // 2) for pcm in joined]
        )
        squares = np.square(samples.reshape(len(channels), frames, -1), dtype=np.float64)
        loudness = np.sqrt(squares.mean(axis=2))
        self._frames += frames
        self._sums += loudness.sum(axis=1)
        self._products += loudness @ loudness.T

    def distinct_channels(self) -> tuple[tuple[int, int], ...]:
        """Return one pair for each distinct sound: its first channel and its loudest
        channel.
        """
        groups: list[list[int]] = []
        for channel in range(len(self._sums)):
            same = next((group for group in groups if self._same(group[0], channel)), None)
            if same is None:
                groups.append([channel])
            else:
                same.append(channel)
        return tuple(
            (group[0], max(group, key=lambda channel: self._sums[channel])) for group in groups
        )

    def _same(self, one: int, other: int) -> bool:
        if not self._frames:
            return False
        means = self._sums / self._frames
        covariances = self._products / self._frames - np.outer(means, means)
        variances = covariances[[one, other], [one, other]]
        if (variances <= _STEADY * np.square(means[[one, other]])).any():
            return False
        return bool(covariances[one, other] >= _SAME_SOUND * np.sqrt(variances.prod()))


def mixed(channels: Sequence[bytes]) -> bytes:
    """Average channels, s16le of equal length, to mono."""
    if len(channels) == 1:
        return channels[0]
    total = np.sum([np.frombuffer(pcm, "<i2") for pcm in channels], axis=0, dtype=np.int32)
    return (total // len(channels)).astype("<i2").tobytes()
