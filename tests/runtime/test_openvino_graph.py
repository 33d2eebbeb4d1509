"""Rewriting a graph for OpenVINO changes how it is computed, and nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np
import openvino
import pytest
from openvino import opset13

from derain.models import resolve
from derain.runtime.backends.openvino_graph import streamline

SHAPE = (1, 5, 6, 3)


def frame() -> np.ndarray[Any, Any]:
    return np.random.default_rng(3).integers(0, 256, SHAPE, np.uint8)


def model_of(features: Any, source: Any) -> Any:
    """Features (1, 5, 6, 3) float to a uint8 result with a name, turned on the way, as in an exported graph."""
    turned = opset13.transpose(opset13.reshape(features, [1, 5, 18], False), [0, 2, 1])
    derained = opset13.convert(turned, "u8")
    derained.output(0).set_names({"derained"})
    return openvino.Model([derained.output(0)], [source], "small")


def run(model: Any, data: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    request = openvino.Core().compile_model(model, "CPU", settings).create_infer_request()
    request.infer([data])
    return np.array(request.get_tensor("derained").data)


def kinds(model: Any) -> list[str]:
    return [node.get_type_name() for node in model.get_ordered_ops()]


def test_what_becomes_bytes_is_moved_as_bytes() -> None:
    source = opset13.parameter(SHAPE, np.uint8, "frame")
    features = opset13.multiply(opset13.convert(source, "f32"), np.float32(0.5))
    plain, rewritten = model_of(features, source), model_of(features, source).clone()
    expected = run(plain, frame())
    streamline(rewritten, opset13)
    order = kinds(rewritten)
    assert order.index("Transpose") > len(order) - 1 - order[::-1].index("Convert")
    assert order.count("Convert") == 2
    assert rewritten.output(0).get_element_type() == openvino.Type.u8
    assert rewritten.output(0).get_names() == {"derained"}
    np.testing.assert_array_equal(run(rewritten, frame()), expected)


def test_what_others_read_as_floats_is_not_made_bytes() -> None:
    source = opset13.parameter(SHAPE, np.uint8, "frame")
    moved = opset13.transpose(opset13.multiply(opset13.convert(source, "f32"), np.float32(0.5)), [0, 2, 1, 3])
    levels = opset13.convert(moved, "u8")
    levels.output(0).set_names({"derained"})
    moved.output(0).set_names({"halves"})
    model = openvino.Model([levels.output(0), moved.output(0)], [source], "both")
    streamline(model, opset13)
    assert model.output("halves").get_element_type() == openvino.Type.f32
    np.testing.assert_array_equal(run(model, frame()), (frame() // 2).transpose(0, 2, 1, 3))


def test_hard_sigmoids_and_doublings_give_the_same() -> None:
    source = opset13.parameter(SHAPE, np.uint8, "frame")
    levels = opset13.multiply(opset13.subtract(opset13.convert(source, "f32"), np.float32(128)), np.float32(0.03))
    doubled = opset13.add(levels, levels)
    sigmoid = opset13.hard_sigmoid(doubled, np.float32(1 / 6), np.float32(0.5))
    plain = model_of(opset13.multiply(sigmoid, np.float32(255)), source)
    expected = run(plain, frame())
    streamline(plain, opset13)
    assert "HardSigmoid" not in kinds(plain)
    assert "Clamp" in kinds(plain)
    assert all(
        node.input_value(0) != node.input_value(1) for node in plain.get_ordered_ops() if node.get_type_name() == "Add"
    )
    assert expected.std() > 50
    assert np.abs(run(plain, frame()).astype(int) - expected).max() <= 1


@pytest.mark.parametrize("size", [None, (64, 96)])
def test_a_shipped_model_computes_what_it_did(size: tuple[int, int] | None) -> None:
    height, width = size or (50, 70)
    data = np.random.default_rng(5).integers(0, 256, (1, height, width, 3), np.uint8)
    results = []
    for rewrite in (False, True):
        model = openvino.Core().read_model(str(resolve("nano")))
        if size:
            model.reshape({"frame": list(data.shape)})
        if rewrite:
            streamline(model, opset13)
            assert "HardSigmoid" not in kinds(model)
        results.append(run(model, data).astype(int))
    assert np.abs(results[0] - results[1]).max() <= 1
    assert np.mean(results[0] != results[1]) < 1e-3
