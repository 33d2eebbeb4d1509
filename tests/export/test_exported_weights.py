"""Weights read back from an exported file are the network's own, whatever the export did to them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from small_network import DYNAMIC, PlainNetwork

from derain.errors import CheckpointError, ModelFileError
from derain.export.contract import Contract
from derain.export.exporter import ExportOptions, build, write
from derain.train.exported_weights import read_exported
from derain.train.networks.edge import EdgeConfig, EdgeDerainer
from derain.train.systems.acgf import Acgf, AcgfConfig
from derain.train.warm_start import warm_start

SIZE: dict[str, Any] = {
    "extractor_width": 8, "extractor_stages": 1, "extractor_stage": "residual", "generator_width": 8,
    "generator_stages": 1, "stem_kernel": 6, "trunk": "shared", "fog_width": 4, "coarse_width": 8,
}  # fmt: skip
JUDGE = {"widths": [4, 8]}


def network_of(seed: int) -> EdgeDerainer:
    """Scrambled, but for two biases that stay equal, as those of a sum of two layers do in training."""
    torch.manual_seed(seed)
    network = EdgeDerainer(EdgeConfig.model_validate(SIZE)).eval()
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(torch.randn_like(weight) * 0.05)
        assert network.extractor.discrepancy.bias is not None
        assert network.extractor.similarity.output.bias is not None
        network.extractor.discrepancy.bias.copy_(network.extractor.similarity.output.bias)
    return network


def export(network: Any, path: Path, frames: Any = "bgr", part: Any = "whole", half: bool = False) -> Path:
    write(build(network, None, ExportOptions(DYNAMIC, Contract(frames), half=half), part=part), path)
    return path


@pytest.mark.parametrize("frames", ["bgr", "rgb", "float", "nv12"])
def test_every_weight_comes_back(frames: str, tmp_path: Path) -> None:
    network = network_of(3)
    card, weights = read_exported(export(network, tmp_path / "model.onnx", frames), network_of(4))
    assert card.system == "acgf"
    expected = network.state_dict()
    assert set(weights) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(weights[name], value, rtol=1e-6, atol=1e-9, err_msg=name)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(network_of(3), tmp_path_factory.mktemp("model") / "model.onnx")


def system(**network: Any) -> Acgf:
    judges = {"discriminator_clean": JUDGE, "discriminator_rain": {"kind": "mixed", **JUDGE}}
    return Acgf(AcgfConfig.model_validate({"network": {**SIZE, **network}, "rfdr": {"width": 4}, **judges}))


def test_a_run_begins_with_an_exported_model(model: Path) -> None:
    begun = system()
    origin = warm_start(begun, model)
    assert set(origin) == {"name", "sha256"}  # nothing of the derainer is new
    for name, value in network_of(3).state_dict().items():
        torch.testing.assert_close(begun.derainer.state_dict()[name], value, rtol=1e-6, atol=1e-9)
    assert warm_start(system(fog_width=6), model)["new"] == "generator"


def test_another_network_is_refused(model: Path) -> None:
    with pytest.raises(CheckpointError, match="weights fit"):
        warm_start(system(extractor_width=24, generator_width=24), model)


def test_only_a_whole_float32_network_will_do(model: Path, tmp_path: Path) -> None:
    network = network_of(3)
    with pytest.raises(ModelFileError, match="the part attention"):
        read_exported(export(network, tmp_path / "part.onnx", part="attention"), network)
    with pytest.raises(ModelFileError, match="float16"):
        read_exported(export(network, tmp_path / "half.onnx", half=True), network)
    with pytest.raises(ModelFileError, match="cannot be opened"):
        read_exported(tmp_path / "none.onnx", network)
    assert read_exported(export(PlainNetwork().eval(), tmp_path / "plain.onnx"), network)[1] == {}


def test_a_damaged_weight_is_told(model: Path, tmp_path: Path) -> None:
    damaged = onnx.load(model)
    first = next(tensor for tensor in damaged.graph.initializer if tensor.name == "network.extractor.stem.weight")
    first.raw_data = first.raw_data[:-4]
    onnx.save(damaged, tmp_path / "damaged.onnx")
    with pytest.raises(ModelFileError, match="damaged"):
        read_exported(tmp_path / "damaged.onnx", network_of(4))
