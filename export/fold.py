"""Cleaning a traced graph: constants folded, sizes filled in, names that tell the layer, weights stored once."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from derain.card import Port
from derain.errors import ExportError, MissingDependencyError
from derain.export.sizes import Shape

if TYPE_CHECKING:
    import onnx

_SHARED_FROM = 64  # values; smaller constants (scales, shapes) may repeat


def fold(model: onnx.ModelProto, inputs: Sequence[Port], size: Shape | None) -> onnx.ModelProto:
    """Fold constants and remove what does nothing, with onnxslim; with a size also everything that depended on it.

    Args:
        model: it is not changed.
        inputs: its input ports, in order.
        size: (batch, height, width) to fix dynamic sizes to; None keeps them.

    Raises:
        ExportError: folding changed the inputs or outputs.
        MissingDependencyError: onnxslim is not installed.
    """
    try:
        import onnx
        import onnxslim
    except ImportError as error:
        raise MissingDependencyError(error.name or "onnxslim", needed_for="this", extra="export") from error
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    shapes = [] if size is None else _fixed_shapes(copy, inputs, size)
    folded: onnx.ModelProto | None = onnxslim.slim(copy, input_shapes=shapes) if shapes else onnxslim.slim(copy)
    if folded is None or _signature(folded) != _signature(model):
        raise ExportError("onnxslim changed the inputs or outputs of the graph", fix="Report this as a bug of derain")
    del folded.graph.value_info[:]
    complete_names(folded)
    return folded


def _signature(model: onnx.ModelProto) -> list[tuple[str, int]]:
    return [(value.name, value.type.tensor_type.elem_type) for value in (*model.graph.input, *model.graph.output)]


def _fixed_shapes(model: onnx.ModelProto, inputs: Sequence[Port], size: Shape) -> list[str]:
    """Inputs with their sizes as onnxslim takes them: ``frame:1,720,1280,3``. A chroma plane has half the size."""
    sizes = dict(zip("NHW", size, strict=True))
    shapes = []
    for value, port in zip(model.graph.input, inputs, strict=True):
        halve = 2 if port.channels == "UV" else 1
        numbers = []
        for letter, dimension in zip(port.layout, value.type.tensor_type.shape.dim, strict=True):
            number = dimension.dim_value if letter == "C" else sizes[letter]
            numbers.append(number // halve if letter in "HW" else number)
        shapes.append(f"{value.name}:{','.join(map(str, numbers))}")
    return shapes


def complete_names(model: onnx.ModelProto) -> None:
    """Give every node a name of its own.

    Nodes that folding made anew have no layer's name; they get that of the node whose output they take.
    """
    layer_of: dict[str, str] = {}
    seen: set[str] = set()
    for node in model.graph.node:
        if "/" not in node.name:
            layer = next((layer_of[name] for name in node.input if name in layer_of), "camera")
            node.name = f"{layer}/{node.op_type}"
        name, count = node.name, 1
        while node.name in seen:
            count += 1
            node.name = f"{name}.{count}"
        seen.add(node.name)
        for output in node.output:
            layer_of[output] = node.name.rpartition("/")[0]


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
