"""Rain layers are told from fog, and put on other scenes as they were."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from derain.images import write_image
from derain.train.data.batches import BatchConfig, StepBatches
from derain.train.data.folders import gather
from derain.train.data.recombine import rain_layer, recombine
from derain.train.systems.base import Needs

Pixels = NDArray[np.uint8]


def scene(seed: int, height: int = 48, width: int = 64, low: int = 30, high: int = 120) -> Pixels:
    return np.random.default_rng(seed).integers(low, high, (height, width, 3), dtype=np.uint8)


def streaks(height: int = 48, width: int = 64) -> Pixels:
    layer = np.zeros((height, width), dtype=np.uint8)
    layer[:, 5::11] = 90
    layer[:, 6::11] = 40
    return layer


def added(clean: Pixels, layer: Pixels) -> Pixels:
    return np.minimum(clean.astype(int) + layer[:, :, None], 255).astype(np.uint8)


def test_an_added_layer_is_found_to_the_level() -> None:
    clean = scene(1)
    found = rain_layer(added(clean, streaks()), clean)
    assert found is not None
    np.testing.assert_array_equal(found, streaks())


def test_where_one_channel_saturates_the_others_tell() -> None:
    clean = scene(1)
    clean[:, :, 0] = 250
    found = rain_layer(added(clean, streaks()), clean)
    assert found is not None
    np.testing.assert_array_equal(found, streaks())


def test_fog_and_colour_are_no_layer() -> None:
    clean = scene(1, low=0, high=255)
    foggy = (clean * 0.5 + 100).astype(np.uint8)
    assert rain_layer(foggy, clean) is None  # darkens what is bright
    tinted = added(clean, streaks())
    tinted[:, :, 2] = np.minimum(clean[:, :, 2].astype(int) + 30, 255)
    assert rain_layer(tinted, clean) is None


def test_rain_falls_on_the_other_scene() -> None:
    layer, other = streaks(40, 64), scene(2, 48, 50)
    rainy, clean = recombine(layer, other, np.random.default_rng(3))
    assert rainy.shape == clean.shape == (40, 50, 3)
    rise = rainy.astype(int) - clean
    assert (rise == rise[:, :, :1]).all()
    covered = (rise[:, :, 0] > 0).mean(axis=0)
    assert set(covered) == {0.0, 1.0}  # upright streaks stay upright
    assert 0.8 * 90 - 1 <= rise.max() <= 1.2 * 90 + 1
    rows = {tuple(row.ravel()) for row in other[:, :50]}
    assert all(tuple(row.ravel()) in rows for row in clean)  # a cut of the scene


def test_two_draws_differ_and_one_repeats() -> None:
    makes = [recombine(streaks(), scene(2, 60, 80), np.random.default_rng(seed))[0] for seed in (1, 1, 2)]
    np.testing.assert_array_equal(makes[0], makes[1])
    assert not np.array_equal(makes[0], makes[2])


@pytest.mark.parametrize("foggy", [False, True])
def test_batches_hold_new_combinations_or_the_pair(tmp_path: Path, foggy: bool) -> None:
    """One pair of added streaks on dark scenes, one bright clean picture to rain on; a foggy pair stays a pair."""
    pair = scene(4, 64, 64)
    rained = (pair * 0.5 + 100).astype(np.uint8) if foggy else added(pair, streaks(64, 64))
    write_image(tmp_path / "pairs/rainy/1.png", rained)
    write_image(tmp_path / "pairs/clean/1.png", pair)
    write_image(tmp_path / "clean/1.png", scene(5, 64, 64, low=140, high=150))
    pictures = gather((), (tmp_path / "clean",), (tmp_path / "pairs",), None)
    config = BatchConfig(batch=4, crop=32, crops_per_picture=2, pairs=0, synthetic=0, dry=0, recombined=1)
    batch = StepBatches(pictures, config, 1, 5, lambda step: Needs(True, False))[0]
    assert batch.paired is not None
    assert batch.truth is not None
    of_the_pair = bool((batch.truth < 130 / 255).all())
    assert of_the_pair is foggy
    if not foggy:
        rise = batch.paired.picture - batch.truth
        assert torch.isclose(rise, rise[:, :1], atol=1e-6).all()
        assert float(rise.max()) > 0.2
