"""Weights of a graph stored once, and constant maps not at all."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

_NETWORK = "network."  # what names of a network's own weights begin with
_MAP_FROM = 4096  # values
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


def constant_maps(model: onnx.ModelProto) -> int:
    """Let large tensors of one value be made where the model is loaded instead of being stored.

    A graph of one fixed size holds the first states of its recurrent stages as whole maps, larger than all its weights.
    Weights of the network, which are told by their names, stay as they are whatever they hold.

    Returns:
        How many tensors are no longer stored.
    """
    from onnx import TensorProto, helper, numpy_helper

    kept, shapes, makers = [], {}, []
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        weight = tensor.name.startswith(_NETWORK)
        if weight or values.size < _MAP_FROM or (values != values.flat[0]).any():
            kept.append(tensor)
            continue
        name = "map_" + "x".join(map(str, tensor.dims))
        shapes[name] = helper.make_tensor(name, TensorProto.INT64, [len(tensor.dims)], list(tensor.dims))
        value = helper.make_tensor("value", tensor.data_type, [1], [values.flat[0].item()])
        makers.append(
            helper.make_node("ConstantOfShape", [name], [tensor.name], f"{tensor.name}/ConstantOfShape", value=value)
        )
    if makers:
        nodes = list(model.graph.node)
        del model.graph.initializer[:], model.graph.node[:]
        model.graph.initializer.extend([*kept, *shapes.values()])
        model.graph.node.extend([*makers, *nodes])
    return len(makers)


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
