"""A graph with its constants folded and its sizes filled in, and names that tell each node's layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from derain.card import Port
from derain.errors import ExportError, MissingDependencyError

if TYPE_CHECKING:
    import onnx

Shape = tuple[int, int, int]
"""(batch, height, width) of a frame."""
_MOST_PASSES = 8  # a pass that removes nothing is the last one anyhow


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
    # A shape that one pass makes a constant is computed with only by the next.
    nodes = 0
    for _ in range(_MOST_PASSES if shapes else 0):
        if folded is None or len(folded.graph.node) == nodes:
            break
        nodes = len(folded.graph.node)
        folded = onnxslim.slim(folded)
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
