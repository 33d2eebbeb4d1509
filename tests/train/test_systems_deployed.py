"""From a checkpoint to frames: what every system hands out exports, describes itself, and runs in ONNX Runtime."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tiny_systems import TINY, build, pictures, rain_on, save, scramble
from typer.testing import CliRunner

import derain
from derain.card import read_card
from derain.cli import app
from derain.train.checkpoint import load_deployable
from derain.train.evaluation import run_module

# DCD-GAN's published network beside the edge sizes: it is the one with InstanceNorm.
NAMES = [name for name in TINY if name.endswith("edge")] + ["dcd-gan full"]
QUICK = ("derain-cyclegan edge", "remaen edge")  # a learned map, and one of the removed rain; each takes 7 seconds
CASES = [pytest.param(name, marks=() if name in QUICK else pytest.mark.full) for name in NAMES]


def command(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.mark.parametrize("name", CASES)
def test_a_checkpoint_exports_and_its_file_derains_as_pytorch_does(name: str, tmp_path: Path) -> None:
    system = build(name)
    scramble(system.derainer, 0.05)
    checkpoint, path = save(system, name, tmp_path / "last.ckpt"), tmp_path / "model.onnx"
    command("export", checkpoint, "-o", path, "--max", "96x96")
    card = read_card(path)
    spec = system.derainer.spec
    assert (card.system, card.variant, card.training and card.training.steps) == (spec.system, spec.variant, 1)
    assert (card.attention, card.geometry.tiling) == (spec.attention, spec.tiling)
    assert (card.attention == "removed_rain") == (card.system in ("dcd-gan", "remaen")), "no extractor of its own"
    assert name != "dcd-gan full" or "InstanceNorm" in card.geometry.tiling_reason
    assert json.loads(command("inspect", path, "--json"))["card"]["name"] == card.name

    frame = np.ascontiguousarray(rain_on(pictures(1, 3, 80), 4)[0, :, :70].permute(1, 2, 0).numpy()[:, :, ::-1] * 255)
    frame = frame.astype(np.uint8)
    wanted, wanted_map = run_module(load_deployable(checkpoint)[0], frame)
    with derain.load(path, backend="onnxruntime") as model:
        got, got_map = model(frame, attention=True)
    assert got.shape == frame.shape == (70, 80, 3)
    assert np.abs(got.astype(int) - wanted).max() <= 1
    assert np.abs(got_map - wanted_map).max() < 2e-3
    assert np.abs(got.astype(int) - frame).mean() > 0.5, "scrambled weights change the picture"
    assert got_map.std() > 0
