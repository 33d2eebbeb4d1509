"""float16 by explicit casts, for strongly typed engines: the file itself says which layer computes in what.

Not done with onnxruntime's or onnxconverter-common's float16 converters: for every node kept in float32 they cast back
to float16 behind it, also between two such nodes, so that a residual kept in float32 would be rounded all the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from derain.errors import ExportError
from derain.export.scope import FLOAT_SCOPES

if TYPE_CHECKING:
    import onnx

_HEAVY = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
# Sums over many values, and what is computed from them: float16 has 11 bits and ends at 65504.
# fmt: off
_STATISTICS = frozenset({
    "ReduceMean", "ReduceSum", "ReduceSumSquare", "ReduceL1", "ReduceL2", "GlobalAveragePool",
    "InstanceNormalization", "GroupNormalization", "LayerNormalization", "Softmax", "LogSoftmax", "Sqrt",
    "Reciprocal", "Pow", "Exp", "Log", "Cast",
})
# fmt: on
# They only move values about, so that what they are given keeps its smallness.
_MOVES = frozenset({"Expand", "Flatten", "Reshape", "Slice", "Squeeze", "Tile", "Transpose", "Unsqueeze"})
# Inputs that the operator wants in float32 whatever it computes in.
_FLOAT_INPUTS = {"Resize": frozenset({1, 2})}
_LARGEST = float(np.finfo(np.float16).max)
_SMALLEST = float(np.finfo(np.float16).tiny)  # with all its bits; 1e-12, the usual floor of a norm, would become 0


def to_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of a float32 model whose layers compute in float16 between the first and the last convolution.

    float32 stay: everything before the first convolution (the frame) and after the last (the image residual: the
    network's output is added to the frame at full precision), the whole-frame context, sums over many values, and
    what is bounded by a constant too small or too large for float16. Inputs and outputs keep their types.

    Raises:
        ExportError: a weight does not fit into float16.
    """
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    chosen = half_nodes(copy)
    floats = _float_tensors(copy)
    weights = {tensor.name: tensor for tensor in copy.graph.initializer}
    halves = {name for node in copy.graph.node if node.name in chosen for name in node.output if name in floats}
    casts: dict[tuple[str, bool], str] = {}
    made: list[onnx.TensorProto] = []
    nodes: list[onnx.NodeProto] = []
    outputs = {value.name for value in copy.graph.output}
    for node in copy.graph.node:
        in_half = node.name in chosen
        for position, name in enumerate(node.input):
            if name not in floats or position in _FLOAT_INPUTS.get(node.op_type, ()):
                continue
            is_half = name in halves
            if in_half == is_half:
                continue
            key = (name, in_half)
            if key not in casts:
                casts[key] = f"{name}_{'half' if in_half else 'float'}"
                if name in weights:
                    made.append(_half_weight(weights[name], casts[key]))
                else:
                    kind = onnx.TensorProto.FLOAT16 if in_half else onnx.TensorProto.FLOAT
                    layer = node.name.rpartition("/")[0]
                    cast = onnx.helper.make_node("Cast", [name], [casts[key]], f"{layer}/Cast.{casts[key]}", to=kind)
                    nodes.append(cast)
            node.input[position] = casts[key]
        nodes.append(node)
    for name in halves & outputs:
        _keep_output(nodes, name)
    del copy.graph.node[:]
    copy.graph.node.extend(nodes)
    del copy.graph.value_info[:]
    _replace_weights(copy, made)
    return copy


def half_nodes(model: onnx.ModelProto) -> set[str]:
    """Names of the nodes that may compute in float16: between the convolutions, outside context and statistics."""
    nodes = list(model.graph.node)
    forward = _reached(nodes)
    backward = _reaching(nodes)
    beyond = _beyond_half(model)
    return {
        node.name
        for node in nodes
        if node.name in forward
        and node.name in backward
        and node.op_type not in _STATISTICS
        and node.name not in beyond
        and not node.name.startswith(FLOAT_SCOPES)
    }


def _beyond_half(model: onnx.ModelProto) -> set[str]:
    """Nodes with a single constant that float16 cannot hold, and the divisions by what they give.

    ``x / max(norm, 1e-12)`` would be 0 / 0 in float16 where a frame is black.
    """
    constants = {tensor.name for tensor in model.graph.initializer if _is_beyond_half(tensor)}
    found: set[str] = set()
    tensors: set[str] = set()
    for node in model.graph.node:
        moved = node.op_type in _MOVES and node.input[0] in tensors
        if constants.intersection(node.input) or moved:
            tensors.update(node.output)
        elif node.op_type != "Div" or node.input[1] not in tensors:
            continue
        found.add(node.name)
    return found


def _is_beyond_half(tensor: onnx.TensorProto) -> bool:
    import onnx
    from onnx import numpy_helper

    if tensor.data_type != onnx.TensorProto.FLOAT or np.prod(tensor.dims, dtype=np.int64) != 1:
        return False
    size = abs(float(numpy_helper.to_array(tensor).item()))
    return size > _LARGEST or 0 < size < _SMALLEST


def _is_source(node: onnx.NodeProto) -> bool:
    return node.op_type in _HEAVY and not node.name.startswith(FLOAT_SCOPES)


def _reached(nodes: list[onnx.NodeProto]) -> set[str]:
    """Heavy nodes and all that depends on one."""
    found: set[str] = set()
    tensors: set[str] = set()
    for node in nodes:
        if _is_source(node) or any(name in tensors for name in node.input):
            found.add(node.name)
            tensors.update(node.output)
    return found


def _reaching(nodes: list[onnx.NodeProto]) -> set[str]:
    """Heavy nodes and all that one depends on."""
    found: set[str] = set()
    tensors: set[str] = set()
    for node in reversed(nodes):
        if _is_source(node) or any(name in tensors for name in node.output):
            found.add(node.name)
            tensors.update(node.input)
    return found


def _float_tensors(model: onnx.ModelProto) -> set[str]:
    """Names of all float32 tensors; shapes and indices are not among them."""
    import onnx

    inferred = onnx.shape_inference.infer_shapes(model)
    values = (*inferred.graph.input, *inferred.graph.value_info, *inferred.graph.output)
    found = {value.name for value in values if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT}
    return found | {w.name for w in inferred.graph.initializer if w.data_type == onnx.TensorProto.FLOAT}


def _half_weight(weight: onnx.TensorProto, name: str) -> onnx.TensorProto:
    from onnx import numpy_helper

    values = numpy_helper.to_array(weight)
    largest = float(np.abs(values).max(initial=0))
    if largest > _LARGEST:
        raise ExportError(
            f"Weight '{weight.name}' holds {largest:g}",
            expected=f"at most {_LARGEST:g} for float16",
            fix="Export in float32",
        )
    return numpy_helper.from_array(values.astype(np.float16), name)


def _keep_output(nodes: list[onnx.NodeProto], name: str) -> None:
    """Cast a graph output that became float16 back to float32, under its own name."""
    import onnx

    inner = f"{name}_half"
    for node in nodes:
        for names in (node.input, node.output):
            for position, found in enumerate(names):
                if found == name:
                    names[position] = inner
    nodes.append(onnx.helper.make_node("Cast", [inner], [name], f"camera/Cast.{name}", to=onnx.TensorProto.FLOAT))


def _replace_weights(model: onnx.ModelProto, made: list[onnx.TensorProto]) -> None:
    """Store the float16 weights, and drop the float32 ones that nothing reads any more."""
    used = {name for node in model.graph.node for name in node.input}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend([*kept, *made])
