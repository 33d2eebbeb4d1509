"""Weights of a graph stored once."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

_SHARED_FROM = 64  # values; smaller constants (scales, shapes) may repeat


def share_weights(model: onnx.ModelProto) -> int:
    """Let equal tensors be stored once, so that a stage that runs four times does not weigh four times.

    Returns:
        How many copies were removed.
    """
    first: dict[bytes, str] = {}
    replaced: dict[str, str] = {}
    for tensor in model.graph.initializer:
        key = _digest(tensor)
        if key in first:
            replaced[tensor.name] = first[key]
        else:
            first[key] = tensor.name
    for node in model.graph.node:
        for position, name in enumerate(node.input):
            node.input[position] = replaced.get(name, name)
    kept = [tensor for tensor in model.graph.initializer if tensor.name not in replaced]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    return len(replaced)


def _digest(tensor: onnx.TensorProto) -> bytes:
    from onnx import numpy_helper

    values = numpy_helper.to_array(tensor)
    header = f"{tensor.data_type}{list(tensor.dims)}".encode()
    return hashlib.sha256(header + values.tobytes()).digest()


def repeated_weights(model: onnx.ModelProto) -> list[str]:
    """Names of large tensors whose values are stored a second time."""
    from onnx import numpy_helper

    seen: set[bytes] = set()
    repeated = []
    for tensor in model.graph.initializer:
        if numpy_helper.to_array(tensor).size < _SHARED_FROM:
            continue
        key = _digest(tensor)
        if key in seen:
            repeated.append(tensor.name)
        seen.add(key)
    return repeated
