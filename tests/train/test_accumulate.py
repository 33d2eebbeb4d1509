"""Gradients of several batches make the step of one large batch; who makes the batches does not matter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_parallel import largest_difference
from test_trainer import assert_same
from tiny import tiny_recipe

from derain.images import write_image
from derain.train.checkpoint import read_checkpoint
from derain.train.data.cache import PictureCache
from derain.train.data.folders import Pictures
from derain.train.machine import Machine
from derain.train.systems.base import Batch, Crops
from derain.train.trainer import Trainer

DOUBLE = Machine(accelerator="cpu", precision="64-true", workers=0, threads=1)


def joined(parts: list[Batch]) -> Batch:
    """Several batches of pairs as one."""
    paired = [part.paired for part in parts if part.paired is not None]
    truth = [part.truth for part in parts if part.truth is not None]
    crops = Crops(torch.cat([p.picture for p in paired]), torch.cat([p.thumb for p in paired]))
    return Batch(crops, torch.cat(truth))


def test_accumulated_steps_equal_steps_on_large_batches(tiny_pictures: Pictures, tmp_path: Path) -> None:
    shared: dict[str, Any] = {"steps": 4, "validate_every": 100, "checkpoint_every": 100}
    parts = Trainer(tiny_recipe("remaen", **shared, optimizer={"accumulate": 2}), tiny_pictures, tmp_path / "2", DOUBLE)
    given: list[Batch] = []
    plain = parts._train_step

    def remember(batches: list[Batch]) -> dict[str, float]:
        assert len(batches) == 2
        given.append(joined(batches))
        return plain(batches)

    parts._train_step = remember  # type: ignore[method-assign]
    accumulated = read_checkpoint(parts.run())
    assert accumulated["step"] == len(given) == 4

    whole = Trainer(tiny_recipe("remaen", **shared), tiny_pictures, tmp_path / "1", DOUBLE)
    large_batches, step = iter(given), whole._train_step
    large_batches, step = iter(given), whole._train_step

    def large(_: list[Batch]) -> dict[str, float]:
        return step([next(large_batches)])

    whole._train_step = large  # type: ignore[method-assign]
    once = read_checkpoint(whole.run())
    difference, where = largest_difference(accumulated["system"], once["system"])
    assert difference < 1e-9, where
    assert accumulated["alarms"]["squared"] == pytest.approx(once["alarms"]["squared"], rel=1e-5)


def test_an_accumulating_run_resumes_exactly(tiny_pictures: Pictures, tmp_path: Path) -> None:
    machine = Machine(accelerator="cpu", workers=0, threads=1)
    recipe = tiny_recipe("acgf", steps=6, optimizer={"accumulate": 2})
    whole = Trainer(recipe, tiny_pictures, tmp_path / "whole", machine).run()
    first = Trainer(recipe, tiny_pictures, tmp_path / "parts", machine)
    plain = first._train_step

    def stop_at_three(batches: list[Batch]) -> dict[str, float]:
        first._asked = first._step == 2
        return plain(batches)

    first._train_step = stop_at_three  # type: ignore[method-assign]
    path = first.run()
    assert read_checkpoint(path)["step"] == 3
    Trainer(recipe, tiny_pictures, tmp_path / "parts", machine, resume=True).run()
    one, other = ({**read_checkpoint(file), "minutes": 0.0} for file in (path, whole))
    assert_same(one, other)


def test_two_workers_make_the_batches_that_none_would(tiny_pictures: Pictures, tmp_path: Path) -> None:
    recipe = tiny_recipe("acgf", steps=6)
    runs = [
        Trainer(recipe, tiny_pictures, tmp_path / str(n), Machine(accelerator="cpu", workers=n, threads=1)).run()
        for n in (0, 2)
    ]
    one, other = ({**read_checkpoint(path), "minutes": 0.0} for path in runs)
    assert_same(one, other)


def test_a_cache_never_holds_more_than_its_limit(tmp_path: Path) -> None:
    paths = [tmp_path / f"{i}.png" for i in range(5)]
    for i, path in enumerate(paths):
        write_image(path, np.full((20, 30, 3), i, np.uint8))
    size = 20 * 30 * 3
    cache = PictureCache(3 * size)
    for path in [*paths, paths[0], *paths]:
        assert cache(path)[0, 0, 0] == int(path.stem)
        assert cache.held_bytes <= 3 * size
    assert cache.held_bytes == 3 * size
    kept = cache(paths[4])
    assert cache(paths[4]) is kept, "a picture in use lately is not read again"
    with pytest.raises(ValueError, match="read-only"):
        kept[0, 0, 0] = 9
    nothing = PictureCache(size - 1)
    assert nothing(paths[1])[0, 0, 0] == 1
    assert nothing.held_bytes == 0
