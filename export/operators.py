"""Which operators an exported graph may hold: those that TensorRT documents from 10.1 to 10.15 alike.

Source: NVIDIA's ``docs/operators.md`` of onnx-tensorrt, as of 10.1 and of 10.15 (the pages of 10.3 and 11 were not at
hand; 10.3 lies between). Left out on purpose although documented: random, control flow, recurrent and data-dependent
operators, which no deployed network of ours may contain.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from derain.errors import ExportError

if TYPE_CHECKING:
    import onnx

# fmt: off
SUPPORTED = frozenset({
    "Abs", "Add", "And", "AveragePool", "BatchNormalization", "Cast", "Ceil", "Clip", "Concat", "Constant",
    "ConstantOfShape", "Conv", "ConvTranspose", "DepthToSpace", "DequantizeLinear", "Div", "Einsum", "Elu", "Equal",
    "Erf", "Exp", "Expand", "Flatten", "Floor", "Gather", "GatherElements", "Gelu", "Gemm", "GlobalAveragePool",
    "GlobalMaxPool", "Greater", "GreaterOrEqual", "GridSample", "GroupNormalization", "HardSigmoid", "HardSwish",
    "Identity", "InstanceNormalization", "LayerNormalization", "LeakyRelu", "Less", "LessOrEqual", "Log",
    "LogSoftmax", "MatMul", "Max", "MaxPool", "Mean", "Min", "Mod", "Mul", "Neg", "Not", "Or", "PRelu", "Pad",
    "Pow", "QuantizeLinear", "Range", "Reciprocal", "ReduceL1", "ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin",
    "ReduceProd", "ReduceSum", "ReduceSumSquare", "Relu", "Reshape", "Resize", "Round", "Selu", "Shape", "Sigmoid",
    "Sign", "Size", "Slice", "Softmax", "Softplus", "Softsign", "SpaceToDepth", "Split", "Sqrt", "Squeeze", "Sub",
    "Sum", "Tanh", "ThresholdedRelu", "Tile", "Transpose", "Unsqueeze", "Where", "Xor",
})
# fmt: on
_PAD_MODES = ("constant", "reflect", "edge")
_RESIZE_MODES = ("nearest", "linear")
_RESIZE_COORDINATES = ("half_pixel", "pytorch_half_pixel", "asymmetric", "align_corners")


def check_operators(model: onnx.ModelProto) -> None:
    """Make sure TensorRT documents every node of the graph in the form it is used in.

    Raises:
        ExportError: the first node it does not, by name, with the remedy.
    """
    for node in model.graph.node:
        problem = _problem(node)
        if problem:
            raise ExportError(
                f"Layer '{node.name}' ({node.op_type}) cannot be deployed: {problem}",
                expected="an operator that TensorRT 10.3 to 11.x documents",
                fix="Rewrite that layer of the network, or ask for it in an issue",
            )


def _problem(node: onnx.NodeProto) -> str | None:
    """Why TensorRT would refuse a node; None when it would not."""
    if node.domain not in ("", "ai.onnx"):
        return f"its domain is '{node.domain}'"
    if node.op_type not in SUPPORTED:
        return "TensorRT has no such operator, or one that a deraining network must not contain"
    if any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute):
        return "it holds a graph of its own"
    texts = {attribute.name: attribute.s.decode() for attribute in node.attribute if attribute.s}
    numbers = {attribute.name: attribute.i for attribute in node.attribute}
    if node.op_type == "Pad" and texts.get("mode", "constant") not in _PAD_MODES:
        return f"mode '{texts['mode']}' is not among {', '.join(_PAD_MODES)}"
    if node.op_type == "Resize":
        if numbers.get("antialias"):
            return "TensorRT refuses antialiasing"
        if texts.get("mode", "nearest") not in _RESIZE_MODES:
            return f"mode '{texts['mode']}' is not among {', '.join(_RESIZE_MODES)}"
        coordinates = texts.get("coordinate_transformation_mode", "half_pixel")
        if coordinates not in _RESIZE_COORDINATES:
            return f"coordinate_transformation_mode '{coordinates}' is not among {', '.join(_RESIZE_COORDINATES)}"
    if node.op_type == "MaxPool" and len(node.output) > 1:
        return "TensorRT gives no indices"
    if node.op_type == "BatchNormalization" and numbers.get("training_mode"):
        return "it is in training mode"
    return None
