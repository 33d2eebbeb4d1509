"""Small float32 matrix products in forms that every GPU's builder takes.

TensorRT-RTX 1.7 builds no float32 matrix product for Turing (SM75): "FP32 GEMM is not supported". Convolutions and
reductions it does build. The whole-frame context must stay in float32, so its products become those: a linear layer a
1x1 convolution of one pixel, a product of two small activations a multiplication and a sum. Both are exact.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnx

_SPATIAL = "matrix_spatial_axes"
_ROWS, _COLUMNS, _INNER = "matrix_row_axis", "matrix_column_axis", "matrix_inner_axis"


def rewrite_products(model: onnx.ModelProto, scope: str) -> None:
    """Rewrite in place: linear layers anywhere, and products of two activations inside a scope.

    Args:
        model: float32.
        scope: prefix of the node names whose MatMul of two (B, rows, inner), (B, inner, columns) activations is small.
    """
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        if node.op_type == "Gemm" and _is_linear(node, weights):
            nodes.extend(_as_convolution(model, node, weights))
        elif node.op_type == "MatMul" and node.name.startswith(scope) and not set(node.input) & set(weights):
            nodes.extend(_as_sum(model, node))
        else:
            nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _is_linear(node: onnx.NodeProto, weights: dict[str, onnx.TensorProto]) -> bool:
    """Whether it is ``x W^T + b`` with stored W, as torch exports ``nn.Linear``."""
    numbers = {attribute.name: attribute for attribute in node.attribute}
    scaled = any(name in numbers and numbers[name].f != 1.0 for name in ("alpha", "beta"))
    turned = "transA" in numbers and numbers["transA"].i
    transposed = "transB" in numbers and numbers["transB"].i
    return bool(transposed and not turned and not scaled and all(name in weights for name in node.input[1:]))


def _as_convolution(
    model: onnx.ModelProto, node: onnx.NodeProto, weights: dict[str, onnx.TensorProto]
) -> list[onnx.NodeProto]:
    from onnx import helper

    axes = _constant(model, _SPATIAL, [2, 3])
    kernel = weights[node.input[1]]
    if len(kernel.dims) == 2:
        kernel.dims.extend([1, 1])
    layer = node.name.rpartition("/")[0]
    pixel, result = f"{node.output[0]}_pixel", f"{node.output[0]}_result"
    return [
        helper.make_node("Unsqueeze", [node.input[0], axes], [pixel], f"{layer}/Unsqueeze"),
        helper.make_node("Conv", [pixel, *node.input[1:]], [result], f"{layer}/Conv", kernel_shape=[1, 1]),
        helper.make_node("Squeeze", [result, axes], [node.output[0]], f"{layer}/Squeeze"),
    ]


def _as_sum(model: onnx.ModelProto, node: onnx.NodeProto) -> list[onnx.NodeProto]:
    from onnx import helper

    left, right, terms = (f"{node.output[0]}_{part}" for part in ("left", "right", "terms"))
    last, first = _constant(model, _COLUMNS, [3]), _constant(model, _ROWS, [1])
    inner = _constant(model, _INNER, [2])
    return [
        helper.make_node("Unsqueeze", [node.input[0], last], [left], f"{node.name}/Unsqueeze"),
        helper.make_node("Unsqueeze", [node.input[1], first], [right], f"{node.name}/Unsqueeze.2"),
        helper.make_node("Mul", [left, right], [terms], f"{node.name}/Mul"),
        helper.make_node("ReduceSum", [terms, inner], [node.output[0]], f"{node.name}/ReduceSum", keepdims=0),
    ]


def _constant(model: onnx.ModelProto, name: str, values: list[int]) -> str:
    from onnx import numpy_helper

    if all(tensor.name != name for tensor in model.graph.initializer):
        model.graph.initializer.append(numpy_helper.from_array(np.array(values, np.int64), name))
    return name
