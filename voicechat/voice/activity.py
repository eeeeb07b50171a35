"""From probabilities to stretches of speech. Pure; every time is milliseconds of
audio.
"""

from dataclasses import dataclass
from typing import TypeAlias

from voicechat.voice.silero import FRAME_MS

HYSTERESIS = 0.15
"""Speech goes on until the probability falls this far below the threshold: Silero's own
``neg_threshold``.
"""
LEAST_RELEASE = 0.05
"""With a low threshold there is still a probability that counts as silence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivitySettings:
    """How probabilities are read."""

    threshold: float = 0.5
    prefix_padding_ms: int = 300
    """Audio before the onset that belongs to the speech: its first consonant."""
    min_speech_ms: int = 64
    """Shorter sounds are no speech: a click fills one frame."""
    min_silence_ms: int = 96
    """Shorter gaps are part of the speech: a stop consonant is silent for up to 80 ms.
    """


@dataclass(frozen=True, slots=True)
class SpeechOnset:
    """Someone began to speak."""

    onset_ms: int
    """Where the first frame of speech begins."""
    audio_start_ms: int
    """Where the audio to be kept begins: the onset less the padding, never before the
    end of the speech before.
    """


@dataclass(frozen=True, slots=True)
class SpeechOffset:
    """Nobody has spoken since ``audio_end_ms``."""

    audio_end_ms: int


Activity: TypeAlias = SpeechOnset | SpeechOffset


class SpeechActivity:
    """Finds speech in one stream. Events alternate, beginning with `SpeechOnset`, and
    their times never go back.
    """

    def __init__(self, settings: ActivitySettings | None = None) -> None:
        self._settings = settings or ActivitySettings()
        self._release = min(
            self._settings.threshold, max(LEAST_RELEASE, self._settings.threshold - HYSTERESIS)
        )
        self._changed_ms: int | None = None
        """Where the present run of frames that speak against the state began."""
        self._free_from_ms = 0
        self.speaking = False

    @property
    def idle(self) -> bool:
        """Whether nobody speaks, and nothing sounds as if somebody began to."""
        return not self.speaking and self._changed_ms is None

    def decides(self, audio_ms: int) -> bool:
        """Whether the frame that ends at ``audio_ms``, which is the next, may complete
        a beginning or an end of speech.
        """
        if self._changed_ms is None:
            return False
        least_ms = self._settings.min_silence_ms if self.speaking else self._settings.min_speech_ms
        return audio_ms - self._changed_ms >= least_ms

    def push(self, audio_ms: int, probability: float) -> Activity | None:
        """Take the frame that ends at ``audio_ms``. Where audio was lost, ``audio_ms``
        jumps: what was goes on.
        """
        if self.speaking:
            return self._judge_end(audio_ms, probability)
        return self._judge_onset(audio_ms, probability)

    def begin(self, audio_ms: int) -> None:
        """Audio begins at ``audio_ms`` that does not continue what came before. Only
        while nobody speaks.
        """
        self._free_from_ms, self._changed_ms = audio_ms, None

    def stop(self, audio_ms: int) -> SpeechOffset:
        """End the speech at ``audio_ms``, because no more audio comes; where silence
        had begun before, there.
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
