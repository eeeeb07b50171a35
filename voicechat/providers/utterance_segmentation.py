"""Cuts audio into utterances, for recognisers of whole ones. No I/O.

Voice activity detection keeps silence from the recogniser. Speech without a pause is
cut at its quietest place.
"""

from collections import deque
from dataclasses import dataclass, field

import numpy as np

from voicechat.audio.pause_detection import (
    FRAME_BYTES,
    FRAME_MS,
    ONSET_WINDOW_MS,
    PRE_ROLL_MS,
    PauseDetector,
    SpeechBegan,
    SpeechPaused,
)

_BYTES_PER_MS = FRAME_BYTES // FRAME_MS
_HELD_FRAMES = (ONSET_WINDOW_MS + PRE_ROLL_MS) // FRAME_MS + 1
_QUIET_WINDOW_FRAMES = 10
"""A cut is in the middle of the quietest 200 ms: longer than the closure of a stop
consonant, shorter than the gap between words.
"""


@dataclass(slots=True)
class SpeechSegment:
    """Speech between two pauses. Its audio grows until it is closed."""

    begin_ms: int
    pcm: bytearray = field(default_factory=bytearray)
    closed: bool = False
    voiced_ms: int = 0
    """End of the last voiced sound or click. If the utterance was cut, it may be after
    its end.
    """

    @property
    def heard_ms(self) -> int:
        """Length of the audio so far."""
        return len(self.pcm) // _BYTES_PER_MS


class UtteranceSegmenter:
    """Converts one stream of audio to utterances, in ``waiting``; the last may be open.
    The result does not depend on how the samples are split.
    """

    def __init__(self, pause_ms: int, max_utterance_ms: int) -> None:
        self._pauses = PauseDetector(pause_ms)
        self._max_ms = max_utterance_ms
        self._cut_frame = b""
        self._now_ms = 0
        self._held: deque[bytes] = deque(maxlen=_HELD_FRAMES)
        self._open: SpeechSegment | None = None
        self.waiting: deque[SpeechSegment] = deque()
        """Utterances in order. The consumer removes a closed one when it is done with
        it.
        """

    def push_audio(self, pcm: bytes) -> None:
        """Process the next audio, of any length."""
        audio = self._cut_frame + pcm
        whole_bytes = len(audio) - len(audio) % FRAME_BYTES
        self._cut_frame = audio[whole_bytes:]
        for start in range(0, whole_bytes, FRAME_BYTES):
            self._take(audio[start : start + FRAME_BYTES])

    def finish_audio(self) -> None:
        """End the audio: an open utterance is closed."""
        if self._open is not None:
            self._open.pcm += self._cut_frame
        self._close()

    def _take(self, frame: bytes) -> None:
        self._now_ms += FRAME_MS
        if self._open is None:
            # Speech is detected only after its onset. The held frames begin after the
            # last utterance.
            self._held.append(frame)
        else:
            self._open.pcm += frame
        events = self._pauses.push_audio(frame)
        if self._open is not None:
            self._open.voiced_ms = max(0, self._pauses.voiced_until_ms - self._open.begin_ms)
        for event in events:
            match event:
                case SpeechBegan(keep_from_ms=keep_from_ms):
                    kept = min((self._now_ms - keep_from_ms) // FRAME_MS, len(self._held))
                    self._begin(b"".join(list(self._held)[len(self._held) - kept :]))
                    self._held.clear()
                case SpeechPaused():
                    self._close()
        if self._open is not None and self._open.heard_ms >= self._max_ms:
            self._cut(self._open)

    def _begin(self, pcm: bytes) -> None:
        begin_ms = self._now_ms - len(pcm) // _BYTES_PER_MS
        self._open = SpeechSegment(
            begin_ms, bytearray(pcm), voiced_ms=max(0, self._pauses.voiced_until_ms - begin_ms)
        )
        self.waiting.append(self._open)

    def _close(self) -> None:
        if self._open is not None:
            self._open.closed = True
            self._open = None

    def _cut(self, utterance: SpeechSegment) -> None:
        """Close a long utterance at the quietest place of its last third. The rest
        begins the next one.
        """
        place_bytes = (
            quietest_place(bytes(utterance.pcm), utterance.heard_ms * 2 // 3) * _BYTES_PER_MS
        )
        rest = bytes(utterance.pcm[place_bytes:])
        del utterance.pcm[place_bytes:]
        self._close()
        self._begin(rest)


def quietest_place(pcm: bytes, from_ms: int) -> int:
    """Return the middle of the quietest 200 ms after ``from_ms``, in milliseconds.
    ``pcm`` must be longer than that.
    """
    start = from_ms // FRAME_MS
    frames = np.frombuffer(pcm, "<i2")[start * FRAME_BYTES // 2 :].astype(np.float32)
    frames = frames[: len(frames) // (FRAME_BYTES // 2) * (FRAME_BYTES // 2)].reshape(
        -1, FRAME_BYTES // 2
    )
    energy = np.convolve(
        (frames**2).sum(axis=1), np.ones(_QUIET_WINDOW_FRAMES, np.float32), "valid"
    )
    return (start + int(energy.argmin()) + _QUIET_WINDOW_FRAMES // 2) * FRAME_MS
