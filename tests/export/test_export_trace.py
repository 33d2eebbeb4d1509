"""The file: one, clean, weights once, only operators that TensorRT has."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper
from small_network import SmallNetwork

from derain.errors import ExportError
from derain.export.exporter import Exported
from derain.export.fold import constant_maps, repeated_weights, share_weights
from derain.export.matrix import rewrite_products
from derain.export.operators import SUPPORTED, check_operators
from derain.export.shapes import plain_shapes
from derain.folding import complete_names

Exports = Callable[..., Exported]
INPUTS = {"x": [3, 6], "p": [3, 4, 5], "q": [3, 5, 2]}


def test_versions_and_one_file(exports: Exports) -> None:
    model = exports().model
    assert model.ir_version <= 10
    assert [(item.domain, item.version) for item in model.opset_import] == [("", 18)]
    assert all(tensor.data_location != onnx.TensorProto.EXTERNAL for tensor in model.graph.initializer)


def test_nothing_of_training_is_in_the_file(exports: Exports, network: SmallNetwork) -> None:
    exported = exports()
    deployed = sum(w.numel() for name, w in network.named_parameters() if not name.startswith("training_only"))
    names = " ".join(tensor.name for tensor in exported.model.graph.initializer)
    assert "training_only" not in names
    assert exported.card.cost.parameters == deployed
    overhead = len(exported.model.SerializeToString()) - 4 * deployed
    assert 0 < overhead < 60_000


def test_a_stage_run_three_times_is_stored_once(exports: Exports) -> None:
    for half in (False, True):
        model = exports(half=half).model
        uses = [node.input[1] for node in model.graph.node if node.op_type == "Conv" and "stage" in node.name]
        assert len(uses) == 3
        assert len(set(uses)) == 1
        assert repeated_weights(model) == []


def test_share_weights_merges_copies() -> None:
    values = np.arange(100, dtype=np.float32)
    first, second = (numpy_helper.from_array(values, name) for name in ("a", "b"))
    other = numpy_helper.from_array(values + 1, "c")
    node = helper.make_node("Sum", ["a", "b", "c"], ["y"])
    graph = helper.make_graph(
        [node], "g", [], [helper.make_tensor_value_info("y", 1, [100])], initializer=[first, second, other]
    )
    model = helper.make_model(graph)
    assert repeated_weights(model) == ["b"]
    assert share_weights(model) == 1
    assert list(model.graph.node[0].input) == ["a", "a", "c"]
    assert [tensor.name for tensor in model.graph.initializer] == ["a", "c"]


def test_constant_maps_are_made_and_not_stored() -> None:
    """A state of one value goes; a weight of one value, a small constant and a map of two values stay."""
    initializers = [
        numpy_helper.from_array(values.astype(np.float32), name)
        for name, values in {
            "state": np.full((1, 1, 64, 64), 0.5),
            "network.weight": np.zeros((1, 1, 64, 64)),
            "small": np.ones((1, 1, 1, 1)),
            "map": np.arange(4096).reshape(1, 1, 64, 64),
        }.items()
    ]
    node = helper.make_node("Sum", ["x", *(tensor.name for tensor in initializers)], ["y"])
    ports = [helper.make_tensor_value_info(name, 1, [1, 1, 64, 64]) for name in "xy"]
    graph = helper.make_graph([node], "g", ports[:1], ports[1:], initializer=initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    given = {"x": np.random.default_rng(0).random((1, 1, 64, 64), np.float32)}
    before = onnxruntime.InferenceSession(model.SerializeToString()).run(None, given)[0]
    assert constant_maps(model) == 1
    onnx.checker.check_model(model, full_check=True)
    stored = {tensor.name for tensor in model.graph.initializer}
    assert stored == {"network.weight", "small", "map", "map_1x1x64x64"}
    after = onnxruntime.InferenceSession(model.SerializeToString()).run(None, given)[0]
    np.testing.assert_array_equal(after, before)
    assert constant_maps(model) == 0


def test_nodes_are_named_after_layers(exports: Exports) -> None:
    names = [node.name for node in exports().model.graph.node]
    assert len(set(names)) == len(names)
    assert {"stem/Conv", "stage/Conv", "stage/Conv.2", "stage/Conv.3", "tail/Conv"} <= set(names)
    assert any(name.startswith("context/thumb/") for name in names)
    assert {name.split("/")[0] for name in names if "/" in name} >= {"camera", "context", "stem", "stage"}


def test_linear_layers_become_convolutions_with_names_of_their_own() -> None:
    """A linear layer that runs twice, and a product of two activations of the context: exact, uniquely named."""
    random = np.random.default_rng(0)
    weight = numpy_helper.from_array(random.normal(size=(6, 6)).astype(np.float32), "w")
    bias = numpy_helper.from_array(random.normal(size=6).astype(np.float32), "b")
    nodes = [
        helper.make_node("Gemm", ["x", "w", "b"], ["h"], "squeeze/Gemm", transB=1),
        helper.make_node("Gemm", ["h", "w", "b"], ["y"], "squeeze/Gemm.2", transB=1),
        helper.make_node("MatMul", ["p", "q"], ["z"], "context/MatMul"),
    ]
    inputs = [helper.make_tensor_value_info(name, 1, shape) for name, shape in INPUTS.items()]
    outputs = [helper.make_tensor_value_info("y", 1, [3, 6]), helper.make_tensor_value_info("z", 1, [3, 4, 2])]
    graph = helper.make_graph(nodes, "g", inputs, outputs, [weight, bias])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    feed = {name: random.normal(size=shape).astype(np.float32) for name, shape in INPUTS.items()}
    expected = onnxruntime.InferenceSession(model.SerializeToString()).run(None, feed)
    rewrite_products(model, "context/")
    complete_names(model)
    onnx.checker.check_model(model, full_check=True)
    assert not {"Gemm", "MatMul"} & {node.op_type for node in model.graph.node}
    assert len({node.name for node in model.graph.node}) == len(model.graph.node)
    found = onnxruntime.InferenceSession(model.SerializeToString()).run(None, feed)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def test_sizes_are_read_so_that_every_tool_folds_them(exports: Exports) -> None:
    """``Shape`` with ``start`` and ``end`` is folded wrongly by onnx-graphsurgeon 0.6, which is behind Polygraphy."""
    model = exports().model
    shapes = [node for node in model.graph.node if node.op_type == "Shape"]
    assert shapes
    assert [node.name for node in shapes if node.attribute] == []
    assert len({node.input[0] for node in shapes}) == len(shapes)


def test_parts_of_shapes_are_picked() -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["all"], "a/Shape"),
        helper.make_node("Shape", ["x"], ["rows"], "a/Shape.2", start=1, end=2),
        helper.make_node("Shape", ["x"], ["rest"], "a/Shape.3", start=-2),
        helper.make_node("Shape", ["x"], ["first"], "a/Shape.4", end=-1),
    ]
    names = ("all", "rows", "rest", "first")
    outputs = [helper.make_tensor_value_info(name, onnx.TensorProto.INT64, [None]) for name in names]
    graph = helper.make_graph(nodes, "g", [helper.make_tensor_value_info("x", 1, ["a", "b", "c"])], outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    plain_shapes(model)
    onnx.checker.check_model(model, full_check=True)
    assert [node.op_type for node in model.graph.node].count("Shape") == 2  # the whole one, and the one picked from
    found = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": np.zeros((3, 4, 5), np.float32)})
    assert [array.tolist() for array in found] == [[3, 4, 5], [4], [4, 5], [3, 4]]


def test_no_constants_left_to_fold(exports: Exports) -> None:
    model = exports().model
    weights = {tensor.name for tensor in model.graph.initializer}
    assert not [node.name for node in model.graph.node if node.op_type in ("Constant", "Identity", "Dropout")]
    assert not [node.name for node in model.graph.node if node.input and all(name in weights for name in node.input)]


def _one_node(operator: str, **attributes: object) -> onnx.ModelProto:
    node = helper.make_node(operator, ["x"], ["y"], name="part/layer/Node", **attributes)
    ports = [helper.make_tensor_value_info(name, 1, [1, 1, 4, 4]) for name in "xy"]
    return helper.make_model(helper.make_graph([node], "g", ports[:1], ports[1:]))


@pytest.mark.parametrize(
    ("operator", "attributes"),
    [
        ("Bernoulli", {}),
        ("RandomNormalLike", {}),
        ("Col2Im", {}),
        ("MaxUnpool", {}),
        ("Resize", {"mode": "cubic"}),
        ("Resize", {"antialias": 1, "mode": "linear"}),
        ("Resize", {"coordinate_transformation_mode": "tf_crop_and_resize"}),
        ("Pad", {"mode": "wrap"}),
        ("BatchNormalization", {"training_mode": 1}),
        ("Conv", {"domain": "com.microsoft"}),
    ],
)
def test_what_tensorrt_lacks_is_refused_by_the_nodes_name(operator: str, attributes: dict[str, object]) -> None:
    with pytest.raises(ExportError, match="part/layer/Node"):
        check_operators(_one_node(operator, **attributes))


def test_what_tensorrt_has_is_accepted() -> None:
    for operator in sorted(SUPPORTED):
        check_operators(_one_node(operator))
    check_operators(_one_node("Pad", mode="edge"))
    check_operators(_one_node("Resize", mode="linear", coordinate_transformation_mode="half_pixel"))
