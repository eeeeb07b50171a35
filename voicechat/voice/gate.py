"""A cheap first judgement, so that the model is not run on silence: WebRTC's voice
detector.
"""

import webrtcvad

from voicechat.voice.silero import RATE_HZ

AGGRESSIVENESS = 2
"""Of 0 to 3. On recordings of people 2 opens with 0 and 1, to one frame, and stays shut
in white noise of -30 dB where those stay open; 3 opens up to 130 ms late.
"""
OPEN_FRAMES = 15
"""How many frames (480 ms) it stays open after the last sound, so that the model sees
the end of speech and the short pauses between words.
"""

_WINDOW_BYTES = RATE_HZ * 30 // 1000 * 2
"""WebRTC's detector takes 10, 20 or 30 ms: here the newest 30 of a frame of 32. On
those recordings, as they are, 20 dB softer, and with noise, it shuts out no frame that
the model takes for speech; nor do two windows of 20 ms.
"""
_MUTED = bytes(_WINDOW_BYTES)
"""What a microphone sends that is switched off, or whose noise is taken away: nobody
need listen to it.
"""


class Gate:
    """The gate of one stream of frames of 32 ms, s16le mono 16 kHz. Its state depends
    on those frames alone.
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
