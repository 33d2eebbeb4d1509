"""Scenes with nothing in them: what they look like, and where batches hold them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch

from derain.images import write_image
from derain.train.data.batches import BatchConfig, StepBatches
from derain.train.data.folders import gather
from derain.train.data.plain import plain_scene
from derain.train.systems.base import Needs


def photograph(height: int = 48, width: int = 64) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (height, width, 3), np.uint8)


def test_they_are_smooth_but_for_grain_and_of_every_level() -> None:
    rng = np.random.default_rng(1)
    scenes = [plain_scene(48, 64, rng) for _ in range(200)]
    assert {(scene.shape, scene.dtype.name) for scene in scenes} == {((48, 64, 3), "uint8")}
    detail = [np.abs(scene.astype(float) - cv2.GaussianBlur(scene, (0, 0), 3)).mean() for scene in scenes]
    assert max(detail) < 12 < np.abs(photograph().astype(float) - cv2.GaussianBlur(photograph(), (0, 0), 3)).mean()
    assert np.median(detail) < 2
    means = [float(scene.mean()) for scene in scenes]
    assert min(means) < 30
    assert max(means) > 220
    assert any(int(np.ptp(scene)) <= 3 for scene in scenes)


def test_the_same_seed_makes_the_same() -> None:
    first, again, other = (plain_scene(48, 64, np.random.default_rng(seed)) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def batch_of(tmp_path: Path, kind: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Rainy and clean crops of one kind, every scene plain where that may be."""
    scene = photograph(64, 64)
    streaks = np.zeros((64, 64, 1), np.uint8)
    streaks[:, ::9] = 60
    write_image(tmp_path / "pairs/rainy/1.png", cv2.add(scene // 2, np.repeat(streaks, 3, axis=2)))
    write_image(tmp_path / "pairs/clean/1.png", scene // 2)
    write_image(tmp_path / "clean/1.png", scene)
    pictures = gather((), (tmp_path / "clean",), (tmp_path / "pairs",), None)
    shares = {"pairs": 0.0, "synthetic": 0.0, "dry": 0.0, "recombined": 0.0} | {kind: 1.0}
    config = BatchConfig(batch=8, crop=32, crops_per_picture=1, plain=1, **shares)  # type: ignore[arg-type]
    batch = StepBatches(pictures, config, 1, 5, lambda step: Needs(True, False))[0]
    assert batch.paired is not None
    assert batch.truth is not None
    return batch.paired.picture, batch.truth


def test_dry_crops_are_of_plain_scenes_and_others_are_not(tmp_path: Path) -> None:
    def detail(pictures: torch.Tensor) -> float:
        return float((pictures[..., 1:] - pictures[..., :-1]).abs().mean()) * 255

    rainy, truth = batch_of(tmp_path / "dry", "dry")
    assert torch.equal(rainy, truth)
    assert detail(truth) < 6
    for kind in ("pairs", "synthetic", "recombined"):
        assert detail(batch_of(tmp_path / kind, kind)[1]) > 15
