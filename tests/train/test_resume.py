"""Every registered system, killed with SIGKILL and resumed, ends exactly where an undisturbed run ends."""

from __future__ import annotations

import multiprocessing
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_trainer import assert_same
from tiny import CONFIGS, tiny_recipe

from derain.train.checkpoint import read_checkpoint
from derain.train.data.folders import gather
from derain.train.machine import Machine
from derain.train.systems.base import _REGISTRY
from derain.train.trainer import Trainer


def train(recipe: str, data: str, out: str, resume: bool) -> None:
    torch.set_num_threads(1)
    folder = Path(data)
    pictures = gather([folder / "rainy"], [folder / "clean"], [folder / "pairs"], folder / "split.json")
    machine = Machine(accelerator="cpu", workers=0, threads=1)
    Trainer(recipe, pictures, Path(out), machine, resume=resume).run()


def all_of(checkpoint: Path) -> dict[str, Any]:
    state = read_checkpoint(checkpoint)
    return {key: value for key, value in state.items() if key != "minutes"}


def step_of(checkpoint: Path) -> int:
    """0 before there is one. A checkpoint is replaced in one move, so whatever is there can be read."""
    return int(read_checkpoint(checkpoint)["step"]) if checkpoint.exists() else 0


def test_every_registered_system_is_in_the_table() -> None:
    assert set(CONFIGS) == set(_REGISTRY)


@pytest.mark.parametrize("system", list(CONFIGS))
def test_killed_twice_and_resumed_is_as_if_nothing_had_happened(
    system: str, tiny_folders: Path, tmp_path: Path
) -> None:
    # Pools fill and swap, the cycle sets in, the rates fall, and validation and checkpoints come between.
    recipe = tiny_recipe(system, steps=14, checkpoint_every=2, validate_every=5)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["derain.train.trainer", "derain.train.systems"])
    killed = tmp_path / "killed"
    rng = np.random.default_rng(len(system))
    for least in (2, 6):
        process = context.Process(target=train, args=(recipe, str(tiny_folders), str(killed), least > 2))
        process.start()
        deadline = time.monotonic() + 120
        while step_of(killed / "last.ckpt") < least and process.is_alive() and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(float(rng.uniform(0, 0.05)))
        process.kill()
        process.join()
        assert step_of(killed / "last.ckpt") >= least
    train(recipe, str(tiny_folders), str(killed), True)
    train(recipe, str(tiny_folders), str(tmp_path / "whole"), False)
    assert_same(all_of(killed / "last.ckpt"), all_of(tmp_path / "whole" / "last.ckpt"))
