"""A cheap first judgement, so that the model is not run on silence: WebRTC's voice detector."""

import webrtcvad

from voicechat.voice.silero import FRAME_BYTES, RATE_HZ

AGGRESSIVENESS = 2
"""Of 0 to 3. On recordings of people 2 opens with 0 and 1, to one frame, and stays shut in white noise of -30 dB where
those stay open; 3 opens up to 130 ms late."""
OPEN_FRAMES = 15
"""How many frames (480 ms) it stays open after the last sound, so that the model sees the end of speech and the short
pauses between words."""

_WINDOW_BYTES = RATE_HZ * 20 // 1000 * 2
"""WebRTC's detector takes 10, 20 or 30 ms: two overlapping windows of 20 cover a frame of 32."""


class Gate:
    """The gate of one stream of frames of 32 ms, s16le mono 16 kHz. Its state depends on those frames alone."""

    def __init__(self) -> None:
        self._detector = webrtcvad.Vad(AGGRESSIVENESS)
        self._open_frames = 0

    def push(self, frame: bytes) -> bool:
        """Take the next frame; return whether the gate is open for it."""
        if self._sounds(frame):
            self._open_frames = OPEN_FRAMES
            return True
        self._open_frames = max(0, self._open_frames - 1)
        return self._open_frames > 0

    def _sounds(self, frame: bytes) -> bool:
        return bool(
            self._detector.is_speech(frame[:_WINDOW_BYTES], RATE_HZ)
            or self._detector.is_speech(frame[FRAME_BYTES - _WINDOW_BYTES :], RATE_HZ)
        )
