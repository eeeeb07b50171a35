"""The learned end of a turn: what the model is given, what becomes of its word. The
model here is a made-up one.
"""

import asyncio
import threading
from pathlib import Path

import numpy as np
import pytest

from tests.voice.sounds import RATE_HZ, REPLY, silence, speak, to_pcm
from voicechat.errors import ConfigError
from voicechat.voice.turn_model import WAITING, TurnJudge, TurnModel, log_mel


def field(number: int, content: bytes | int | str) -> bytes:
    """One field of a protobuf message."""
    if isinstance(content, int):
        return varint(number << 3) + varint(content)
    data = content.encode() if isinstance(content, str) else content
    return varint(number << 3 | 2) + varint(len(data)) + data


def varint(value: int) -> bytes:
    digits = []
    while value > 127:
        digits.append(value & 127 | 128)
        value >>= 7
    return bytes([*digits, value])


def tensor(name: str, *shape: int) -> bytes:
    dimensions = b"".join(field(1, field(1, size)) for size in shape)
    return field(1, name) + field(2, field(1, field(1, 1) + field(2, dimensions)))


def tiny_model(path: Path, input_name: str = "input_features") -> Path:
    """ONNX (IR 8, opset 13): the sigmoid of the mean of [1, 80, 800] features, [1,
    1].
    """
    axes = field(1, "axes") + field(8, 1) + field(8, 2) + field(20, 7)
    keep = field(1, "keepdims") + field(3, 0) + field(20, 2)
    mean = (
        field(1, input_name)
        + field(2, "mean")
        + field(4, "ReduceMean")
        + field(5, axes)
        + field(5, keep)
    )
    sigmoid = field(1, "mean") + field(2, "probability") + field(4, "Sigmoid")
    nodes = field(1, mean) + field(1, sigmoid)
    graph = (
        nodes
        + field(2, "g")
        + field(11, tensor(input_name, 1, 80, 800))
        + field(12, tensor("probability", 1))
    )
    path.write_bytes(field(1, 8) + field(8, field(1, "") + field(2, 13)) + field(7, graph))
    return path


def test_the_model_is_given_the_features_and_its_probability_comes_back(tmp_path: Path) -> None:
    model = TurnModel(tiny_model(tmp_path / "turn.onnx"))
    pcm = to_pcm(speak(REPLY))
    mean = float(log_mel(pcm).mean())
    assert model.probability(pcm) == pytest.approx(1 / (1 + np.exp(-mean)), abs=1e-3)


def test_a_file_that_is_none_or_another_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is no file"):
        TurnModel(tmp_path / "nothing.onnx")
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    with pytest.raises(ConfigError, match=r"cannot be loaded: .*models verify"):
        TurnModel(broken)
    with pytest.raises(ConfigError, match="inputs are"):
        TurnModel(tiny_model(tmp_path / "other.onnx", "waveform"))


def test_features_are_of_the_last_eight_seconds_with_silence_before_a_shorter_turn() -> None:
    spoken = speak(REPLY)[: 2 * RATE_HZ]
    features = log_mel(to_pcm(spoken))
    assert features.shape == (80, 800)
    assert features.dtype == np.float32
    assert features[:, 2:598].std(axis=1).max() < 0.01 < features[:, 602:].std(axis=1).min()
    longer = np.concatenate((speak(REPLY)[: 4 * RATE_HZ], silence(6_000), spoken))
    assert np.array_equal(log_mel(to_pcm(longer)), log_mel(to_pcm(longer[-8 * RATE_HZ :])))


def test_features_are_about_minus_one_to_one_whatever_the_loudness() -> None:
    spoken = speak(REPLY)[: 3 * RATE_HZ]
    loud, soft = log_mel(to_pcm(spoken)), log_mel(to_pcm(spoken / 4))
    assert np.abs(loud - soft).mean() < 0.05
    assert -1.5 < loud.min() < loud.max() < 2.5
    assert loud.max() - loud.min() == pytest.approx(2), "80 dB of range, four decades to one"


@pytest.mark.parametrize(("hz", "mels"), [(500, 7.5), (1_000, 15.0), (6_400, 42.0)])
def test_a_tone_is_loudest_in_its_filter_of_slaneys_scale(hz: int, mels: float) -> None:
    tone = np.sin(2 * np.pi * hz * np.arange(8 * RATE_HZ) / RATE_HZ) * 8_000
    highest_mels = 15 + np.log(8) * 27 / np.log(6.4)
    expected = mels / (highest_mels / 81) - 1
    assert int(np.argmax(log_mel(to_pcm(tone))[:, 400])) == pytest.approx(expected, abs=1)


class SlowModel:
    """Answers when it is let."""

    def __init__(self) -> None:
        self.let = threading.Event()

    def probability(self, pcm: bytes) -> float:
        self.let.wait()
        if not pcm:
            raise RuntimeError("broken")
        return 0.25


@pytest.mark.real_time
async def test_only_so_many_turns_wait_and_a_failure_is_no_answer() -> None:
    model = SlowModel()
    judge = TurnJudge(model)
    told: list[float] = []
    judge.ask(b"", told.append)
    for _ in range(WAITING + 3):
        judge.ask(b"x", told.append)
    model.let.set()
    async with asyncio.timeout(120):
        while len(told) < WAITING - 1:  # noqa: ASYNC110 - a thread works
            await asyncio.sleep(0.01)
    judge.ask(b"x", told.append)
    async with asyncio.timeout(120):
        while len(told) < WAITING:  # noqa: ASYNC110 - a thread works
            await asyncio.sleep(0.01)
    judge.close()
    assert told == [0.25] * WAITING
