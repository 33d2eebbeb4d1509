"""INT8 figures are those of exact integer arithmetic, which is computed here with int32 accumulation."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun
from tiny_model import CONVOLUTIONS, scene, tiny_card

from derain.calibration.layers import Layers, find_layers, tensors_of
from derain.calibration.qdq import quantize
from derain.calibration.ranges import Ranges, collect
from derain.calibration.session import Runner, feed_of, open_session
from derain.metrics import psnr
from derain.models import shipped

Array = NDArray[Any]


def integer_convolution(x: Array, w: Array, pads: list[int], strides: list[int]) -> Array:
    """int8 (1, C, H, W) by int8 (M, C, kh, kw), every product and sum in int32."""
    top, left, bottom, right = pads
    padded = np.pad(x[0].astype(np.int32), ((0, 0), (top, bottom), (left, right)))
    kernel = w.astype(np.int32)
    rows, columns = kernel.shape[2:]
    windows = np.lib.stride_tricks.sliding_window_view(padded, (rows, columns), axis=(1, 2))
    windows = windows[:, :: strides[0], :: strides[1]]
    total = np.zeros((kernel.shape[0], *windows.shape[1:3]), np.int32)
    for channel in range(kernel.shape[1]):
        total += np.einsum("hwij,mij->mhw", windows[channel], kernel[:, channel], dtype=np.int32)
    return total[None]


def attributes_of(node: onnx.NodeProto) -> tuple[list[int], list[int]]:
    """Pads and strides of a convolution."""
    found = {attribute.name: list(attribute.ints) for attribute in node.attribute}
    return found.get("pads", [0] * 4), found.get("strides", [1, 1])


def check_layer(model: onnx.ModelProto, name: str, feed: dict[str, Array]) -> int:
    """Compare one Q/DQ convolution inside a model with integers.

    The graph is given two more outputs: the int8 input of the convolution, and its result rounded to int8. The second
    keeps the pair behind the convolution, so that onnxruntime may run it in integers, as it does in the whole model.

    Returns:
        How many values were compared.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in copy.graph.initializer}
    makers = {output: node for node in copy.graph.node for output in node.output}
    node = next(node for node in copy.graph.node if node.name == name)
    activation, weight = makers[node.input[0]], makers[node.input[1]]
    x_scale, w_scale = values[activation.input[1]], values[weight.input[1]]
    bias = values[node.input[2]]
    for output in (activation.input[0], node.output[0]):
        kind = TensorProto.INT8 if output == activation.input[0] else TensorProto.FLOAT
        if output not in {value.name for value in copy.graph.output}:
            copy.graph.output.append(helper.make_tensor_value_info(output, kind, None))
    x8, found = open_session(copy).run([activation.input[0], node.output[0]], feed)
    total = integer_convolution(x8, values[weight.input[0]], *attributes_of(node))
    scale = x_scale.astype(np.float64) * w_scale.astype(np.float64)
    exact = total * scale[None, :, None, None] + bias[None, :, None, None]
    # Where onnxruntime runs a float convolution between the pairs its sums are rounded to millionths. Neither a
    # saturating kernel nor a bias rounded to the unit of the int32 sum comes near that.
    magnitudes = integer_convolution(np.abs(x8), np.abs(values[weight.input[0]]), *attributes_of(node))
    allowed = (0.001 + 2e-6 * magnitudes) * scale[None, :, None, None]
    assert (np.abs(found - exact) <= allowed).all()
    return int(found.size)


class IntegerConv(OpRun):
    """A Q/DQ convolution in integers, for onnx's reference evaluator: nothing in float before scale and bias."""

    op_domain = "test"

    def _run(self, x: Array, xs: Array, w: Array, ws: Array, b: Array, pads: Any = None, strides: Any = None) -> Any:
        scale = (np.float64(xs) * ws.astype(np.float64))[None, :, None, None]
        total = integer_convolution(x, w, list(pads), list(strides))
        return ((total * scale + b[None, :, None, None]).astype(np.float32),)


