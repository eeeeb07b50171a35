"""A learned model that judges from the sound of a turn whether the user has finished:
Smart Turn version 3 (BSD), as ONNX.

The model is not part of this package; its file is configured. Its inputs and outputs,
as its authors describe them (github.com/pipecat-ai/smart-turn): ``input_features`` [1,
80, 800] is the log-mel spectrogram of Whisper (Radford et al., "Robust Speech
Recognition via Large-Scale Weak Supervision", 2022) over the last 8 s of the turn, with
silence before a shorter turn. The first number of the first output is the probability
that the turn is complete.
"""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np

from voicechat.errors import IF_MODEL_DAMAGED, ConfigError, FailureKind, ProviderError
from voicechat.voice.onnx_model import open_model
from voicechat.voice.silero import RATE_HZ, Floats

logger = logging.getLogger(__name__)

WAITING = 8
"""The most turns that may wait. Beyond it the words alone decide, because a judgement
that comes later than the words is useless.
"""
LENGTH_MS = 8_000
INPUT = "input_features"
_SAMPLES = RATE_HZ * LENGTH_MS // 1000
_FFT = 400
_HOP = 160
_MELS = 80
_FAINTEST = 1e-10
_RANGE_DECADES = 8.0
"""Whisper's parameters: windows of 25 ms every 10 ms; power more than 80 dB below the
maximum is raised to that level.
"""
_LINEAR_HZ = 1_000.0
_LINEAR_MELS = 15.0
_MELS_PER_E = 27.0 / np.log(6.4)
"""Slaney's mel scale (Auditory Toolbox, 1998): 3 mels for 200 Hz up to 1 kHz, above it
27 for a factor of 6.4.
"""


class TurnModel:
    """The loaded model: one thread, no state; safe to call from several threads."""

    def __init__(self, path: Path) -> None:
        """Load the file. Raises `ConfigError` when it does not exist or is not such a
        model.
        """
        if not path.is_file():
            raise ConfigError(f"the turn model {str(path)!r} is no file")
        try:
            self._session = open_model(path, "turn")
        except ConfigError as error:
            raise ConfigError(f"{error}; {IF_MODEL_DAMAGED}") from error
        inputs = [entry.name for entry in self._session.get_inputs()]
        if inputs != [INPUT]:
            raise ConfigError(
                f"{str(path)!r} is no Smart Turn model of version 3: its inputs are {inputs}"
            )

    def probability(self, pcm: bytes) -> float:
        """Return the probability (0 to 1) that the turn ``pcm`` (s16le mono 16 kHz) is
        complete. Takes tens of milliseconds.

        Releases the interpreter lock for most of that time. Raises `ProviderError`
        (BROKEN).
        """
        features = log_mel(pcm)[np.newaxis]
        try:
            output = self._session.run(None, {INPUT: features})[0]
        except Exception as error:  # its errors have no other base class
            raise ProviderError(
                "turn model", FailureKind.BROKEN, f"inference failed: {error}"
            ) from error
        return min(max(float(np.ravel(output)[0]), 0.0), 1.0)


class Model(Protocol):
    """See ``voicechat.voice.turn_model.TurnModel``."""

    def probability(self, pcm: bytes) -> float:
        """Return the probability that the turn is complete."""


class TurnJudge:
    """Runs one model in one thread. Used on the event loop only."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._thread = ThreadPoolExecutor(1, "turn-model")
        self._waiting = 0
        self._failed = False

    def ask(self, pcm: bytes, tell: Callable[[float], None]) -> None:
        """Call ``tell`` with the probability that the turn ``pcm`` (s16le mono 16 kHz)
        is complete, when it is known.

        ``tell`` is not called when too many turns wait, or when the model fails.
        """
        if self._waiting >= WAITING:
            return
        self._waiting += 1
        asked = asyncio.get_running_loop().run_in_executor(
            self._thread, self._model.probability, pcm
        )
        asked.add_done_callback(partial(self._on_done, tell))

    def close(self) -> None:
        """Accept no more turns. A computation in progress ends by itself, within tens
        of milliseconds.
        """
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _on_done(self, tell: Callable[[float], None], asked: asyncio.Future[float]) -> None:
        self._waiting -= 1
        if asked.cancelled():
            return
        error = asked.exception()
        if error is None:
            tell(asked.result())
        elif not self._failed:
            self._failed = True
            logger.error("the turn model failed, words alone decide: %s", error)


def log_mel(pcm: bytes) -> Floats:
    """Compute the features of the last 8 s of ``pcm``: [80, 800], about -1 to 1 at any
    loudness.
    """
    spoken = np.frombuffer(pcm[-_SAMPLES * 2 :], "<i2").astype(np.float32) / np.float32(32768)
    audio = np.pad(spoken, (_SAMPLES - len(spoken), 0))
    audio = (audio - audio.mean()) / np.sqrt(audio.var() + 1e-7)
    padded = np.pad(audio, _FFT // 2, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, _FFT)[:_SAMPLES:_HOP]
    power = np.abs(np.fft.rfft(frames * _WINDOW)) ** 2
    mels = np.log10(np.maximum(_FILTERS @ power.T, _FAINTEST))
    features: Floats = ((np.maximum(mels, mels.max() - _RANGE_DECADES) + 4) / 4).astype(np.float32)
    return features


def _mel_edges_hz() -> Floats:
    """Where the triangular filters begin, peak and end: at equal distances in mels from
    0 to half the rate.
    """
    highest = _LINEAR_MELS + np.log(RATE_HZ / 2 / _LINEAR_HZ) * _MELS_PER_E
    mels = np.linspace(0, highest, _MELS + 2)
    above = _LINEAR_HZ * np.exp((np.maximum(mels, _LINEAR_MELS) - _LINEAR_MELS) / _MELS_PER_E)
    edges: Floats = np.where(mels < _LINEAR_MELS, mels * 200 / 3, above)
    return edges


def _mel_filters() -> Floats:
    """The filters [80, 201]: each is a triangle with the area of 1 Hz."""
    edges = _mel_edges_hz()[:, np.newaxis]
    hz = np.linspace(0, RATE_HZ / 2, _FFT // 2 + 1)
    rising = (hz - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - hz) / (edges[2:] - edges[1:-1])
    filters: Floats = np.maximum(np.minimum(rising, falling), 0) * 2 / (edges[2:] - edges[:-2])
    return filters


_WINDOW = np.hanning(_FFT + 1)[:-1]
_FILTERS = _mel_filters()
