"""Finds stretches of speech in a series of probabilities. Pure; every time is
milliseconds of audio.
"""

from dataclasses import dataclass
from typing import TypeAlias

from voicechat.voice.silero import FRAME_MS

HYSTERESIS = 0.15
"""Speech continues until the probability falls this far below the threshold: the same
as Silero's ``neg_threshold``.
"""
LEAST_RELEASE = 0.05
"""The lowest release threshold: even with a low threshold, some probability must count
as silence.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivitySettings:
    """How to interpret the probabilities."""

    threshold: float = 0.5
    prefix_padding_ms: int = 300
    """Audio before the onset that belongs to the speech: its first consonant."""
    min_speech_ms: int = 64
    """Shorter sounds are not speech: a click fills one frame."""
    min_silence_ms: int = 96
    """Shorter gaps are part of the speech: a stop consonant is silent for up to 80 ms.
    """


@dataclass(frozen=True, slots=True)
class SpeechOnset:
    """Someone began to speak."""

    onset_ms: int
    """Where the first frame of speech begins."""
    audio_start_ms: int
    """Where the audio to keep begins: the onset less the padding, but not before the
    end of the previous speech.
    """


@dataclass(frozen=True, slots=True)
class SpeechOffset:
    """Silence since ``audio_end_ms``."""

    audio_end_ms: int


Activity: TypeAlias = SpeechOnset | SpeechOffset


class SpeechActivity:
    """Finds speech in one stream. Events alternate, beginning with `SpeechOnset`, and
    their times never decrease.
    """

    def __init__(self, settings: ActivitySettings | None = None) -> None:
        self._settings = settings or ActivitySettings()
        self._release = min(
            self._settings.threshold, max(LEAST_RELEASE, self._settings.threshold - HYSTERESIS)
        )
        self._changed_ms: int | None = None
        """The beginning of the current run of frames that contradict the state; None:
        the last frame agreed with it.
        """
        self._free_from_ms = 0
        self.speaking = False

    @property
    def idle(self) -> bool:
        """Whether the state is silence and no frame suggests a beginning of speech."""
        return not self.speaking and self._changed_ms is None

    @property
    def changing(self) -> bool:
        """Whether a beginning or an end of speech may have come, and the next frames
        decide.
        """
        return self._changed_ms is not None

    def decides(self, audio_ms: int) -> bool:
        """Whether the next frame, which ends at ``audio_ms``, may complete a beginning
        or an end of speech.
        """
        if self._changed_ms is None:
            return False
        least_ms = self._settings.min_silence_ms if self.speaking else self._settings.min_speech_ms
        return audio_ms - self._changed_ms >= least_ms

    def push(self, audio_ms: int, probability: float) -> Activity | None:
        """Take the frame that ends at ``audio_ms``. After lost audio ``audio_ms``
        jumps, and the state continues.
        """
        if self.speaking:
            return self._judge_end(audio_ms, probability)
        return self._judge_onset(audio_ms, probability)

    def begin(self, audio_ms: int) -> None:
        """Restart at ``audio_ms``: the audio that follows does not continue the earlier
        audio. Call it only during silence.
        """
        self._free_from_ms, self._changed_ms = audio_ms, None

    def stop(self, audio_ms: int) -> SpeechOffset:
        """End the speech at ``audio_ms``, because no more audio comes; if silence had
        already begun, end it at the beginning of the silence.
        """
        ended_ms = audio_ms if self._changed_ms is None else self._changed_ms
        self.speaking, self._free_from_ms, self._changed_ms = False, ended_ms, None
        return SpeechOffset(ended_ms)

    def _judge_onset(self, audio_ms: int, probability: float) -> SpeechOnset | None:
        if probability < (self._settings.threshold if self._changed_ms is None else self._release):
            self._changed_ms = None
            return None
        if self._changed_ms is None:
            self._changed_ms = audio_ms - FRAME_MS
        onset_ms = self._changed_ms
        if audio_ms - onset_ms < self._settings.min_speech_ms:
            return None
        self.speaking, self._changed_ms = True, None
        return SpeechOnset(
            onset_ms, max(self._free_from_ms, onset_ms - self._settings.prefix_padding_ms)
        )

    def _judge_end(self, audio_ms: int, probability: float) -> SpeechOffset | None:
        if probability >= self._settings.threshold:
            self._changed_ms = None
            return None
        if self._changed_ms is None:
            if probability >= self._release:
                return None
            self._changed_ms = audio_ms - FRAME_MS
        if audio_ms - self._changed_ms < self._settings.min_silence_ms:
            return None
        return self.stop(audio_ms)
