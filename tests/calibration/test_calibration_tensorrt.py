"""NVIDIA's parser and builder take the INT8 files, and compute every layer in INT8 that the card says."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import onnx
import pytest
from tiny_model import CONVOLUTIONS, scene, tiny_card

from derain.calibration.equalize import find_equalizing
from derain.calibration.layers import Layers, find_layers, tensors_of
from derain.calibration.qdq import quantize, quantized_convolutions
from derain.calibration.ranges import Ranges, channel_magnitudes, collect
from derain.calibration.session import Runner, feed_of
from derain.card import ModelCard, read_card
from derain.export.verify_trt import build_bytes
from derain.models import shipped

pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx is not installed (pip install tensorrt-rtx-cu13)")
# Not SM75: for Turing, TensorRT-RTX 1.7 dequantizes and computes in float.
CAPABILITIES = ("SM86", "SM89", "SM120")
EDGE_SIZES = ["nano", "edge", "aueid-edge", "derain-cyclegan-edge", "dcd-gan-edge", "remaen-edge"]


def _kinds(model: onnx.ModelProto, card: ModelCard, capability: str = "SM89") -> dict[str, str]:
    report = build_bytes(model.SerializeToString(), card, capability)
    return report.convolutions([node.name for node in model.graph.node if node.op_type == "Conv"])


def test_all_layers(tiny: onnx.ModelProto, layers: Layers, ranges: Ranges) -> None:
    kinds = _kinds(quantize(tiny, layers, ranges), tiny_card())
    assert {name for name, kind in kinds.items() if kind == "Int8"} == set(CONVOLUTIONS)


def test_kept_layers_are_half(tiny: onnx.ModelProto, layers: Layers, ranges: Ranges) -> None:
    kinds = _kinds(quantize(tiny, layers, ranges, frozenset({"stage/Conv.2", "tail/Conv"})), tiny_card())
    assert kinds["stage/Conv.2"] == kinds["tail/Conv"] == "Half"
    assert kinds["stage/Conv"] == kinds["stem/Conv"] == "Int8"


def test_kept_additions(tiny: onnx.ModelProto, layers: Layers, ranges: Ranges) -> None:
    """The convolutions around an addition in float still compute in INT8."""
    kinds = _kinds(quantize(tiny, layers, ranges, frozenset(layers.additions)), tiny_card())
    assert {name for name, kind in kinds.items() if kind == "Int8"} == set(CONVOLUTIONS)


def _check(model: onnx.ModelProto, card: ModelCard) -> None:
    """Quantize a network and hold it against the builder's log; each recurrence must be there."""
    layers = find_layers(model, card.name)
    frames = [scene(seed, 96, 128)[0] for seed in range(2)]
    feeds = lambda: (feed_of(card, frame) for frame in frames)  # noqa: E731
    tensors = tensors_of(model, layers)
    even = find_equalizing(model, tensors, partial(channel_magnitudes, frames=feeds)).apply(model)
    quantized = quantize(even, layers, collect(even, tensors, feeds, "minmax"))
    assert quantized_convolutions(quantized) == list(layers.convolutions)
    for capability in CAPABILITIES:
        kinds = _kinds(quantized, card, capability)
        assert {name: kinds[name] for name in layers.convolutions} == dict.fromkeys(layers.convolutions, "Int8")
    found, wanted = Runner(quantized, card)(frames[0]), Runner(model, card)(frames[0])
    assert np.abs(found.astype(int) - wanted.astype(int)).mean() < 8


@pytest.mark.parametrize("name", ["nano", "edge"])
def test_shipped_models(name: str) -> None:
    models = shipped()
    if name not in models:
        pytest.skip(f"no model named {name} ships with this version")
    _check(onnx.load(str(models[name].path)), read_card(models[name].path))


@pytest.mark.full
@pytest.mark.parametrize("recipe", EDGE_SIZES)
def test_every_system_at_edge_size(recipe: str) -> None:
    import torch

    from derain.export.exporter import ExportOptions, build
    from derain.export.sizes import make_profile
    from derain.train.networks.reparam import fold_branches
    from derain.train.recipe import parse_recipe, read_recipe_text
    from derain.train.systems import find_system

    parsed = parse_recipe(read_recipe_text(recipe), recipe)
    torch.manual_seed(0)
    network: Any = find_system(parsed.system)(parsed.system_config()).derainer
    for parameter in network.parameters():  # layers that start at zero would have no range
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.01)
    fold_branches(network)
    exported = build(network.eval(), None, ExportOptions(make_profile()))
    _check(exported.model, exported.card)
