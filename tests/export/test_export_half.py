"""float16 by explicit casts: what computes in it, what does not, and how close it stays."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from small_network import run_model

from derain.errors import ExportError
from derain.export.exporter import Exported
from derain.export.half import half_nodes, to_half
from derain.export.pictures import generated_picture
from derain.folding import complete_names

Exports = Callable[..., Exported]


def _types(model: onnx.ModelProto) -> dict[str, int]:
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    values = (*inferred.graph.input, *inferred.graph.value_info, *inferred.graph.output)
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    return types | {tensor.name: tensor.data_type for tensor in inferred.graph.initializer}


def test_convolutions_are_half_and_the_residual_is_not(exports: Exports) -> None:
    model = exports(half=True).model
    types = _types(model)
    for node in model.graph.node:
        if node.op_type == "Conv":
            wanted = onnx.TensorProto.FLOAT if node.name.startswith("context/") else onnx.TensorProto.FLOAT16
            assert {types[name] for name in node.input} == {wanted}, node.name
    # Backwards from the frame's output up to the last convolution nothing may be rounded to float16.
    makers = {name: node for node in model.graph.node for name in node.output}
    pending, seen = ["derained"], set()
    while pending:
        name = pending.pop()
        maker = makers.get(name)
        if maker is None or name in seen:
            continue
        seen.add(name)
        if types[name] == onnx.TensorProto.FLOAT16:
            assert maker.op_type == "Conv", f"{maker.name} gives float16 to the image residual"
            continue
        pending += maker.input
    assert "camera/Round" in {makers[name].name for name in seen}


def test_no_cast_undoes_another(exports: Exports) -> None:
    model = exports(half=True).model
    makers = {name: node for node in model.graph.node for name in node.output}
    for node in model.graph.node:
        if node.op_type == "Cast" and node.input[0] in makers:
            assert makers[node.input[0]].op_type != "Cast", node.name


def test_the_file_halves_and_stays_close(exports: Exports) -> None:
    single, half = exports(), exports(half=True)
    assert half.card.precision.kind == "float16"
    assert half.card.parity is not None
    assert half.card.parity.psnr is None or half.card.parity.psnr > 50
    assert half.card.cost.kmac_per_pixel == pytest.approx(single.card.cost.kmac_per_pixel)
    saved = len(single.model.SerializeToString()) - len(half.model.SerializeToString())
    assert saved > 1.5 * single.card.cost.parameters
    frame = generated_picture(7, height=35, width=61)[None]
    expected, rain = run_model(single, frame)
    found, half_rain = run_model(half, frame)
    assert found.dtype == np.uint8
    assert half_rain.dtype == np.float32
    assert np.abs(found.astype(int) - expected).max() <= 1
    np.testing.assert_allclose(half_rain, rain, atol=5e-3)


def test_statistics_stay_float32() -> None:
    from onnx import helper

    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], "body/Conv"),
        helper.make_node("ReduceMean", ["a"], ["m"], "body/ReduceMean"),
        helper.make_node("Sub", ["a", "m"], ["s"], "body/Sub"),
        helper.make_node("Conv", ["s", "w"], ["y"], "body/Conv.2"),
    ]
    ports = [helper.make_tensor_value_info(name, 1, [1, 1, 8, 8]) for name in "xy"]
    weight = numpy_helper.from_array(np.ones((1, 1, 1, 1), np.float32), "w")
    graph = helper.make_graph(nodes, "g", ports[:1], ports[1:], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    assert half_nodes(model) == {"body/Conv", "body/Sub", "body/Conv.2"}
    converted = to_half(model)
    onnx.checker.check_model(converted, full_check=True)
    assert _types(converted)["m"] == onnx.TensorProto.FLOAT
    assert _types(converted)["y"] == onnx.TensorProto.FLOAT


def test_a_weight_beyond_float16_is_named(exports: Exports) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(exports().model)
    tail = next(tensor for tensor in model.graph.initializer if tensor.name == "network.tail.weight")
    tail.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tail) * 1e7, tail.name))
    with pytest.raises(ExportError, match=r"network\.tail\.weight"):
        to_half(model)


def test_a_floor_too_small_for_float16_keeps_its_division_in_float32() -> None:
    """``x / max(|x|, 1e-12)``, the cosine similarity of the extractor: of a black frame it is 0, and no 0 / 0."""
    torch.manual_seed(0)
    first, last = torch.nn.Conv2d(3, 4, 1, bias=False), torch.nn.Conv2d(4, 3, 1, bias=False)

    class Cosine(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = first, last

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.last(torch.nn.functional.normalize(self.first(x), dim=1))
            return out

    program = torch.onnx.export(
        Cosine().eval(), (torch.rand(1, 3, 8, 8),), opset_version=18, dynamo=True, external_data=False, verbose=False
    )
    assert program is not None
    model = program.model_proto
    complete_names(model)
    half = to_half(model)
    onnx.checker.check_model(half, full_check=True)
    types = _types(half)
    kinds = {node.op_type: types[node.output[0]] for node in half.graph.node}
    assert kinds["Conv"] == onnx.TensorProto.FLOAT16
    assert kinds["Div"] == onnx.TensorProto.FLOAT
    for value in (0.0, 0.5):
        (found,) = onnxruntime.InferenceSession(half.SerializeToString()).run(
            None, {half.graph.input[0].name: np.full((1, 3, 8, 8), value, np.float32)}
        )
        expected = Cosine()(torch.full((1, 3, 8, 8), value)).detach().numpy()
        np.testing.assert_allclose(found, expected, atol=2e-3)
