"""What a graph costs at a size: multiply-accumulates by part, weights, and the memory of its activations."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from derain.card import ModelCard
from derain.errors import ModelFileError
from derain.folding import Shape, fold

if TYPE_CHECKING:
    import onnx

_HEAVY = ("Conv", "ConvTranspose", "Gemm", "MatMul")


@dataclass
class LayerCost:
    """One convolution or matrix product. ``macs`` for the whole batch; ``weights`` are counted at first use only."""

    name: str
    operator: str
    macs: int
    weights: int
    output_shape: tuple[int, ...]


@dataclass
class GraphCost:
    """Cost of one graph at one size.

    Attributes:
        shape: (batch, height, width) of the frame.
        operators: how often each operator occurs in the file.
        layers: convolutions and matrix products in the order they run.
        parameters: values of weights stored in the file.
        weight_bytes: their size as stored.
        activation_bytes: most bytes of activations alive at once when nodes run one by one in the file's order; an
            engine that fuses layers needs less.
        traffic_bytes: bytes that heavy layers read and write when all else is fused into them; weights included.
    """

    shape: Shape
    operators: Counter[str]
    layers: list[LayerCost] = field(default_factory=list)
    parameters: int = 0
    weight_bytes: int = 0
    activation_bytes: int = 0
    traffic_bytes: int = 0

    @property
    def macs(self) -> int:
        return sum(layer.macs for layer in self.layers)

    @property
    def kmac_per_pixel(self) -> float:
        return self.macs / math.prod(self.shape) / 1000

    def by_part(self, depth: int = 1) -> dict[str, tuple[float, int]]:
        """Part of the network (first ``depth`` names of a layer's path) to its (kMAC per pixel, weights)."""
        order = list(dict.fromkeys(part_of(layer.name, 1) for layer in self.layers))
        parts: dict[str, tuple[float, int]] = {}
        for layer in sorted(self.layers, key=lambda layer: order.index(part_of(layer.name, 1))):
            part = part_of(layer.name, depth)
            macs, weights = parts.get(part, (0.0, 0))
            parts[part] = (macs + layer.macs / math.prod(self.shape) / 1000, weights + layer.weights)
        return parts


def measure(model: onnx.ModelProto, card: ModelCard, shape: Shape) -> GraphCost:
    """Infer all shapes at a size and count.

    Args:
        model: any file of derain, of any precision; it is not changed.
        card: of the model; it says which input is what.
        shape: (batch, height, width). A model of fixed size is measured at its own, whatever is asked.

    Raises:
        ModelFileError: the shapes cannot be inferred.
        MissingDependencyError: onnx or onnxslim is not installed.
    """
    if card.profile.fixed:
        shape = card.profile.opt
    fixed = fold(model, card.inputs, shape)
    shapes, kinds = _infer(fixed)
    cost = GraphCost(shape, Counter(node.op_type for node in model.graph.node))
    cost.parameters, cost.weight_bytes = _weights(model)
    constants = {tensor.name: math.prod(tensor.dims) for tensor in fixed.graph.initializer}
    counted: set[str] = set()
    for node in fixed.graph.node:
        if node.op_type not in _HEAVY:
            continue
        try:
            macs = _macs(node, shapes)
        except KeyError as error:
            raise ModelFileError(f"The shape of tensor {error} in layer '{node.name}' cannot be inferred") from error
        used = [name for name in node.input if name in constants and name not in counted]
        counted.update(used)
        output = shapes[node.output[0]]
        cost.layers.append(LayerCost(node.name, node.op_type, macs, sum(constants[n] for n in used), output))
        for name in (*node.input, *node.output):
            cost.traffic_bytes += math.prod(shapes.get(name, (0,))) * kinds.get(name, 4)
    cost.activation_bytes = _peak(fixed, shapes, kinds)
    return cost


def part_of(name: str, depth: int) -> str:
    """The first ``depth`` names of a node's layer: ``generator/stage`` of ``generator/stage/first/Conv`` at 2."""
    return "/".join(name.split("/")[:-1][:depth]) or name


def part_flow(model: onnx.ModelProto, depth: int = 2) -> list[tuple[str, str]]:
    """Which part's outputs go into which part, in the order they first do; within a part is left out."""
    shapes = {"Shape", "Gather", "Squeeze", "Concat"}
    made: dict[str, str] = {}
    found: dict[tuple[str, str], None] = {}
    for node in model.graph.node:
        part = part_of(node.name, depth)
        integers = node.op_type in shapes and not any(name in made for name in node.input)
        for name in node.input:
            if name in made and made[name] != part:
                found[made[name], part] = None
        if not integers and node.op_type != "Shape":
            made.update(dict.fromkeys(node.output, part))
    return list(found)


def _infer(model: onnx.ModelProto) -> tuple[dict[str, tuple[int, ...]], dict[str, int]]:
    """Every tensor's shape, and bytes per value."""
    import onnx

    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    shapes: dict[str, tuple[int, ...]] = {}
    kinds: dict[str, int] = {}
    for value in (*inferred.graph.input, *inferred.graph.value_info, *inferred.graph.output):
        tensor = value.type.tensor_type
        if tensor.HasField("shape") and all(dimension.HasField("dim_value") for dimension in tensor.shape.dim):
            shapes[value.name] = tuple(dimension.dim_value for dimension in tensor.shape.dim)
            kinds[value.name] = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).itemsize
    for weight in inferred.graph.initializer:
        shapes[weight.name] = tuple(weight.dims)
        kinds[weight.name] = onnx.helper.tensor_dtype_to_np_dtype(weight.data_type).itemsize
    return shapes, kinds