def in_integers(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with each DequantizeLinear, Conv, DequantizeLinear as one :class:`IntegerConv`."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    makers = {output: node for node in copy.graph.node for output in node.output}
    for node in copy.graph.node:
        if node.op_type != "Conv":
            continue
        sources = [makers.get(name) for name in node.input[:2]]
        if any(source is None or source.op_type != "DequantizeLinear" for source in sources):
            continue
        pads, strides = attributes_of(node)
        inputs = [name for source in sources if source is not None for name in source.input[:2]]
        node.CopyFrom(
            helper.make_node(
                "IntegerConv",
                [*inputs, node.input[2]],
                list(node.output),
                node.name,
                domain="test",
                pads=pads,
                strides=strides,
            )
        )
    del copy.opset_import[:]  # the evaluator knows DequantizeLinear from opset 19 on; for int8 it is the same
    copy.opset_import.extend([helper.make_opsetid("", 19), helper.make_opsetid("test", 1)])
    return copy


def test_a_whole_picture_equals_integer_arithmetic(tiny: onnx.ModelProto, layers: Layers, ranges: Ranges) -> None:
    """So does the figure: the PSNR that the gate measures is that of exact arithmetic."""
    model = quantize(tiny, layers, ranges, half=False)
    exact = in_integers(model)
    assert sum(node.op_type == "IntegerConv" for node in exact.graph.node) == len(CONVOLUTIONS)
    rainy, clean = scene(22)
    wanted = ReferenceEvaluator(exact, new_ops=[IntegerConv]).run(["derained"], {"frame": rainy[None]})[0][0]
    found = Runner(model, tiny_card())(rainy)
    different = found != wanted
    assert different.mean() < 0.01  # values on the edge between two of the 8-bit steps inside
    assert np.abs(found.astype(int) - wanted.astype(int))[different].max(initial=0) <= 2
    assert abs(psnr(found, clean, "y_matlab") - psnr(wanted, clean, "y_matlab")) < 0.002


def test_the_reference_is_right() -> None:
    x = np.arange(9, dtype=np.int8).reshape(1, 1, 3, 3)
    w = np.zeros((1, 1, 3, 3), np.int8)
    w[0, 0, 1, 1], w[0, 0, 0, 1] = 2, 1
    found = integer_convolution(x, w, [1, 1, 1, 1], [1, 1])
    assert found[0, 0].tolist() == [[0, 2, 4], [6, 9, 12], [15, 18, 21]]
    assert found.dtype == np.int32


@pytest.mark.parametrize("stride", [1, 2])
def test_saturating_inputs_do_not_saturate(stride: int) -> None:
    """All products at the largest magnitude: kernels that add pairs in 16 bits are off by a factor here."""
    random = np.random.default_rng(0)
    w8 = random.choice(np.array([-127, 127], np.int8), (8, 16, 3, 3))
    scales = random.uniform(0.001, 0.01, 8).astype(np.float32)
    out_scale = np.float32(2.0)
    tensors = {
        "w8": w8, "ws": scales, "wz": np.zeros(8, np.int8), "xs": np.float32(0.02), "z": np.int8(0),
        "b": random.normal(0, 1, 8).astype(np.float32), "ys": out_scale,
    }  # fmt: skip
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "xs", "z"], ["x8"]),
        helper.make_node("DequantizeLinear", ["x8", "xs", "z"], ["xf"]),
        helper.make_node("DequantizeLinear", ["w8", "ws", "wz"], ["wf"], axis=0),
        helper.make_node("Conv", ["xf", "wf", "b"], ["y"], pads=[1] * 4, strides=[stride] * 2),
        helper.make_node("QuantizeLinear", ["y", "ys", "z"], ["y8"]),
    ]
    graph = helper.make_graph(
        nodes,
        "conv",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 16, 12, 12])],
        [helper.make_tensor_value_info("y8", TensorProto.INT8, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in tensors.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    x8 = random.choice(np.array([-127, 127], np.int8), (1, 16, 12, 12))
    (found,) = open_session(model).run(None, {"x": x8.astype(np.float32) * np.float32(0.02)})
    total = integer_convolution(x8, w8, [1] * 4, [stride] * 2)
    scale = np.float64(0.02) * scales[None, :, None, None]
    exact = total * scale + np.asarray(tensors["b"])[None, :, None, None]
    wanted = np.clip(np.rint(exact / out_scale), -128, 127)
    near_half = np.abs(np.abs(exact / out_scale % 1) - 0.5) < 1e-4  # may round either way
    assert (found == wanted)[~near_half].all()
    assert (np.abs(found - wanted) <= 1).all()
    assert np.unique(found).size > 20


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_every_layer_of_the_tiny_model(tiny: onnx.ModelProto, layers: Layers, ranges: Ranges, name: str) -> None:
    model = quantize(tiny, layers, ranges)
    assert check_layer(model, name, feed_of(tiny_card(), scene(21)[0])) > 1000


def test_layers_of_the_shipped_nano() -> None:
    from derain.card import read_card

    models = shipped()
    if "nano" not in models:
        pytest.skip("no model named nano ships with this version")
    path = models["nano"].path
    model, card = onnx.load(str(path)), read_card(path)
    layers = find_layers(model, "nano")
    frames = [scene(seed, 96, 128)[0] for seed in range(2)]
    ranges = collect(model, tensors_of(model, layers), lambda: (feed_of(card, frame) for frame in frames), "minmax")
    quantized = quantize(model, layers, ranges)
    for name in ("extractor/stem/Conv", "extractor/stage/first/Conv", "generator/tail/Conv"):
        assert check_layer(quantized, name, feed_of(card, frames[0])) > 1000
