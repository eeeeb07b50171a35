"""What an ONNX file says of itself, read without loading the model: its ``metadata_props``.

An ONNX file is a protobuf message ``ModelProto`` (onnx.proto: ``metadata_props`` is field 14, of ``StringStringEntry``
with key 1 and value 2). Its other fields, the graph above all, are skipped by their length.
"""

from pathlib import Path
from typing import BinaryIO

METADATA_FIELD = 14
MAX_ENTRY_BYTES = 4 * 1024 * 1024
"""A tokeniser's vocabulary may be among the metadata; more is no metadata."""

_MAX_VARINT_BYTES = 10


class NotOnnxError(ValueError):
    """The file is no ONNX model, or is cut off."""


def read_metadata(path: Path) -> dict[str, str]:
    """Read the model's own properties. Raises `NotOnnxError`, and `OSError` when the file cannot be read."""
    end = path.stat().st_size
    with path.open("rb") as file:
        found: dict[str, str] = {}
        while file.tell() < end:
            field, size = _next_field(file)
            if file.tell() + size > end:
                raise NotOnnxError(f"{path} is no whole ONNX model: it ends within a field")
            if field != METADATA_FIELD:
                file.seek(size, 1)
            elif size <= MAX_ENTRY_BYTES:
                key, value = _entry(file.read(size))
                found[key] = value
            else:
                raise NotOnnxError(f"{path}: an entry of its metadata has {size} bytes")
    return found


def _next_field(file: BinaryIO) -> tuple[int, int]:
    """Read a field's number and how many bytes of it follow."""
    tag = _varint(file)
    match tag & 7:
        case 0:
            _varint(file)
            return tag >> 3, 0
        case 1:
            return tag >> 3, 8
        case 2:
            return tag >> 3, _varint(file)
        case 5:
            return tag >> 3, 4
        case _:
            raise NotOnnxError(f"{file.name} is no ONNX model")


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


def _entry(content: bytes) -> tuple[str, str]:
    texts = {1: "", 2: ""}
    at = 0
    while at < len(content):
        field = content[at] >> 3
        size, at = _size(content, at + 1)
        texts[field] = content[at : at + size].decode("utf-8", "replace")
        at += size
    return texts[1], texts[2]


def _size(content: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(content):
        value |= (content[at] & 0x7F) << shift
        shift += 7
        at += 1
        if content[at - 1] < 0x80:
            break
    return value, at
