"""NVIDIA's parser and builder accept the files, and compute in the types asked for."""

from __future__ import annotations

from collections.abc import Callable

import onnx
import pytest
from small_network import SmallNetwork

from derain.errors import ExportError, UsageError
from derain.export import verify_trt
from derain.export.exporter import Exported, build
from derain.export.options import ExportOptions
from derain.export.verify_trt import CAPABILITIES, build_bytes, read_layers, verify

Exports = Callable[..., Exported]
pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx is not installed (pip install tensorrt-rtx-cu13)")


def _convolutions(model: onnx.ModelProto) -> list[str]:
    return [node.name for node in model.graph.node if node.op_type == "Conv"]


@pytest.mark.parametrize(
    "case",
    [
        {},
        {"size": (1, 48, 64)},
        {"size": (1, 45, 62)},
        {"frames": "float"},
        {"frames": "nv12"},
        {"part": "attention"},
        {"part": "tile"},
        {"part": "context"},
    ],
    ids=str,
)
def test_float32_builds_and_stays_float(exports: Exports, case: dict[str, object]) -> None:
    exported = exports(**case)
    report = build_bytes(exported.model.SerializeToString(), exported.card, "SM86")
    kinds = report.convolutions(_convolutions(exported.model))
    assert kinds
    assert set(kinds.values()) == {"Float"}
    assert report.engine_bytes > 0


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_half_builds_for_every_architecture(exports: Exports, capability: str) -> None:
    exported = exports(half=True)
    report = build_bytes(exported.model.SerializeToString(), exported.card, capability)
    kinds = report.convolutions(_convolutions(exported.model))
    assert {kind for name, kind in kinds.items() if not name.startswith("context/")} == {"Half"}
    assert {kind for name, kind in kinds.items() if name.startswith("context/")} == {"Float"}


def test_int8_is_read_from_the_log(exports: Exports) -> None:
    """Q/DQ around one convolution: that one and no other must be reported as Int8."""
    import numpy as np
    from onnx import helper, numpy_helper

    exported = exports(size=(1, 48, 64))
    model = onnx.ModelProto()
    model.CopyFrom(exported.model)
    node = next(node for node in model.graph.node if node.name == "tail/Conv")
    position = list(model.graph.node).index(node)
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == node.input[1])
    values = numpy_helper.to_array(weight)
    scale = float(np.abs(values).max()) / 127
    model.graph.initializer.extend(
        [
            numpy_helper.from_array(np.clip(np.rint(values / scale), -127, 127).astype(np.int8), "w8"),
            numpy_helper.from_array(np.float32(scale), "ws"),
            numpy_helper.from_array(np.float32(0.05), "xs"),
            numpy_helper.from_array(np.int8(0), "zero"),
        ]
    )
    model.graph.node.insert(position, helper.make_node("DequantizeLinear", ["w8", "ws", "zero"], ["wf"], "tail/DQ.2"))
    model.graph.node.insert(position, helper.make_node("DequantizeLinear", ["x8", "xs", "zero"], ["xf"], "tail/DQ"))
    model.graph.node.insert(
        position, helper.make_node("QuantizeLinear", [node.input[0], "xs", "zero"], ["x8"], "tail/Q")
    )
    node.input[0], node.input[1] = "xf", "wf"
    model.graph.initializer.remove(weight)
    kinds = build_bytes(model.SerializeToString(), exported.card, "SM89").convolutions(_convolutions(model))
    assert {name for name, kind in kinds.items() if kind == "Int8"} == {"tail/Conv"}


def test_a_refusal_names_the_node(exports: Exports) -> None:
    exported = exports()
    model = onnx.ModelProto()
    model.CopyFrom(exported.model)
    node = next(node for node in model.graph.node if node.op_type == "LeakyRelu")
    node.op_type = "Bernoulli"
    del node.attribute[:]
    with pytest.raises(ExportError, match=node.name) as caught:
        build_bytes(model.SerializeToString(), exported.card, "SM86")
    assert "35" not in str(caught.value)


