"""An INT8 graph of explicit Q/DQ pairs, as TensorRT wants it, by onnxruntime's quantizer."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from derain.calibration.float8 import OPSET as FLOAT8_OPSET
from derain.calibration.float8 import to_float8
from derain.calibration.half import to_half
from derain.calibration.layers import Layers, leading_to
from derain.calibration.ranges import Ranges

if TYPE_CHECKING:
    import onnx

_ISOLATED = "_isolated"
# Symmetric signed activations and per-channel weights, all zero-points zero; biases stay in float32, because TensorRT
# refuses an int32 bias behind a DequantizeLinear; no pair behind a convolution, so that its activation fuses into it.
_OPTIONS = {
    "ActivationSymmetric": True,
    "WeightSymmetric": True,
    "QuantizeBias": False,
    "OpTypesToExcludeOutputQuantization": ["Conv", "Add"],
}


def quantize(
    model: onnx.ModelProto,
    layers: Layers,
    ranges: Ranges,
    kept: frozenset[str] = frozenset(),
    *,
    half: bool = True,
    float8: bool = False,
    alone: bool = False,
) -> onnx.ModelProto:
    """A copy of a float32 graph in which all layers that may compute in INT8 do, except the ``kept`` ones.

    Args:
        model: float32; it is not changed.
        layers: of the model.
        ranges: of its activations.
        kept: convolutions and residual additions that stay in float.
        half: whether the kept convolutions and the matrix products compute in float16 rather than float32.
        float8: FP8 E4M3 in place of INT8, for convolutions alone; the copy is of opset 19 at least.
        alone: quantize additions too that add nothing but results of kept convolutions: to measure what one costs.
    """
    import onnx
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    chosen = [name for name in layers.all if name not in kept] if alone else layers.quantized(kept)
    if float8:
        chosen = [name for name in chosen if name not in layers.additions]
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    opsets = [(entry.domain, entry.version) for entry in model.opset_import]
    _isolate(copy, set(chosen), set(layers.all) - set(chosen))
    _own_weights(copy, set(chosen))
    if chosen:
        with _quiet():
            quantizer = QDQQuantizer(
                onnx.shape_inference.infer_shapes(copy),
                per_channel=True,
                reduce_range=False,
                weight_qType=QuantType.QInt8,
                activation_qType=QuantType.QInt8,
                tensors_range=ranges.as_onnxruntime(isolated=_ISOLATED),
                nodes_to_quantize=chosen,
                nodes_to_exclude=[],
                op_types_to_quantize=["Conv", "Add"],
                extra_options=dict(_OPTIONS),
            )
            quantizer.quantize_model()
            quantizer.model.topological_sort()
            copy = quantizer.model.model
    _join(copy)
    if float8:
        to_float8(copy, model)
        opsets = [(domain, version if domain else max(version, FLOAT8_OPSET)) for domain, version in opsets]
    if half:
        copy = to_half(copy, (kept - set(layers.additions)) | set(layers.products))
    copy.producer_name, copy.producer_version = model.producer_name, model.producer_version
    copy.ir_version = model.ir_version
    del copy.opset_import[:]
    copy.opset_import.extend(onnx.helper.make_opsetid(domain, version) for domain, version in opsets)
    del copy.graph.value_info[:]
    del copy.metadata_props[:]
    for entry in model.metadata_props:
        copy.metadata_props.add(key=entry.key, value=entry.value)
    onnx.checker.check_model(copy)
    return copy


def _isolate(model: onnx.ModelProto, chosen: set[str], kept: set[str]) -> None:
    """Give quantized layers a name of their own for tensors that layers in float read too.

    onnxruntime's quantizer puts the pair in front of every reader of a tensor. The picture is one that the stem and the
    image residual share: rounded to 8 bits with a sign, the residual would lose half its grey levels.
    """
    import onnx

    body = leading_to(list(model.graph.node), chosen) - kept
    readers: dict[str, set[bool]] = {}
    for node in model.graph.node:
        for name in node.input:
            # What only prepares the input of another quantized layer, such as a pool, may read the rounded tensor too:
            # then TensorRT need not write it twice. A layer that was kept is to be exact.
            readers.setdefault(name, set()).add(node.name in chosen or node.name in body)
    weights = {tensor.name for tensor in model.graph.initializer}
    outputs = {value.name for value in model.graph.output}
    mixed = {name for name, kinds in readers.items() if kinds == {True, False} or (True in kinds and name in outputs)}
    mixed -= weights
    nodes: list[onnx.NodeProto] = []
    made: set[str] = set()
    for node in model.graph.node:
        if node.name in chosen:
            for position, name in enumerate(node.input):
                if name in mixed:
                    alias = name + _ISOLATED
                    if alias not in made:
                        nodes.append(onnx.helper.make_node("Identity", [name], [alias], f"{node.name}/{alias}"))
                        made.add(alias)
                    node.input[position] = alias
        nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _join(model: onnx.ModelProto) -> None:
    """Take the stand-ins of :func:`_isolate` out again."""
    renamed = {
        node.output[0]: node.input[0]
        for node in model.graph.node
        if node.op_type == "Identity" and node.output[0].endswith(_ISOLATED)
    }
    kept = [node for node in model.graph.node if not (node.op_type == "Identity" and node.output[0] in renamed)]
    for node in kept:
        for position, name in enumerate(node.input):
            node.input[position] = renamed.get(name, name)
    del model.graph.node[:]
    model.graph.node.extend(kept)


def _own_weights(model: onnx.ModelProto, chosen: set[str]) -> None:
    """Give each quantized convolution that shares its weights a copy of its own.

    A layer in float that shares them must not be quantized along. And onnxruntime (1.31) cannot load a graph in which
    two convolutions share int8 weights, or only their zero-points, when ``session.x64quantprecision`` is set: it
    converts each tensor to uint8 once per reader, under the same name. Engines keep weights per layer anyway.
    """
    import onnx

    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    readers = Counter(name for node in model.graph.node for name in node.input if name in weights)
    for node in model.graph.node:
        if node.name not in chosen or node.op_type != "Conv" or readers[node.input[1]] < 2:
            continue
        copy = onnx.TensorProto()
        copy.CopyFrom(weights[node.input[1]])
        copy.name = f"{node.input[1]}.{node.output[0]}"
        model.graph.initializer.append(copy)
        node.input[1] = copy.name


@contextmanager
def _quiet() -> Iterator[None]:
    """onnxruntime's quantizer advises on the root logger to run its own preprocessing; the graph is folded already."""
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def quantized_convolutions(model: onnx.ModelProto) -> list[str]:
    """Names of the convolutions whose input and weights both come out of a DequantizeLinear."""
    produced = {output: node.op_type for node in model.graph.node for output in node.output}
    return [
        node.name
        for node in model.graph.node
        if node.op_type == "Conv" and all(produced.get(name) == "DequantizeLinear" for name in node.input[:2])
    ]