def _macs(node: onnx.NodeProto, shapes: dict[str, tuple[int, ...]]) -> int:
    first, second, output = shapes[node.input[0]], shapes[node.input[1]], shapes[node.output[0]]
    if node.op_type == "Conv":  # weight (out, in / groups, kh, kw): one product per output value and kernel value
        return math.prod(output) * math.prod(second[1:])
    if node.op_type == "ConvTranspose":  # weight (in, out / groups, kh, kw): per input value
        return math.prod(first) * math.prod(second[1:])
    transposed = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
    return math.prod(output) * (first[-2] if node.op_type == "Gemm" and transposed else first[-1])


def _weights(model: onnx.ModelProto) -> tuple[int, int]:
    """Number of stored weights and their bytes; not counted: shapes, indices, scales and zero points."""
    import onnx

    scales = {
        name
        for node in model.graph.node
        if "QuantizeLinear" in node.op_type or "Dequantize" in node.op_type or node.op_type == "Resize"
        for name in node.input[1:]
    }
    kinds = {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.INT8}
    weights = [
        tensor
        for tensor in model.graph.initializer
        if tensor.data_type in kinds and tensor.dims and tensor.name not in scales
    ]
    total = sum(
        math.prod(tensor.dims) * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize for tensor in weights
    )
    return sum(math.prod(tensor.dims) for tensor in weights), total


def _peak(model: onnx.ModelProto, shapes: dict[str, tuple[int, ...]], kinds: dict[str, int]) -> int:
    """Most bytes alive at once when nodes run in order and a tensor is freed after its last reader."""
    weights = {tensor.name for tensor in model.graph.initializer}
    last = {name: index for index, node in enumerate(model.graph.node) for name in node.input}
    forever = {value.name for value in model.graph.output}
    size = {name: math.prod(shape) * kinds[name] for name, shape in shapes.items() if name not in weights}
    alive = sum(size.get(value.name, 0) for value in model.graph.input)
    peak = alive
    for index, node in enumerate(model.graph.node):
        alive += sum(size.get(name, 0) for name in node.output)
        peak = max(peak, alive)
        for name in set(node.input):
            if last.get(name) == index and name not in forever:
                alive -= size.get(name, 0)
    return peak
