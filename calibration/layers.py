"""Which layers of a graph may compute in INT8, and which of its tensors need a range for that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from derain.errors import CalibrationError, ModelFileError

if TYPE_CHECKING:
    import onnx

# Nodes of the whole frame's context, by the scope that export gives them: they are few, and stay in float32.
CONTEXT_SCOPE = "context/"
# Likewise those that interpolate gain and offset for the sum with the picture, whose levels they must not coarsen.
FOG_SCOPE = "fog/"
_QUANTIZE = "QuantizeLinear"
_HEAVY = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
# What lies between a convolution and the addition of its result.
# fmt: off
_BETWEEN = frozenset({
    "Add", "Sub", "Mul", "Relu", "LeakyRelu", "PRelu", "HardSigmoid", "Sigmoid", "Tanh", "Clip", "Identity",
})
# fmt: on


@dataclass(frozen=True)
class Layers:
    """The layers of a graph, sorted by what calibration may do with them. All names are of nodes, in graph order.

    Attributes:
        convolutions: may compute in INT8; each recurrence of a shared stage is one of its own.
        additions: residual additions, by name, each with the convolutions whose results it adds. One is quantized when
            one of those is.
        products: matrix products of two activations; they compute in float16.
        others: heavy layers that stay in float32, by name, and why.
    """

    convolutions: tuple[str, ...]
    additions: dict[str, tuple[str, ...]]
    products: tuple[str, ...]
    others: dict[str, str]

    @property
    def all(self) -> tuple[str, ...]:
        """Convolutions, then additions."""
        return (*self.convolutions, *self.additions)

    def quantized(self, kept: frozenset[str]) -> list[str]:
        """Convolutions and additions that compute in INT8 when the ``kept`` ones do not."""
        chosen = [name for name in self.convolutions if name not in kept]
        fed = [
            name
            for name, sources in self.additions.items()
            if name not in kept and any(source not in kept for source in sources)
        ]
        return chosen + fed


def find_layers(model: onnx.ModelProto, origin: str) -> Layers:
    """Sort a float32 graph's layers.

    A residual addition counts when both its inputs are computed features (not the picture, not the context) and a
    convolution feeds one of them; both are then quantized, so that TensorRT fuses it. TensorRT computes ConvTranspose
    in float also in INT8 graphs.

    Raises:
        ModelFileError: it is quantized already, or not in float32.
        CalibrationError: it has no convolution that could compute in INT8.
    """
    import onnx

    nodes = list(model.graph.node)
    if any(node.op_type == _QUANTIZE for node in nodes):
        raise ModelFileError(
            f"'{origin}' is quantized already", expected="a float32 model", fix="Calibrate the model it was made from"
        )
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    if any(tensor.data_type == onnx.TensorProto.FLOAT16 for tensor in weights.values()):
        raise ModelFileError(
            f"'{origin}' holds float16 weights", expected="a float32 model", fix="Export it without --fp16"
        )
    convolutions, products, others = [], [], {}
    for node in nodes:
        if node.op_type not in _HEAVY:
            continue
        reason = _float_reason(node, weights)
        if reason is not None:
            others[node.name] = reason
        elif node.op_type == "Conv":
            convolutions.append(node.name)
        else:
            products.append(node.name)
    if not convolutions:
        reasons = "; ".join(f"{name} {reason}" for name, reason in list(others.items())[:5])
        raise CalibrationError(f"No layer of '{origin}' can compute in INT8 ({reasons or 'it has no convolution'})")
    return Layers(tuple(convolutions), _additions(nodes, set(convolutions)), tuple(products), others)


def _float_reason(node: onnx.NodeProto, weights: dict[str, onnx.TensorProto]) -> str | None:
    """Why a heavy layer must stay in float32; None when it need not."""
    if node.name.startswith(CONTEXT_SCOPE):
        return "computes the whole frame's context"
    if node.name.startswith(FOG_SCOPE):
        return "interpolates the gain of the picture itself"
    if node.op_type == "ConvTranspose":
        return "is a transposed convolution, which TensorRT computes in float"
    if node.op_type == "Conv" and node.input[1] not in weights:
        return "has weights that are computed, not stored"
    return None


def _additions(nodes: list[onnx.NodeProto], convolutions: set[str]) -> dict[str, tuple[str, ...]]:
    sources = _added_convolutions(nodes, convolutions)
    inside = leading_to(nodes, convolutions)
    found = {}
    for node in nodes:
        # The whole frame's context and the picture come from no convolution; behind the last convolution lies the
        # image residual. Both stay in float32.
        if node.op_type == "Add" and node.name in inside and all(sources.get(name) for name in node.input):
            found[node.name] = tuple(dict.fromkeys(source for name in node.input for source in sources[name]))
    return found


def _added_convolutions(nodes: list[onnx.NodeProto], convolutions: set[str]) -> dict[str, tuple[str, ...]]:
    """Tensor to the convolutions whose results it is a sum or activation of."""
    found: dict[str, tuple[str, ...]] = {}
    for node in nodes:
        if node.name in convolutions:
            found[node.output[0]] = (node.name,)
        elif node.op_type in _BETWEEN:
            reached = dict.fromkeys(source for name in node.input for source in found.get(name, ()))
            found[node.output[0]] = tuple(reached)
    return found


def leading_to(nodes: list[onnx.NodeProto], convolutions: set[str]) -> set[str]:
    """Names of the nodes whose result goes, perhaps through others, into one of the convolutions."""
    found: set[str] = set()
    wanted: set[str] = set()
    for node in reversed(nodes):
        if any(name in wanted for name in node.output):
            found.add(node.name)
            wanted.update(node.input)
        if node.name in convolutions:
            wanted.update(node.input)
    return found


def tensors_of(model: onnx.ModelProto, layers: Layers) -> list[str]:
    """Activations that need a range: inputs of every layer that may compute in INT8, in graph order."""
    weights = {tensor.name for tensor in model.graph.initializer}
    wanted = set(layers.convolutions) | set(layers.additions)
    found: dict[str, None] = {}
    for node in model.graph.node:
        if node.name in wanted:
            inputs = node.input[:1] if node.op_type == "Conv" else node.input
            found.update(dict.fromkeys(name for name in inputs if name not in weights))
    return list(found)
