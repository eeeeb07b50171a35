"""Hands-free: keeps background voices, such as a television or people in the room, from
counting as the user's speech.

They are recognised by their level. The user's level is measured from sound that counted
as speech; sound that is fainter by the configured difference counts as silence. If only
faint speech is heard for long, it counts as the user's again: the user has moved away
from the microphone.
"""

import numpy as np

from voicechat.runtime.audio_input.ring_buffer import BYTES_PER_MS, RingBuffer
from voicechat.voice.silero import FRAME_MS

MEASURED_FRAMES = 4
"""The level is measured on 128 ms of speech at a time, about a syllable; that of a new
sound from its second frame on, the shortest speech.
"""
SMOOTHED = 0.5
"""Weight of the newest measurement in the present level: the last two or three count,
because syllables differ by 10 dB.
"""
GAP_MS = 300
"""After a longer gap the present level is measured anew. Gaps between words are
shorter.
"""
KNOWN_AFTER = 4
"""Measurements, half a second of speech, before the user's level is known."""
FOLLOWED = 0.08
"""Weight of the newest measurement in the user's level: that of the last 1.6 s of
speech. It is a mean of powers, so that it follows a louder voice at once.
"""
FORGOTTEN_MS = 12_000
"""After this much background speech without any of the user's, the user's level is
discarded.
"""


class Foreground:
    """Separates the user of one session from background voices. Used on the event loop
    only.
    """

    def __init__(self, timeline: RingBuffer, difference_db: float) -> None:
        """``timeline`` holds the audio to judge. Sound that is fainter than the user by
        ``difference_db`` is background.
        """
        self._timeline = timeline
        self._part = 10 ** (-difference_db / 10)
        self._user = 0.0
        """The mean square of the user's samples."""
        self._measured = 0
        """Number of measurements in ``_user``."""
        self._present = 0.0
        """The mean square of the present sound; 0 at its beginning."""
        self._heard = 0
        """Number of frames of the present sound."""
        self._frames = 0
        """Number of these frames that are not measured yet."""
        self._background_ms = 0
        """Milliseconds of background speech since the user's last speech."""
        self._last_ms = 0
        self._near = True

    def judge(self, audio_ms: int, probability: float) -> float:
        """Judge a frame of 32 ms that ends at ``audio_ms`` and sounds like speech.
        Returns its probability, or 0 if it is background.
        """
        if audio_ms - self._last_ms > GAP_MS:
            self._present, self._heard, self._frames = 0.0, 0, 0
        self._last_ms = audio_ms
        self._heard += 1
        self._frames += 1
        if self._heard == 1:
            self._near = True  # too short and too soft to judge
        elif self._heard > MEASURED_FRAMES:
            if self._frames >= MEASURED_FRAMES:
                self._measure(audio_ms)
        elif self._heard == 2 or not self._near:
            self._measure(audio_ms)
        return probability if self._near else 0.0

    def _measure(self, audio_ms: int) -> None:
        frames, self._frames = self._frames, 0
        pcm = self._timeline.before(audio_ms, frames * FRAME_MS * BYTES_PER_MS)
        samples = np.frombuffer(pcm, "<i2").astype(np.float32)
        power = float(np.dot(samples, samples)) / max(1, len(samples))
        if not power:
            self._near = True
            return
        if self._heard <= MEASURED_FRAMES:
            # A first syllable begins softly: its loudest frame gives its level.
            newest = samples[-FRAME_MS * BYTES_PER_MS // 2 :]
            self._present = max(self._present, power, float(np.dot(newest, newest)) / len(newest))
        else:
            self._present += (power - self._present) * SMOOTHED
        known = self._measured >= KNOWN_AFTER
        self._near = not known or self._present >= self._user * self._part
        if self._near:
            self._background_ms = 0
            self._measured += 1
            self._user += (power - self._user) * max(FOLLOWED, 1 / self._measured)
            return
        self._background_ms += frames * FRAME_MS
        if self._background_ms >= FORGOTTEN_MS:
            self._measured = 0
            self._background_ms = 0
