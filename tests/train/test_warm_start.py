"""A run begins with another run's weights, says what did not fit, and refuses a network that is not nearly the same."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import tiny_recipe

from derain.errors import CheckpointError
from derain.train.checkpoint import load_deployable, read_checkpoint
from derain.train.data.folders import Pictures
from derain.train.machine import Machine
from derain.train.trainer import Trainer

MACHINE = Machine(accelerator="cpu", workers=0, threads=1)
PAIRS_ONLY: dict[str, Any] = {"cycle_from": 1000}


def run(recipe: str, pictures: Pictures, folder: Path, **kwargs: Any) -> Path:
    return Trainer(recipe, pictures, folder, MACHINE, **kwargs).run()


def recipe(steps: int, **network: Any) -> str:
    return tiny_recipe("acgf", steps=steps, validate_every=100, config={**PAIRS_ONLY, "network": network})


SIZE = {"extractor_width": 8, "extractor_stages": 1, "generator_width": 8, "generator_stages": 1, "fog_width": 4}


@pytest.fixture
def first(tiny_pictures: Pictures, tmp_path: Path) -> Path:
    """A checkpoint whose averaged weights differ from the raw ones and from any fresh network's."""
    path = run(recipe(2, **SIZE), tiny_pictures, tmp_path / "first")
    state = read_checkpoint(path)
    state["derainer"]["generator.tail.bias"] += 0.01
    torch.save(state, path)
    return path


def weights_before_any_step(first: Path, pictures: Pictures, folder: Path, **network: Any) -> dict[str, torch.Tensor]:
    """The averaged weights after one step at a rate of nearly zero."""
    still = recipe(1, **{**SIZE, **network}).replace("learning_rate = 0.002", "learning_rate = 1e-12")
    assert "1e-12" in still
    weights: dict[str, torch.Tensor] = read_checkpoint(run(still, pictures, folder, begin_from=first))["derainer"]
    return weights


def test_it_begins_with_the_averaged_weights(first: Path, tiny_pictures: Pictures, tmp_path: Path) -> None:
    before = read_checkpoint(first)["derainer"]
    begun = weights_before_any_step(first, tiny_pictures, tmp_path / "begun")
    for name, value in begun.items():
        torch.testing.assert_close(value, before[name], atol=1e-6, rtol=0)


def test_what_does_not_fit_begins_anew_and_is_named(first: Path, tiny_pictures: Pictures, tmp_path: Path) -> None:
    before = read_checkpoint(first)["derainer"]
    folder = tmp_path / "wider"
    begun = weights_before_any_step(first, tiny_pictures, folder, fog_width=6)
    torch.testing.assert_close(begun["extractor.stem.weight"], before["extractor.stem.weight"], atol=1e-6, rtol=0)
    assert begun["generator.fog.0.weight"].shape[0] == 6
    assert begun["generator.fog.0.weight"].std() > 0
    digest = hashlib.sha256(first.read_bytes()).hexdigest()
    lineage = load_deployable(folder / "last.ckpt")[1].begun_from
    assert lineage == {"name": "tiny", "sha256": digest, "new": "generator"}


def test_another_network_is_refused(first: Path, tiny_pictures: Pictures, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="weights fit"):
        run(
            recipe(1, **{**SIZE, "extractor_width": 16, "generator_width": 16}),
            tiny_pictures,
            tmp_path,
            begin_from=first,
        )
    assert not (tmp_path / "last.ckpt").exists()


def test_a_resumed_run_keeps_its_own_weights(first: Path, tiny_pictures: Pictures, tmp_path: Path) -> None:
    through = run(recipe(4, **SIZE), tiny_pictures, tmp_path / "through", begin_from=first)
    halves = tmp_path / "halves"
    half = Trainer(recipe(4, **SIZE), tiny_pictures, halves, MACHINE, begin_from=first)
    half._asked = True  # as a signal would: stop after this step
    half.run()
    assert read_checkpoint(halves / "last.ckpt")["step"] == 1
    end = run(recipe(4, **SIZE), tiny_pictures, halves, resume=True, begin_from=first)
    whole, resumed = read_checkpoint(through), read_checkpoint(end)
    assert resumed["begun_from"] == whole["begun_from"] != {}
    for name, value in whole["derainer"].items():
        assert torch.equal(value, resumed["derainer"][name])
