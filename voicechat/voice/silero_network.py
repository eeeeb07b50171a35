"""The Silero voice model's network, computed with numpy from the weights in its ONNX
file.

A call for several streams takes a quarter of onnxruntime's time, which is short enough
for the event loop. So no thread has to be woken, and none competes for the interpreter
lock. The network, for one frame of one stream:

- *Spectrum*: 64 samples of context, the 512 of the frame, and the last 64 of those
  mirrored; four windows of 256 samples at steps of 128, each multiplied by a Hann
  window; the magnitudes of their 129 frequencies.
- *Encoder*: four convolutions over three columns of time each; the second and third
  halve the number of columns. At the edges the kernel is cut, so it never reads outside
  the columns.
- *Decoder*: an LSTM of 128 cells; the probability is a sigmoid of one weighted sum of
  its output after a ReLU.

sigmoid(x) = tanh(x / 2) / 2 + 1 / 2: with weights that are halved once, one `tanh`
serves all gates.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from voicechat.voice.onnx_file import NotOnnxError, Tensors, read_weights
from voicechat.voice.silero import (
    CONTEXT_SAMPLES,
    FRAME_SAMPLES,
    MOST_ROWS,
    MOST_STREAMS,
    Floats,
    Samples,
    SileroModel,
    VoiceModel,
)

logger = logging.getLogger(__name__)

TOLERANCE = 1e-4
"""The largest allowed difference from onnxruntime's results. The actual difference is
1e-5, from sums in another order.
"""
COMPARED_STREAMS = 3
COMPARED_FRAMES = 8

_INPUT = CONTEXT_SAMPLES + FRAME_SAMPLES
_MIRRORED = 64
_WINDOW = 256
_HOP = 128
_COLUMNS = (_INPUT + _MIRRORED - _WINDOW) // _HOP + 1
_FREQUENCIES = _WINDOW // 2 + 1
_CELLS = 128
_STRIDES = (1, 2, 2, 1)
_TAPS = 3
_BASIS = "stft.forward_basis_buffer"
_SHAPES = {
    _BASIS: (2 * _FREQUENCIES, 1, _WINDOW),
    "encoder.0.reparam_conv.weight": (128, _FREQUENCIES, _TAPS),
    "encoder.0.reparam_conv.bias": (128,),
    "encoder.1.reparam_conv.weight": (64, 128, _TAPS),
    "encoder.1.reparam_conv.bias": (64,),
    "encoder.2.reparam_conv.weight": (64, 64, _TAPS),
    "encoder.2.reparam_conv.bias": (64,),
    "encoder.3.reparam_conv.weight": (128, 64, _TAPS),
    "encoder.3.reparam_conv.bias": (128,),
    "decoder.rnn.weight_ih": (4 * _CELLS, 128),
    "decoder.rnn.weight_hh": (4 * _CELLS, _CELLS),
    "decoder.rnn.bias_ih": (4 * _CELLS,),
    "decoder.rnn.bias_hh": (4 * _CELLS,),
    "decoder.decoder.2.weight": (1, _CELLS, 1),
    "decoder.decoder.2.bias": (1,),
}
"""The weights of the network for 16 kHz. The network for 8 kHz, in the same file, has
weights of the same names.
"""


def open_silero(path: Path) -> VoiceModel:
    """Load the model, in about 100 ms. This module computes it if the file holds the
    known network, else onnxruntime does.

    Raises `ConfigError` for a file that is not a Silero voice model.
    """
    runtime = SileroModel(path)
    try:
        network = SileroNetwork(find_weights(read_weights(path)))
    except NotOnnxError as error:
        logger.warning(
            "the voice model is computed by onnxruntime, at four times the cost: %s", error
        )
        return runtime
    difference = _difference(network, runtime)
    if difference <= TOLERANCE:
        return network
    logger.warning(
        "the voice model is computed by onnxruntime, at four times the cost: %s gives other "
        "results, by %.2g",
        path,
        difference,
    )
    return runtime


def find_weights(graphs: list[Tensors]) -> Tensors:
    """Select the weights of the network for 16 kHz by the ends of their names. Raises
    `NotOnnxError` if one is missing.
    """
    for tensors in graphs:
        for name, basis in tensors.items():
            if name.endswith(_BASIS) and basis.shape == _SHAPES[_BASIS]:
                before = name.removesuffix(_BASIS)
                found = {known: tensors.get(before + known) for known in _SHAPES}
                return {known: _checked(known, tensor) for known, tensor in found.items()}
    raise NotOnnxError("it is another network than the one that is known here")


def _checked(name: str, tensor: Floats | None) -> Floats:
    if tensor is None or tensor.shape != _SHAPES[name]:
        raise NotOnnxError(f"its {name} is not as in the network that is known here")
    return tensor


def _difference(network: VoiceModel, runtime: VoiceModel) -> float:
    """Return the largest difference between the results of both, for the same noise at
    varying loudness.
    """
    noise = np.random.default_rng(5)
    mine, theirs = np.zeros((2, 2, COMPARED_STREAMS, _CELLS), np.float32)
    worst = 0.0
    for _ in range(COMPARED_FRAMES):
        loudness = 10.0 ** noise.uniform(1, 4, (COMPARED_STREAMS, 1))
        samples = (
            (noise.standard_normal((COMPARED_STREAMS, _INPUT)) * loudness)
            .clip(-32768, 32767)
            .astype(np.int16)
        )
        counts = (COMPARED_STREAMS,)
        my_speech, mine = network.score(samples, mine, counts)
        their_speech, theirs = runtime.score(samples, theirs, counts)
        worst = max(
            worst, float(np.abs(my_speech - their_speech).max()), float(np.abs(mine - theirs).max())
        )
    return worst


class SileroNetwork:
    """The network for 16 kHz. Keeps the interpreter lock. Takes 14 us for each of 32
    streams, 65 us for a single one.
    """

    in_thread = False

    def __init__(self, weights: Tensors) -> None:
        """``weights`` are from `find_weights`. Raises `NotOnnxError` when its filters
        are not those of a Fourier transform.
        """
        window = _window(weights[_BASIS])
        self._window = window * np.float32(_WINDOW / 32768)
        self._padded = np.zeros((MOST_ROWS, _INPUT + _MIRRORED), np.float32)
        windows = np.lib.stride_tricks.sliding_window_view(self._padded, _WINDOW, axis=1)
        self._windows = windows[:, ::_HOP]
        self._windowed = np.empty((MOST_ROWS, _COLUMNS, _WINDOW), np.float32)
        # Any, because numpy's annotations of the transform know only double precision.
        self._spectrum: Any = np.empty((MOST_ROWS, _COLUMNS, _FREQUENCIES), np.complex64)
        self._magnitudes = np.empty((MOST_ROWS, _COLUMNS * _FREQUENCIES), np.float32)
        self._encoder: list[_Convolution] = []
        columns = _COLUMNS
        for index, stride in enumerate(_STRIDES):
            of_layer = f"encoder.{index}.reparam_conv."
            kernel, bias = weights[of_layer + "weight"], weights[of_layer + "bias"]
            self._encoder.append(_Convolution(kernel, bias, columns, stride))
            columns = -(-columns // stride)
        self._decoder = _Decoder(weights)

    def score(
        self, samples: Samples, states: Floats, counts: Sequence[int]
    ) -> tuple[Floats, Floats]:
        """See `VoiceModel`."""
        values = self._spectra(samples)
        for layer in self._encoder:
            values = layer.apply(values)
        return self._decoder.apply(values, states, counts), states

    def _spectra(self, samples: Samples) -> Floats:
        """Return the magnitudes [N, columns x frequencies]."""
        streams = len(samples)
        padded = self._padded[:streams]
        padded[:, :_INPUT] = samples
        padded[:, _INPUT:] = samples[:, -2 : -2 - _MIRRORED : -1]
        windowed = np.multiply(self._windows[:streams], self._window, out=self._windowed[:streams])
        # "forward" divides by the length, and the window contains that factor. Without
        # a division numpy would compute in float64.
        spectrum = np.fft.rfft(windowed, norm="forward", out=self._spectrum[:streams])
        parts = spectrum.view(np.float32).reshape(streams, -1, 2)
        np.square(parts, out=parts)
        magnitudes: Floats = self._magnitudes[:streams]
        np.add(parts[..., 0], parts[..., 1], out=magnitudes)
        np.sqrt(magnitudes, out=magnitudes)
        return magnitudes


def _window(basis: Floats) -> Floats:
    """Return the window with which the filters are those of a discrete Fourier
    transform.
    """
    window: Floats = basis[0, 0]
    angles = 2 * np.pi / _WINDOW * np.outer(np.arange(_FREQUENCIES), np.arange(_WINDOW))
    expected = np.concatenate((np.cos(angles), -np.sin(angles))) * window
    if np.abs(basis[:, 0] - expected).max() > TOLERANCE:
        raise NotOnnxError("its first filters are not those of a Fourier transform")
    return window


class _Convolution:
    """A convolution over three columns of time, and a ReLU. Its matrices are [N,
    columns x channels].
    """

    def __init__(self, kernel: Floats, bias: Floats, columns: int, stride: int) -> None:
        channels_out, channels_in, _ = kernel.shape
        taps = np.ascontiguousarray(kernel.transpose(2, 1, 0))
        columns_out = -(-columns // stride)
        self._steps: list[tuple[slice, Floats, slice]] = []
        """For each output column: its inputs, its weights and its place in the
        output.
        """
        for column in range(columns_out):
            first = column * stride - 1
            begin, end = max(first, 0), min(first + _TAPS, columns)
            weights = taps[begin - first : end - first].reshape(-1, channels_out)
            goes_in = slice(begin * channels_in, end * channels_in)
            self._steps.append(
                (goes_in, weights, slice(column * channels_out, (column + 1) * channels_out))
            )
        self._bias = np.tile(bias, columns_out)
        self._out = np.empty((MOST_ROWS, columns_out * channels_out), np.float32)

    def apply(self, values: Floats) -> Floats:
        """Return the layer's output, which the next call overwrites."""
        out = self._out[: len(values)]
        for goes_in, weights, comes_out in self._steps:
            np.matmul(values[:, goes_in], weights, out=out[:, comes_out])
        out += self._bias
        return np.maximum(out, 0, out=out)


