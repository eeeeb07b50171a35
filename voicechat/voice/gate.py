"""A cheap first decision that keeps the model from running on silence: WebRTC's voice
detector.
"""

import webrtcvad

from voicechat.voice.silero import RATE_HZ

AGGRESSIVENESS = 2
"""WebRTC's mode, 0 to 3. On recordings of people mode 2 opens within one frame of modes
0 and 1, and stays closed in white noise of -30 dB, in which those stay open; mode 3
opens up to 130 ms late.
"""
OPEN_FRAMES = 15
"""How many frames (480 ms) the gate stays open after the last sound, so that the model
sees the end of speech and the short pauses between words.
"""

_WINDOW_BYTES = RATE_HZ * 30 // 1000 * 2
"""WebRTC's detector accepts 10, 20 or 30 ms: the newest 30 ms of a frame of 32 are
used. On those recordings, as they are, 20 dB softer, and with noise, it rejects no
frame that the model takes for speech; neither do two windows of 20 ms.
"""
_MUTED = bytes(_WINDOW_BYTES)
"""The samples of a microphone that is switched off, or whose noise is removed: the
detector need not judge them.
"""


class Gate:
    """The gate of one stream of frames of 32 ms, s16le mono 16 kHz. Its state depends
    only on those frames.
    """

    def __init__(self) -> None:
        self._detector = webrtcvad.Vad(AGGRESSIVENESS)
        self._open_frames = 0

    def push(self, frame: bytes) -> bool:
        """Take the next frame; return whether the gate is open for it."""
        window = frame[-_WINDOW_BYTES:]
        if window != _MUTED and self._detector.is_speech(window, RATE_HZ):
            self._open_frames = OPEN_FRAMES
            return True
        self._open_frames = max(0, self._open_frames - 1)
        return self._open_frames > 0
