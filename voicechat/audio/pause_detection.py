"""Where speech begins and pauses in a stream, so that recognisers can end sentences.

WebRTC's voice detector judges 20 ms at a time (0.12 ms of CPU per second of audio) and
errs on single frames; what is reported is steadied over windows. Pure: the same samples
give the same events, however they are cut.
"""

from collections import deque
from dataclasses import dataclass
from typing import TypeAlias

import webrtcvad

RATE_HZ = 16000
FRAME_MS = 20
FRAME_BYTES = RATE_HZ * FRAME_MS // 1000 * 2

AGGRESSIVENESS = 2
"""Of 0 to 3. On read speech 3 cuts soft word ends off, 2 does not; both call silence
silence.
"""
ONSET_WINDOW_MS = 200
ONSET_VOICED = 0.9
"""Part of the window that must be voiced for speech to begin. The detector goes on for
60 to 80 ms after a sound, so this is 100 ms of sound: less than a short "yes", more
than a click.
"""
PAUSE_MS = 700
PAUSE_VOICED = 0.2
"""Part of a pause that may be voiced: a click or a breath does not make it speech."""
PRE_ROLL_MS = 300
"""A first consonant is often unvoiced: this much audio before the onset belongs to the
sentence.
"""
_STEADY_FRAMES = 7
"""Voiced frames in a row that move the end of speech; fewer are a click and what the
detector makes of it.
"""


@dataclass(frozen=True, slots=True)
class SpeechBegan:
    """Speech began at ``at_ms`` of the stream; keep the audio from ``keep_from_ms`` on
    for its first syllable.
    """

    at_ms: int
    keep_from_ms: int


@dataclass(frozen=True, slots=True)
class SpeechPaused:
    """The person has been silent since ``at_ms`` of the stream."""

    at_ms: int


SpeechEvent: TypeAlias = SpeechBegan | SpeechPaused


class PauseDetector:
    """Finds speech and the pauses that end it in one stream of s16le mono 16 kHz audio.

    Events alternate, beginning with ``SpeechBegan``; their times never go backwards.
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
        """Where the last frame that was voiced ended, a click's among them."""

    def push_audio(self, pcm: bytes) -> list[SpeechEvent]:
        """Listen to the next piece, of any size; what is no whole frame yet waits for
        the next call.
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