def test_mixed_precision_is_refused_by_the_real_parser(exports: Exports) -> None:
    """Strong typing is on: a float16 weight behind a float32 activation is an error, not a silent cast."""
    import numpy as np
    from onnx import numpy_helper

    exported = exports()
    model = onnx.ModelProto()
    model.CopyFrom(exported.model)
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == "network.tail.weight")
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight).astype(np.float16), weight.name))
    with pytest.raises(ExportError, match="tail/Conv"):
        build_bytes(model.SerializeToString(), exported.card, "SM86")


def test_unknown_architecture(exports: Exports) -> None:
    exported = exports()
    with pytest.raises(UsageError, match="SM87"):
        build_bytes(exported.model.SerializeToString(), exported.card, "SM87")


def test_export_states_what_verified_it(network: SmallNetwork, exports: Exports) -> None:
    options = ExportOptions(exports().card.profile, half=True, tensorrt=("SM86", "SM120"))
    card = build(network, None, options, part="attention").card
    assert card.parity is not None
    statement = card.parity.verified_with[-1]
    assert statement.startswith("tensorrt_rtx ")
    assert "SM86, SM120" in statement


def test_types_that_the_log_does_not_tell_are_not_claimed(exports: Exports, monkeypatch: pytest.MonkeyPatch) -> None:
    exported = exports(size=(1, 48, 64))
    assert "unknown" not in verify(exported.model, exported.card, ("SM86",))
    monkeypatch.setattr(verify_trt, "read_layers", lambda log: [])
    statement = verify(exported.model, exported.card, ("SM86",))
    count = len(_convolutions(exported.model))
    assert f"types of {count} of {count} convolutions unknown" in statement


def test_a_float_matrix_product_is_not_for_turing(exports: Exports) -> None:
    """The statement must not claim SM75 for a graph that TensorRT-RTX does not build for it."""
    from onnx import helper

    exported = exports(size=(1, 48, 64))
    model = onnx.ModelProto()
    model.CopyFrom(exported.model)
    position = next(index for index, node in enumerate(model.graph.node) if node.name == "tail/Conv")
    source = model.graph.node[position].input[0]
    model.graph.node.insert(position, helper.make_node("MatMul", [source, "square"], ["product"], "tail/MatMul"))
    model.graph.node[position + 1].input[0] = "product"
    import numpy as np
    from onnx import numpy_helper

    model.graph.initializer.append(numpy_helper.from_array(np.eye(16, dtype=np.float32), "square"))
    statement = verify(model, exported.card, ("SM75", "SM86"))
    assert "SM75 only with --fp16" in statement
    with pytest.raises(ExportError, match="--fp16"):
        verify(model, exported.card, ("SM75",))


def test_reading_a_layer_of_the_log() -> None:
    tensor = (
        "{{ Name: {}, Dimensions: [{}], Strides: [1], StrideOrder: [0], Datatype: {}, Format: (Linear) Row major }}"
    )
    line = (
        f"Name: tail/Conv_myl0_8, LayerType: correlation, Inputs: [ {tensor.format('x', '-1,64,-1,-1', 'Int8')}], "
        f"Constants: [ {tensor.format('w', '48,64,3,3', 'Int8')}, {tensor.format('b', '1,48,1,1', 'Float')}], "
        f"Outputs: [ {tensor.format('y', '-1,48,-1,-1', 'Float')}], TacticName: t, StreamId: 0, "
        "Metadata: [ONNX Layer: tail/Conv][ONNX Layer: w_DequantizeLinear]"
    )
    (layer,) = read_layers(f"noise\n{line}\nmore noise")
    assert layer.onnx_layers == ("tail/Conv", "w_DequantizeLinear")
    assert layer.inputs[0].shape == (-1, 64, -1, -1)
    assert layer.weight_type == "Int8"
