"""Reads an ONNX file without running it: its properties and its weights.

An ONNX file is a protobuf message ``ModelProto``; the field numbers are those of
onnx.proto. Other content is skipped by its length.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, TypeAlias

import numpy as np
from numpy.typing import NDArray

MAX_ENTRY_BYTES = 4 * 1024 * 1024
"""The most metadata: a tokeniser's vocabulary may be part of it."""
MAX_GRAPHS_DEEP = 8
"""The deepest nesting of graphs inside the nodes of graphs."""

Tensors: TypeAlias = dict[str, NDArray[np.float32]]

_GRAPH, _METADATA = 7, 14
_KEY, _VALUE = 1, 2
_NODE, _INITIALIZER = 1, 5
_ATTRIBUTE = 5
_ATTRIBUTE_TENSOR, _ATTRIBUTE_GRAPH = 5, 6
_DIMS, _DATA_TYPE, _NAME, _RAW_DATA = 1, 2, 8, 9
_FLOAT = 1
_MAX_VARINT_BYTES = 10


class NotOnnxError(ValueError):
    """The file is not an ONNX model, or is cut off."""


def read_metadata(path: Path) -> dict[str, str]:
    """Read the model's own properties. Raises `NotOnnxError`, and `OSError` when the
    file cannot be read.
    """
    found: dict[str, str] = {}
    with path.open("rb") as file:
        for field, end in _fields(file, path.stat().st_size):
            if field != _METADATA:
                continue
            if end - file.tell() > MAX_ENTRY_BYTES:
                raise NotOnnxError(
                    f"{path}: an entry of its metadata has {end - file.tell()} bytes"
                )
            entry = {_KEY: "", _VALUE: ""}
            for part, part_end in _fields(file, end):
                entry[part] = file.read(part_end - file.tell()).decode("utf-8", "replace")
            found[entry[_KEY]] = entry[_VALUE]
    return found


def read_weights(path: Path) -> list[Tensors]:
    """Read the named tensors of 32-bit floats, one dictionary per graph, the outermost
    graph last.

    A tensor is included if it is an initialiser of its graph, or the constant of a
    node, and is stored as raw bytes. Raises as `read_metadata` does.
    """
    found: list[Tensors] = []
    with path.open("rb") as file:
        for field, end in _fields(file, path.stat().st_size):
            if field == _GRAPH:
                _read_graph(file, end, found, MAX_GRAPHS_DEEP)
    return found


def _read_graph(file: BinaryIO, end: int, found: list[Tensors], deep: int) -> None:
    if deep == 0:
        raise NotOnnxError(f"{file.name}: its graphs lie more than {MAX_GRAPHS_DEEP} deep")
    tensors: Tensors = {}
    for field, field_end in _fields(file, end):
        if field == _INITIALIZER:
            _read_tensor(file, field_end, tensors)
        elif field == _NODE:
            for value, value_end in _attributes(file, field_end):
                if value == _ATTRIBUTE_TENSOR:
                    _read_tensor(file, value_end, tensors)
                elif value == _ATTRIBUTE_GRAPH:
                    _read_graph(file, value_end, found, deep - 1)
    found.append(tensors)


def _attributes(file: BinaryIO, end: int) -> Iterator[tuple[int, int]]:
    """Yield the fields of all attributes of a node, as `_fields` does."""
    for field, field_end in _fields(file, end):
        if field == _ATTRIBUTE:
            yield from _fields(file, field_end)


def _read_tensor(file: BinaryIO, end: int, tensors: Tensors) -> None:
    shape: list[int] = []
    data_type, name, data = 0, "", b""
    for field, field_end in _fields(file, end):
        if field == _DIMS:
            while file.tell() < field_end:  # one number, or several packed
                shape.append(_varint(file))
        elif field == _DATA_TYPE:
            data_type = _varint(file)
        elif field == _NAME:
            name = file.read(field_end - file.tell()).decode("utf-8", "replace")
        elif field == _RAW_DATA:
            data = file.read(field_end - file.tell())
    if data_type == _FLOAT and name and len(data) == 4 * math.prod(shape):
        tensors[name] = np.frombuffer(data, "<f4").astype(np.float32).reshape(shape)


def _fields(file: BinaryIO, end: int) -> Iterator[tuple[int, int]]:
    """Yield each field's number and end; meanwhile the file is positioned at the
    beginning of the field's content.
    """
    while file.tell() < end:
        tag = _varint(file)
        begin = file.tell()
        match tag & 7:
            case 0:
                _varint(file)
                field_end = file.tell()
                file.seek(begin)
            case 1:
                field_end = begin + 8
            case 2:
                size = _varint(file)
                field_end = file.tell() + size
            case 5:
                field_end = begin + 4
            case _:
                raise NotOnnxError(f"{file.name} is no ONNX model")
        if field_end > end:
            raise NotOnnxError(f"{file.name} is no whole ONNX model: it ends within a field")
        yield tag >> 3, field_end
        file.seek(field_end)


def _varint(file: BinaryIO) -> int:
    value = 0
    for index in range(_MAX_VARINT_BYTES):
        byte = file.read(1)
        if not byte:
            break
        value |= (byte[0] & 0x7F) << (7 * index)
        if byte[0] < 0x80:
            return value
    raise NotOnnxError(f"{file.name} is no ONNX model")
