"""FP8: the same Q/DQ pairs with E4M3 numbers, judged like INT8, and computed in FP8 by NVIDIA's builder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper
from tiny_model import CONVOLUTIONS, scene, tiny_card, write_pairs
from typer.testing import CliRunner

from derain.calibration.layers import Layers, find_layers, tensors_of
from derain.calibration.qdq import quantize, quantized_convolutions
from derain.calibration.ranges import Ranges, collect
from derain.calibration.session import feed_of, open_session
from derain.card import read_card
from derain.cli import app
from derain.models import shipped
from derain.runtime.model import load

CAPABILITIES = ("SM89", "SM120")
CLI = CliRunner()


def _e4m3(values: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
    """To the nearest E4M3 number, half to even: 3 bits of fraction, exponents from -6, at most 448."""
    exponent = np.maximum(np.floor(np.log2(np.maximum(np.abs(values), 2.0**-20))), -6)
    step = 2.0 ** (exponent - 3)
    return np.clip(np.round(values / step) * step, -448, 448)


def test_the_numbers_are_e4m3(tiny: onnx.ModelProto, layers: Layers, ranges: Ranges) -> None:
    """Weights and an activation against rounding written out here."""
    model = quantize(tiny, layers, ranges, float8=True)
    assert quantized_convolutions(model) == CONVOLUTIONS
    zeros = {node.input[2] for node in model.graph.node if node.op_type == "QuantizeLinear"}
    kinds = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    assert {kinds[name] for name in zeros} == {TensorProto.FLOAT8E4M3FN}
    assert model.opset_import[0].version == 19
    weights = next(node for node in model.graph.node if node.name == "stage/Conv.2").input[1]
    picture = next(node for node in model.graph.node if node.name == "stem/Conv").input[0]
    for name in (weights, picture, "picture"):
        model.graph.output.append(onnx.helper.make_empty_tensor_value_info(name))
    found, rounded, exact = open_session(model).run([weights, picture, "picture"], feed_of(tiny_card(), scene(1)[0]))
    kernel = next(numpy_helper.to_array(t) for t in tiny.graph.initializer if t.name == "stage.weight")
    scale = np.abs(kernel).max(axis=(1, 2, 3), keepdims=True) / 448
    np.testing.assert_allclose(found, _e4m3(kernel / scale) * scale, rtol=1e-5, atol=1e-9)
    scale = ranges.largest["picture"] / 448
    assert np.mean(np.isclose(rounded, _e4m3(exact / scale) * scale, rtol=1e-5, atol=1e-9)) > 0.999


def test_command(tiny_file: Path, tmp_path: Path) -> None:
    pairs, output = write_pairs(tmp_path / "data", 6), tmp_path / "out.fp8.onnx"
    arguments = ["calibrate", str(tiny_file), "--frames", str(pairs), "-o", str(output), "--precision", "fp8"]
    result = CLI.invoke(app, [*arguments, "--max-drop", "3"])
    assert result.exit_code == 0, result.output
    card = read_card(output)
    assert (card.precision.kind, card.opset) == ("float8", 19)
    assert card.calibration is not None
    assert card.calibration.float8 == quantized_convolutions(onnx.load(str(output)))
    assert card.calibration.int8 == []
    with load(output) as model:
        assert model.backend_name == "onnxruntime"
        assert model(scene(30)[0]).shape == (64, 96, 3)
    result = CLI.invoke(app, ["inspect", str(output)])
    assert result.exit_code == 0, result.output
    assert "float8" in result.output


def _kinds(model: onnx.ModelProto, name: Path | None, capability: str) -> dict[str, str]:
    pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx is not installed (pip install tensorrt-rtx-cu13)")
    from derain.export.verify_trt import build_bytes

    card = tiny_card() if name is None else read_card(name)
    report = build_bytes(model.SerializeToString(), card, capability)
    return report.convolutions([node.name for node in model.graph.node if node.op_type == "Conv"])


def test_the_builder_computes_in_fp8(tiny: onnx.ModelProto, layers: Layers, ranges: Ranges) -> None:
    kinds = _kinds(quantize(tiny, layers, ranges, frozenset({"tail/Conv"}), float8=True), None, "SM89")
    assert kinds["tail/Conv"] == "Half"
    assert kinds["stage/Conv"] == kinds["stage/Conv.2"] == kinds["attention/Conv"] == "FP8"


@pytest.mark.full
@pytest.mark.parametrize("name", ["nano", "edge"])
def test_shipped_models_in_fp8(name: str) -> None:
    models = shipped()
    if name not in models:
        pytest.skip(f"no model named {name} ships with this version")
    path = models[name].path
    model, card = onnx.load(str(path)), read_card(path)
    layers = find_layers(model, name)
    feeds = lambda: (feed_of(card, scene(seed, 96, 128)[0]) for seed in range(2))  # noqa: E731
    quantized = quantize(model, layers, collect(model, tensors_of(model, layers), feeds, "minmax"), float8=True)
    for capability in CAPABILITIES:
        kinds = _kinds(quantized, path, capability)
        # The builder names the kernel of a stem whose picture it rounds along the way after neither.
        assert {kinds[layer] for layer in layers.convolutions if not layer.endswith("stem/Conv")} == {"FP8"}