class _Decoder:
    """The LSTM and the final layer. The gates are in PyTorch's order: input, forget,
    cell, output.
    """

    def __init__(self, weights: Tensors) -> None:
        self._scale = np.repeat(np.array([0.5, 0.5, 1, 0.5], np.float32), _CELLS)
        self._shift = 1 - self._scale
        """sigmoid(x) = tanh(x / 2) / 2 + 1 / 2; the cell gate is tanh(x)."""
        self._of_input = np.ascontiguousarray(weights["decoder.rnn.weight_ih"].T * self._scale)
        self._of_output = np.ascontiguousarray(weights["decoder.rnn.weight_hh"].T * self._scale)
        self._bias = (weights["decoder.rnn.bias_ih"] + weights["decoder.rnn.bias_hh"]) * self._scale
        self._speech = weights["decoder.decoder.2.weight"][0, :, 0] / 2
        self._speech_bias = weights["decoder.decoder.2.bias"] / 2
        self._gates = np.empty((MOST_ROWS, 4 * _CELLS), np.float32)
        self._recurrent = np.empty((MOST_STREAMS, 4 * _CELLS), np.float32)
        self._outputs = np.empty((MOST_ROWS, _CELLS), np.float32)

    def apply(self, values: Floats, states: Floats, counts: Sequence[int]) -> Floats:
        """Return the probabilities [rows] in a new array, and bring ``states`` up to
        date. See `VoiceModel.score` for ``counts``.
        """
        rows = len(values)
        gates = np.matmul(values, self._of_input, out=self._gates[:rows])
        gates += self._bias
        outputs = self._outputs[:rows]
        begin = 0
        for count in counts:
            end = begin + count
            self._step(gates[begin:end], states[:, :count], outputs[begin:end])
            begin = end
        np.maximum(outputs, 0, out=outputs)
        speech: Floats = np.matmul(outputs, self._speech)
        speech += self._speech_bias
        np.tanh(speech, out=speech)
        speech += 1
        speech *= 0.5
        return speech

    def _step(self, gates: Floats, states: Floats, outputs: Floats) -> None:
        """Compute one frame of each stream: its new state and its output."""
        output, cells = states
        gates += np.matmul(output, self._of_output, out=self._recurrent[: len(gates)])
        np.tanh(gates, out=gates)
        gates *= self._scale
        gates += self._shift
        taken, kept, new, told = (gates[:, at : at + _CELLS] for at in range(0, 4 * _CELLS, _CELLS))
        cells *= kept
        taken *= new
        cells += taken
        np.tanh(cells, out=outputs)
        outputs *= told
        output[:] = outputs
