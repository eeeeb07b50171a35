"""Kokoro's voices for evaluations: phrases as samples that a recogniser takes."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from voicechat.audio.resample import Resampler
from voicechat.providers.interfaces import PCM_RATE_HZ
from voicechat.providers.kokoro import RATE_HZ as SPOKEN_HZ
from voicechat.providers.kokoro import KokoroOptions
from voicechat.providers.model_speech import SpeechOptions

FOLDER = "kokoro-v1.0-int8"
QUIET = 100
"""Samples fainter than this part of 32768 at both ends are cut off."""

Samples = NDArray[np.float64]


class NeuralSpeech:
    """The loaded model, in this process."""

    def __init__(self, models: Path, threads: int) -> None:
        # Its packages are an extra, and heavy: only who measures imports them.
        from voicechat.providers.kokoro_worker import KokoroSpeaker

        folder = models / FOLDER
        options = KokoroOptions(
            model=str(next(folder.glob("*.onnx"))),
            voices=str(folder / "voices"),
            threads=threads,
            niceness=0,
        )
        self._speaker = KokoroSpeaker(options)

    def speak(self, phrase: str, voice: str) -> bytes:
        """The phrase, s16le mono 16 kHz, from its first sound to its last."""
        resampler = Resampler(SPOKEN_HZ, PCM_RATE_HZ)
        spoken = self._speaker.speak(phrase, SpeechOptions(voice=voice, speech_rate=1.0))
        return trimmed(b"".join(map(resampler.push_audio, spoken)) + resampler.finish_stream())


def trimmed(pcm: bytes) -> bytes:
    """Cut the silence off at both ends."""
    loud = np.flatnonzero(np.abs(np.frombuffer(pcm, "<i2").astype(np.int32)) > QUIET)
    return pcm[int(loud[0]) * 2 : int(loud[-1] + 1) * 2] if len(loud) else b""
