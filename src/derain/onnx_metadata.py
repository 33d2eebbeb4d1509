"""Read ``metadata_props`` of an ONNX file with the standard library alone.

A device that runs engines has neither ``onnx`` nor, often, ``onnxruntime``; the model card must be readable there. Only
the outermost protobuf message (``ModelProto``) is walked; the graph with its weights is skipped by its length.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

from derain.errors import ModelFileError

# Field numbers of onnx.proto: ModelProto.graph, ModelProto.metadata_props, StringStringEntryProto.key and .value.
_GRAPH = 7
_METADATA_PROPS = 14
_KEY, _VALUE = 1, 2
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MAX_ENTRY_BYTES = 1 << 20
_MAX_FIELDS = 10_000


class _WireError(Exception):
    """The bytes are not a protobuf message."""


def _varint(stream: BinaryIO) -> int | None:
    """The next base-128 number, or None at the end of the stream."""
    value = 0
    for shift in range(0, 70, 7):
        byte = stream.read(1)
        if not byte:
            if shift == 0:
                return None
            raise _WireError("the file ends inside a number")
        value |= (byte[0] & 0x7F) << shift
        if not byte[0] & 0x80:
            return value
    raise _WireError("a number has more than ten bytes")


def _length(stream: BinaryIO, end: int) -> int:
    length = _varint(stream)
    if length is None or length > end - stream.tell():
        raise _WireError("a field is longer than the file")
    return length


def _skip(stream: BinaryIO, wire_type: int, end: int) -> None:
    if wire_type == _VARINT:
        if _varint(stream) is None:
            raise _WireError("the file ends inside a field")
        return
    if wire_type == _BYTES:
        size = _length(stream, end)
    elif wire_type in (_FIXED64, _FIXED32):
        size = 8 if wire_type == _FIXED64 else 4
    else:
        raise _WireError(f"wire type {wire_type} does not exist")
    if size > end - stream.tell():
        raise _WireError("a field is longer than the file")
    stream.seek(size, os.SEEK_CUR)


def _entry(stream: BinaryIO, size: int) -> tuple[str, str]:
    """One StringStringEntryProto of ``size`` bytes."""
    if size > _MAX_ENTRY_BYTES:
        raise _WireError(f"a metadata entry has {size} bytes, more than {_MAX_ENTRY_BYTES}")
    end = stream.tell() + size
    texts = {_KEY: "", _VALUE: ""}
    while stream.tell() < end:
        tag = _varint(stream)
        if tag is None:
            raise _WireError("the file ends inside a metadata entry")
        number, wire_type = tag >> 3, tag & 7
        if wire_type == _BYTES and number in texts:
            texts[number] = stream.read(_length(stream, end)).decode("utf-8")
        else:
            _skip(stream, wire_type, end)
    return texts[_KEY], texts[_VALUE]


def read_metadata(path: str | Path) -> dict[str, str]:
    """``metadata_props`` of an ONNX file as a dictionary; empty when the file has none.

    Raises:
        ModelFileError: the file is missing, unreadable, empty, or not an ONNX model.
    """
    path = Path(path)
    fix = "Use an .onnx file written by derain export, or name a shipped model (see: derain models)"
    try:
        size = path.stat().st_size
    except OSError as error:
        raise ModelFileError(f"Model file '{path}' cannot be opened ({error.strerror})", fix=fix) from error
    if path.is_dir():
        raise ModelFileError(f"'{path}' is a folder", expected="an .onnx file")
    if size == 0:
        raise ModelFileError(f"Model file '{path}' is empty (0 bytes)", fix=fix)
    found: dict[str, str] = {}
    has_graph = False
    try:
        with path.open("rb") as stream:
            for _ in range(_MAX_FIELDS):
                tag = _varint(stream)
                if tag is None:
                    break
                number, wire_type = tag >> 3, tag & 7
                if number == 0:
                    raise _WireError("field number 0 does not exist")
                has_graph |= number == _GRAPH and wire_type == _BYTES
                if number == _METADATA_PROPS and wire_type == _BYTES:
                    key, value = _entry(stream, _length(stream, size))
                    found[key] = value
                else:
                    _skip(stream, wire_type, size)
            else:
                raise _WireError(f"more than {_MAX_FIELDS} fields")
    except (_WireError, UnicodeDecodeError) as error:
        raise ModelFileError(f"'{path}' is not a whole ONNX file ({error})", fix=fix) from error
    except OSError as error:
        raise ModelFileError(f"Model file '{path}' cannot be read ({error.strerror})", fix=fix) from error
    if not has_graph:
        raise ModelFileError(f"'{path}' is not an ONNX model (it has no graph)", fix=fix)
    return found
