"""The tiny model, its layers and its ranges, made once."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from tiny_model import scene, tiny_card, tiny_model

from derain.calibration.layers import Layers, find_layers, tensors_of
from derain.calibration.ranges import Ranges, collect
from derain.calibration.session import feed_of


@pytest.fixture(scope="session")
def tiny() -> onnx.ModelProto:
    return tiny_model()


@pytest.fixture(scope="session")
def layers(tiny: onnx.ModelProto) -> Layers:
    return find_layers(tiny, "tiny")


@pytest.fixture(scope="session")
def ranges(tiny: onnx.ModelProto, layers: Layers) -> Ranges:
    card = tiny_card()
    frames = [scene(seed)[0] for seed in range(4)]
    return collect(tiny, tensors_of(tiny, layers), lambda: (feed_of(card, frame) for frame in frames), "minmax")


@pytest.fixture
def tiny_file(tiny: onnx.ModelProto, tmp_path: Path) -> Path:
    path = tmp_path / "tiny.onnx"
    path.write_bytes(tiny.SerializeToString())
    return path
