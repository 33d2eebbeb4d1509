"""The Q/DQ graph: what is quantized, how, and what must not be."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper
from tiny_model import CONVOLUTIONS, scene, tiny_card

from derain.calibration.layers import Layers, find_layers
from derain.calibration.qdq import quantize, quantized_convolutions
from derain.calibration.ranges import METHODS, Ranges, collect
from derain.calibration.session import Runner, feed_of
from derain.errors import CalibrationError, ModelFileError
from derain.metrics import psnr


def _makers(model: onnx.ModelProto) -> dict[str, onnx.NodeProto]:
    return {name: node for node in model.graph.node for name in node.output}


def _node(model: onnx.ModelProto, name: str) -> onnx.NodeProto:
    return next(node for node in model.graph.node if node.name == name)


def _values(model: onnx.ModelProto) -> dict[str, np.ndarray]:  # type: ignore[type-arg]
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


@pytest.fixture(scope="module")
def quantized(tiny: onnx.ModelProto, layers: Layers, ranges: Ranges) -> onnx.ModelProto:
    return quantize(tiny, layers, ranges)


def test_layers_are_sorted(layers: Layers) -> None:
    assert list(layers.convolutions) == CONVOLUTIONS
    assert set(layers.additions) == {"stage/Add", "stage/Add.2"}
    assert set(layers.others) == {"context/Conv"}


def test_every_pair_is_symmetric_signed_and_zero_pointed(quantized: onnx.ModelProto) -> None:
    values = _values(quantized)
    pairs = [node for node in quantized.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert len(pairs) > 10
    for node in pairs:
        zero = values[node.input[2]]
        assert zero.dtype == np.int8
        assert not zero.any(), node.name
        assert (values[node.input[1]] > 0).all()


def test_weights_are_per_channel_and_biases_float(quantized: onnx.ModelProto) -> None:
    values, makers = _values(quantized), _makers(quantized)
    assert quantized_convolutions(quantized) == CONVOLUTIONS
    for name in CONVOLUTIONS:
        node = _node(quantized, name)
        dequantize = makers[node.input[1]]
        weight, scale = values[dequantize.input[0]], values[dequantize.input[1]]
        assert weight.dtype == np.int8
        assert scale.shape == (weight.shape[0],)
        assert np.abs(weight.astype(int)).max() == 127
        assert values[node.input[2]].dtype == np.float32  # TensorRT refuses an int32 bias behind a DequantizeLinear


def test_both_inputs_of_residual_additions_are_quantized(quantized: onnx.ModelProto) -> None:
    makers = _makers(quantized)
    for name in ("stage/Add", "stage/Add.2"):
        assert [makers[source].op_type for source in _node(quantized, name).input] == ["DequantizeLinear"] * 2


def test_recurrences_have_equal_weights_but_ranges_of_their_own(quantized: onnx.ModelProto) -> None:
    values, makers = _values(quantized), _makers(quantized)
    first, second = (_node(quantized, name) for name in ("stage/Conv", "stage/Conv.2"))
    for position in (0, 1):  # onnxruntime cannot load int8 weights that two layers share: see qdq.py
        names = [makers[node.input[1]].input[position] for node in (first, second)]
        assert names[0] != names[1]
        assert (values[names[0]] == values[names[1]]).all()
    scales = [float(values[makers[node.input[0]].input[1]]) for node in (first, second)]
    assert scales[0] != scales[1]


def test_picture_context_and_outputs_stay_float(quantized: onnx.ModelProto) -> None:
    """A picture rounded to 127 levels on its way to the residual would lose half its grey levels."""
    makers = _makers(quantized)
    for name in ("residual/Add", "residual/Sub", "context/ReduceMean", "context/Conv", "camera/DepthToSpace"):
        kinds = {makers[source].op_type for source in _node(quantized, name).input if source in makers}
        assert not kinds & {"QuantizeLinear", "DequantizeLinear"}, name
    assert "picture" in _node(quantized, "residual/Add").input


def test_a_kept_layer_computes_in_half_with_weights_of_its_own(
    tiny: onnx.ModelProto, layers: Layers, ranges: Ranges
) -> None:
    model = quantize(tiny, layers, ranges, frozenset({"stage/Conv"}))
    assert quantized_convolutions(model) == [name for name in CONVOLUTIONS if name != "stage/Conv"]
    kinds = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    kept = _node(model, "stage/Conv")
    assert [kinds[name] for name in kept.input[1:]] == [TensorProto.FLOAT16] * 2
    frame = scene(9)[0]
    assert psnr(Runner(model, tiny_card())(frame), Runner(tiny, tiny_card())(frame), "rgb") > 35


def test_a_kept_addition_adds_exact_values(tiny: onnx.ModelProto, layers: Layers, ranges: Ranges) -> None:
    model = quantize(tiny, layers, ranges, frozenset({"stage/Add"}))
    assert quantized_convolutions(model) == CONVOLUTIONS
    makers = _makers(model)
    assert [makers[source].op_type for source in _node(model, "stage/Add").input] == ["Conv", "LeakyRelu"]
    assert makers[_node(model, "stage/Conv").input[0]].op_type == "DequantizeLinear"
    assert [makers[source].op_type for source in _node(model, "stage/Add.2").input] == ["DequantizeLinear"] * 2


def test_an_addition_alone(tiny: onnx.ModelProto, layers: Layers, ranges: Ranges) -> None:
    kept = frozenset(layers.all) - {"stage/Add.2"}
    assert not any(node.op_type == "QuantizeLinear" for node in quantize(tiny, layers, ranges, kept).graph.node)
    model = quantize(tiny, layers, ranges, kept, alone=True)
    assert sum(node.op_type == "QuantizeLinear" for node in model.graph.node) == 2


def test_keeping_all_is_float16(tiny: onnx.ModelProto, layers: Layers, ranges: Ranges) -> None:
    model = quantize(tiny, layers, ranges, frozenset(CONVOLUTIONS))
    assert not any(node.op_type == "QuantizeLinear" for node in model.graph.node)
    frame = scene(9)[0]
    difference = Runner(model, tiny_card())(frame).astype(int) - Runner(tiny, tiny_card())(frame).astype(int)
    assert np.abs(difference).max() <= 1


def test_the_model_is_not_changed(tiny: onnx.ModelProto, layers: Layers, ranges: Ranges) -> None:
    before = tiny.SerializeToString()
    quantize(tiny, layers, ranges, frozenset({"stage/Conv"}))
    assert tiny.SerializeToString() == before


def test_result_is_close_and_smaller(quantized: onnx.ModelProto, tiny: onnx.ModelProto) -> None:
    frame = scene(11)[0]
    ours, theirs = Runner(quantized, tiny_card())(frame), Runner(tiny, tiny_card())(frame)
    assert 30 < psnr(ours, theirs, "rgb") < 70


def test_quantized_already(quantized: onnx.ModelProto) -> None:
    with pytest.raises(ModelFileError, match="quantized already"):
        find_layers(quantized, "it")


def test_no_layer_can_be_quantized(tiny: onnx.ModelProto) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(tiny)
    for node in model.graph.node:
        if node.op_type == "Conv":
            node.op_type = "ConvTranspose"
    with pytest.raises(CalibrationError, match="stem/Conv is a transposed convolution"):
        find_layers(model, "it")


def test_ranges_do_not_depend_on_chunks(tiny: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors are looked at in groups so that memory stays bounded; the result must be the same."""
    from derain.calibration import ranges as module

    frames = [scene(seed)[0] for seed in range(3)]
    tensors = ["picture", "h0", "h1", "act2"]
    feeds = lambda: (feed_of(tiny_card(), frame) for frame in frames)  # noqa: E731
    whole = collect(tiny, tensors, feeds, "percentile-99.99")
    monkeypatch.setattr(module, "_HELD_BYTES", 1)
    assert collect(tiny, tensors, feeds, "percentile-99.99") == whole


def test_methods_order_as_they_must(tiny: onnx.ModelProto) -> None:
    frames = [scene(seed)[0] for seed in range(2)]
    found = {
        method: collect(tiny, ["h1"], lambda: (feed_of(tiny_card(), frame) for frame in frames), method)
        for method in METHODS
    }
    exact = found["minmax"].largest["h1"]
    tight, loose = (found[method].largest["h1"] for method in ("percentile-99.99", "percentile-99.999"))
    assert 0.3 * exact < tight <= loose <= exact
    assert 0.1 * exact < found["entropy"].largest["h1"] <= exact


def test_no_frames(tiny: onnx.ModelProto) -> None:
    with pytest.raises(CalibrationError, match="no frames"):
        collect(tiny, ["h1"], lambda: iter(()), "minmax")
