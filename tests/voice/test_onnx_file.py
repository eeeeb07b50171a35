from contextlib import suppress
from pathlib import Path

import pytest

pytest.importorskip("onnx", reason="needs onnx (pip install 'voicechat[test]')")

import numpy as np
import onnx
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from tests.providers.sherpa_models import make_zipformer_ctc
from voicechat.voice.onnx_file import NotOnnxError, read_metadata, read_weights


def test_what_a_model_says_of_itself_is_read(tmp_path: Path) -> None:
    folder = make_zipformer_ctc(tmp_path / "model")
    (path,) = folder.glob("*.onnx")
    assert read_metadata(path) == {
        entry.key: entry.value for entry in onnx.load(str(path)).metadata_props
    }
    assert read_metadata(path)["decode_chunk_len"] == "16"


def test_the_graph_is_skipped_wherever_it_stands(tmp_path: Path) -> None:
    weights = helper.make_tensor("w", TensorProto.FLOAT, [9], [1.0] * 9)
    graph = helper.make_graph([], "g", [], [], [weights])
    model = helper.make_model(graph)
    helper.set_model_props(model, {"first": "1", "long": "x" * 100_000, "漢": "字"})
    content = model.SerializeToString()
    (tmp_path / "as it comes.onnx").write_bytes(content)
    (tmp_path / "metadata first.onnx").write_bytes(
        b"".join(bytes([14 << 3 | 2, *_size(len(entry))]) + entry for entry in _entries(model))
        + helper.make_model(graph).SerializeToString()
    )
    expected = {"first": "1", "long": "x" * 100_000, "漢": "字"}
    assert read_metadata(tmp_path / "as it comes.onnx") == expected
    assert read_metadata(tmp_path / "metadata first.onnx") == expected


def _entries(model: onnx.ModelProto) -> list[bytes]:
    return [entry.SerializeToString() for entry in model.metadata_props]


def _size(number: int) -> list[int]:
    groups: list[int] = []
    while number > 0x7F:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    return [*groups, number]


def test_a_model_that_is_cut_off_is_none(tmp_path: Path) -> None:
    folder = make_zipformer_ctc(tmp_path / "model")
    (path,) = folder.glob("*.onnx")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(NotOnnxError):
        read_metadata(path)
    with pytest.raises(NotOnnxError):
        read_weights(path)


def test_the_weights_of_each_graph_are_read_by_themselves(tmp_path: Path) -> None:
    kernel, bias = np.arange(6, dtype=np.float32).reshape(1, 2, 3), np.array([0.5], np.float32)
    inner = helper.make_graph([_constant("bias", bias)], "inner", [], [])
    outer = helper.make_graph(
        [
            helper.make_node("If", ["x"], ["y"], then_branch=inner, else_branch=inner),
            _constant("", bias),
        ],
        "outer",
        [],
        [],
        [
            numpy_helper.from_array(kernel, "kernel"),
            numpy_helper.from_array(np.array([1], np.int32), "a whole number"),
            helper.make_tensor("not raw", TensorProto.FLOAT, [1], [1.0]),
        ],
    )
    path = tmp_path / "model.onnx"
    path.write_bytes(helper.make_model(outer).SerializeToString())
    *branches, whole = read_weights(path)
    assert [list(branch) for branch in branches] == [["bias"], ["bias"]]
    assert all((branch["bias"] == bias).all() for branch in branches)
    assert list(whole) == ["kernel"]
    assert (whole["kernel"] == kernel).all()
    assert whole["kernel"].shape == kernel.shape


def test_a_shape_that_is_packed_is_read(tmp_path: Path) -> None:
    """As other writers of protobuf do it: the numbers of a repeated field in one
    piece.
    """
    tensor = (
        b"\x0a\x02\x02\x03"
        + b"\x10\x01"
        + b"\x42\x01w"
        + b"\x4a\x18"
        + np.arange(6, dtype="<f4").tobytes()
    )
    graph = b"\x2a" + bytes([len(tensor)]) + tensor
    path = tmp_path / "packed.onnx"
    path.write_bytes(b"\x3a" + bytes([len(graph)]) + graph)
    assert read_weights(path)[0]["w"].shape == (2, 3)


def _constant(
    name: str, value: "np.ndarray[tuple[int, ...], np.dtype[np.float32]]"
) -> onnx.NodeProto:
    return helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(value, name))


def test_graphs_in_graphs_are_read_to_a_bound(tmp_path: Path) -> None:
    graph = helper.make_graph([], "innermost", [], [])
    for _ in range(20):
        graph = helper.make_graph(
            [helper.make_node("If", ["x"], ["y"], then_branch=graph)], "g", [], []
        )
    path = tmp_path / "deep.onnx"
    path.write_bytes(helper.make_model(graph).SerializeToString())
    with pytest.raises(NotOnnxError, match="deep"):
        read_weights(path)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.onnx"
    path.write_bytes(content)
    with suppress(NotOnnxError):
        read_metadata(path)
    with suppress(NotOnnxError):
        read_weights(path)
