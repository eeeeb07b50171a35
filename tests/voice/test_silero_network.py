import logging
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from tests.voice.sounds import OBJECTION, REPLY, noise, silence, speak, to_pcm
from voicechat.voice.onnx_file import NotOnnxError, Tensors, read_weights
from voicechat.voice.silero import (
    MOST_STREAMS,
    Floats,
    Samples,
    SileroModel,
    VoiceModel,
    find_model,
)
from voicechat.voice.silero_network import SileroNetwork, find_weights, open_silero

FRAMES = 60


@cache
def weights() -> Tensors:
    return find_weights(read_weights(find_model()))


@cache
def network() -> SileroNetwork:
    return SileroNetwork(weights())


@cache
def sounds() -> Samples:
    """Frames with their context [MOST_STREAMS, frames, 576]: speech, noise, full scale,
    silence.
    """
    streams = [
        np.concatenate((silence(40 * index), speak(OBJECTION if index % 2 else REPLY)))
        for index in range(MOST_STREAMS)
    ]
    streams[3] = noise(3_000, -30)
    streams[4] = noise(3_000, 20)
    streams[5] = silence(3_000)
    pcm = [np.frombuffer(to_pcm(stream), "<i2")[: 64 + 512 * FRAMES] for stream in streams]
    return np.stack([np.lib.stride_tricks.sliding_window_view(each, 576)[::512] for each in pcm])


def run(model: VoiceModel, samples: Samples) -> tuple[Floats, Floats]:
    """Go through the frames; give all probabilities [frames, streams] and the last
    states.
    """
    states = np.zeros((2, len(samples), 128), np.float32)
    probabilities = []
    for index in range(samples.shape[1]):
        spoken, states = model.score(samples[:, index], states, (len(samples),))
        probabilities.append(spoken)
    return np.stack(probabilities), states


@pytest.mark.parametrize("streams", [1, 2, 7, MOST_STREAMS])
def test_computes_what_onnxruntime_computes(streams: int) -> None:
    probabilities, states = run(network(), sounds()[:streams])
    expected, expected_states = run(SileroModel(find_model()), sounds()[:streams])
    assert probabilities == pytest.approx(expected, abs=1e-4)
    assert states == pytest.approx(expected_states, rel=1e-4, abs=1e-4)
    assert expected[:, 0].max() > 0.9
    assert [result.dtype.name for result in (probabilities, states)] == ["float32", "float32"]


@pytest.mark.parametrize("paired", [0, 1, 5, MOST_STREAMS])
def test_two_frames_in_one_call_are_judged_one_after_the_other(paired: int) -> None:
    """The first streams bring two frames, the others one."""
    samples = sounds()[:, 20:22]
    for judge in (network(), SileroModel(find_model())):
        states = run(judge, sounds()[:, :20])[1]
        first, after_one = judge.score(samples[:, 0], states.copy(), (MOST_STREAMS,))
        second, after_two = (
            judge.score(samples[:paired, 1], after_one[:, :paired].copy(), (paired,))
            if paired
            else (first[:0], after_one[:, :0])
        )
        rows = np.concatenate((samples[:, 0], samples[:paired, 1]))
        counts = (MOST_STREAMS, paired) if paired else (MOST_STREAMS,)
        spoken, new_states = judge.score(rows, states.copy(), counts)
        assert spoken == pytest.approx(np.concatenate((first, second)), abs=1e-4)
        assert new_states[:, :paired] == pytest.approx(after_two, rel=1e-4, abs=1e-4)
        assert new_states[:, paired:] == pytest.approx(after_one[:, paired:], rel=1e-4, abs=1e-4)


def test_what_is_in_other_rows_has_no_influence() -> None:
    """To the bit, even if a neighbour is as loud as can be; how many they are changes
    how sums are rounded.
    """
    others = sounds().copy()
    others[1:] = np.where(np.arange(576) % 2, 32767, -32768)
    probabilities, states = run(network(), sounds())
    beside, states_beside = run(network(), others)
    assert (probabilities[:, 0] == beside[:, 0]).all()
    assert (states[:, 0] == states_beside[:, 0]).all()
    alone, _ = run(network(), sounds()[:1])
    assert probabilities[:, 0] == pytest.approx(alone[:, 0], abs=1e-4)


def test_what_a_call_gave_is_the_callers() -> None:
    samples = sounds()[:2, 30]
    spoken, new_states = network().score(samples, np.zeros((2, 2, 128), np.float32), (2,))
    kept = spoken.copy(), new_states.copy()
    network().score(sounds()[:2, 31], new_states.copy(), (2,))
    assert (spoken == kept[0]).all()
    assert (new_states == kept[1]).all()
    assert not np.shares_memory(spoken, new_states)


def test_the_installed_model_is_computed_here() -> None:
    assert isinstance(open_silero(find_model()), SileroNetwork)


def test_a_network_that_computes_something_else_is_left_to_onnxruntime(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The same weights, but what is negative counts."""
    path = changed(tmp_path, lambda kind: "Abs" if kind == "Relu" else kind)
    with caplog.at_level(logging.WARNING):
        assert isinstance(open_silero(path), SileroModel)
    assert "gives other results" in caplog.text


def test_a_network_of_other_weights_is_left_to_onnxruntime(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = changed(tmp_path, lambda name: name.replace("encoder.2", "encoder.two"))
    with caplog.at_level(logging.WARNING):
        assert isinstance(open_silero(path), SileroModel)
    assert "encoder.2.reparam_conv.weight is not as in the network" in caplog.text


def changed(folder: Path, change: Callable[[str], str]) -> Path:
    """The installed model with other names of tensors and kinds of nodes."""
    onnx = pytest.importorskip("onnx", reason="needs onnx (pip install 'voicechat[test]')")
    model = onnx.load(str(find_model()))
    for branch in (
        attribute.g
        for node in model.graph.node
        for attribute in node.attribute
        if attribute.HasField("g")
    ):
        for node in branch.node:
            node.op_type = change(node.op_type)
            for attribute in node.attribute:
                if attribute.HasField("t"):
                    attribute.t.name = change(attribute.t.name)
    path = folder / "changed.onnx"
    onnx.save(model, str(path))
    return path


def test_the_network_for_16_khz_is_taken_whatever_its_names_begin_with() -> None:
    of_8_khz = {name: np.zeros_like(tensor) for name, tensor in weights().items()}
    of_8_khz["stft.forward_basis_buffer"] = np.zeros((130, 1, 128), np.float32)
    both = {f"model_8k.{name}": tensor for name, tensor in of_8_khz.items()}
    both |= {f"model.{name}": tensor for name, tensor in weights().items()}
    for graphs in ([of_8_khz, weights()], [both]):
        found = find_weights(graphs)
        assert found.keys() == weights().keys()
        assert all(found[name] is tensor for name, tensor in weights().items())


def test_weights_of_another_network_are_refused() -> None:
    with pytest.raises(NotOnnxError, match="another network"):
        find_weights([{"stft.forward_basis_buffer": np.zeros((130, 1, 128), np.float32)}])
    with pytest.raises(NotOnnxError, match="weight_hh is not"):
        find_weights([weights() | {"decoder.rnn.weight_hh": np.zeros((512, 64), np.float32)}])


def test_filters_that_are_no_fourier_transform_are_refused() -> None:
    filters = weights()["stft.forward_basis_buffer"].copy()
    filters[17] *= -1
    with pytest.raises(NotOnnxError, match="Fourier"):
        SileroNetwork(weights() | {"stft.forward_basis_buffer": filters})
