"""Detects the onset of speech and pauses in a stream, so that recognisers can end
sentences.

WebRTC's VAD classifies frames of 20 ms (0.12 ms of CPU per second of audio). Its errors
on single frames are smoothed over windows. Deterministic: the same samples give the
same events, however they are split.
"""

from collections import deque
from dataclasses import dataclass
from typing import TypeAlias

import webrtcvad

RATE_HZ = 16000
FRAME_MS = 20
FRAME_BYTES = RATE_HZ * FRAME_MS // 1000 * 2

AGGRESSIVENESS = 2
"""The VAD's mode, 0 to 3. On read speech mode 3 cuts off soft word ends, mode 2 does
not. Both classify silence correctly.
"""
ONSET_WINDOW_MS = 200
ONSET_VOICED = 0.9
"""The part of the window that must be voiced for an onset. The VAD stays active for 60
to 80 ms after a sound, so this is 100 ms of sound: shorter than a short "yes", longer
than a click.
"""
PAUSE_MS = 700
PAUSE_VOICED = 0.2
"""The part of a pause that may be voiced, which tolerates a click or a breath."""
PRE_ROLL_MS = 300
"""Audio before the onset that belongs to the sentence: a first consonant is often
unvoiced.
"""
_STEADY_FRAMES = 7
"""Consecutive voiced frames that extend the speech. Fewer are a click and the VAD's
hangover.
"""


@dataclass(frozen=True, slots=True)
class SpeechBegan:
    """Speech began at ``at_ms`` of the stream. Keep the audio from ``keep_from_ms`` on,
    which includes the pre-roll.
    """

    at_ms: int
    keep_from_ms: int


@dataclass(frozen=True, slots=True)
class SpeechPaused:
    """Speech paused: silence since ``at_ms`` of the stream."""

    at_ms: int


SpeechEvent: TypeAlias = SpeechBegan | SpeechPaused


class PauseDetector:
    """Detects speech and pauses in one stream of s16le mono 16 kHz audio.

    Events alternate, beginning with ``SpeechBegan``. Their times never decrease.
    ``SpeechBegan`` is reported 180 to 200 ms after the onset, ``SpeechPaused`` about
    ``pause_ms`` after the end.
    """

    def __init__(self, pause_ms: int = PAUSE_MS) -> None:
        """``pause_ms``, at least 20, is rounded up to whole frames of 20 ms."""
        self._vad = webrtcvad.Vad(AGGRESSIVENESS)
        self._onset: deque[bool] = deque(maxlen=ONSET_WINDOW_MS // FRAME_MS)
        self._pause: deque[bool] = deque(maxlen=max(1, -(-pause_ms // FRAME_MS)))
        self._cut_frame = b""
        self._now_ms = 0
        self._voiced_run = 0
        self._quiet_since_ms = 0
        self.speaking = False
        self.voiced_until_ms = 0
        """The end of the last voiced frame, including clicks."""

    def push_audio(self, pcm: bytes) -> list[SpeechEvent]:
        """Process the next piece, of any size. An incomplete frame is buffered for the
        next call.
        """
        audio = self._cut_frame + pcm
        whole_bytes = len(audio) - len(audio) % FRAME_BYTES
        self._cut_frame = audio[whole_bytes:]
        events: list[SpeechEvent] = []
        for start in range(0, whole_bytes, FRAME_BYTES):
            voiced = self._vad.is_speech(audio[start : start + FRAME_BYTES], RATE_HZ)
            self._now_ms += FRAME_MS
            if voiced:
                self.voiced_until_ms = self._now_ms
            event = self._judge_pause(voiced) if self.speaking else self._judge_onset(voiced)
            if event is not None:
                events.append(event)
        return events

    def _judge_onset(self, voiced: bool) -> SpeechBegan | None:
        window = self._onset
        window.append(voiced)
        if sum(window) < ONSET_VOICED * ONSET_WINDOW_MS / FRAME_MS:
            return None
        at_ms = self._now_ms - (len(window) - window.index(True)) * FRAME_MS
        keep_from_ms = max(self._quiet_since_ms, at_ms - PRE_ROLL_MS)
        window.clear()
        self._quiet_since_ms = self._now_ms
        self.speaking = True
        return SpeechBegan(at_ms, keep_from_ms)

    def _judge_pause(self, voiced: bool) -> SpeechPaused | None:
        window = self._pause
        window.append(voiced)
        self._voiced_run = self._voiced_run + 1 if voiced else 0
        if self._voiced_run >= _STEADY_FRAMES:
            self._quiet_since_ms = self._now_ms
        if len(window) < (window.maxlen or 0) or sum(window) > PAUSE_VOICED * len(window):
            return None
        window.clear()
        self.speaking = False
        return SpeechPaused(self._quiet_since_ms)
