"""The loop: exact resumption, schedules, alarms that stop a run, checkpoints that cannot mislead."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from derain.errors import CheckpointError, DataError, TrainingError, UsageError
from derain.train.checkpoint import load_deployable, read_checkpoint
from derain.train.data.folders import Pictures, gather
from derain.train.machine import Machine
from derain.train.optimisers import learning_rate
from derain.train.recipe import OptimizerConfig, parse_recipe
from derain.train.trainer import Trainer

MACHINE = Machine(accelerator="cpu", workers=0, threads=1)


def weights(path: Path) -> dict[str, Any]:
    state = read_checkpoint(path)
    return {"system": state["system"], "derainer": state["derainer"], "optimizers": state["optimizers"]}


def assert_same(a: Any, b: Any, where: str = "") -> None:
    assert type(a) is type(b), where
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_same(a[key], b[key], f"{where}/{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for i, (one, two) in enumerate(zip(a, b, strict=True)):
            assert_same(one, two, f"{where}/{i}")
    else:
        assert a == b, where


@pytest.fixture
def uninterrupted(tiny_recipe: str, tiny_pictures: Pictures, tmp_path: Path) -> Path:
    return Trainer(tiny_recipe, tiny_pictures, tmp_path / "whole", MACHINE).run()


def test_a_run_learns_writes_and_reports(uninterrupted: Path) -> None:
    folder = uninterrupted.parent
    assert (folder / "log.jsonl").read_text().count("\n") == 2
    assert list((folder / "strips").glob("*.png"))
    assert list((folder / "tensorboard").iterdir())
    derainer, info = load_deployable(uninterrupted)
    assert (info.name, info.system, info.variant, info.step, info.seed) == ("tiny", "acgf", "edge", 12, 3)
    assert info.quality[0]["images"] == 1
    assert not derainer.training


def test_without_a_terminal_the_log_is_whole_lines(
    tiny_recipe: str, tiny_folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    careless = gather([], [tiny_folders / "clean"], [tiny_folders / "pairs"], tiny_folders / "split.json")
    careless.pairs.append(careless.held_out[0])
    recipe = tiny_recipe.replace("steps = 12", "steps = 1")
    Trainer(recipe, careless, tmp_path / "log", MACHINE).run()
    lines = capsys.readouterr().err.splitlines()
    warning, result = (next(line for line in lines if word in line) for word in ("Warning", "PSNR"))
    assert re.match(r"\d\d:\d\d:\d\d  Warning: 1 held-out scenes are trained on: .*0\.png", warning)
    assert re.match(r"\d\d:\d\d:\d\d  step 1: PSNR [\d.]+ dB \(input [\d.]+\), SSIM [\d.]+$", result)
    assert not any("━" in line for line in lines), "no progress bar in a file"


def test_resuming_after_an_interruption_is_exact(
    uninterrupted: Path, tiny_recipe: str, tiny_pictures: Pictures, tmp_path: Path
) -> None:
    folder = tmp_path / "parts"
    first = Trainer(tiny_recipe, tiny_pictures, folder, MACHINE)
    first_step = first._train_step

    def interrupt_at_seven(batch: Any) -> dict[str, float]:
        if first._step == 6:
            os.kill(os.getpid(), signal.SIGTERM)
        return first_step(batch)

    first._train_step = interrupt_at_seven  # type: ignore[method-assign]
    path = first.run()
    assert first.stopped_early
    assert read_checkpoint(path)["step"] == 7

    Trainer(tiny_recipe, tiny_pictures, folder, MACHINE, resume=True).run()
    assert_same(weights(path), weights(uninterrupted))


def test_resuming_after_sigkill_is_exact(
    uninterrupted: Path, tiny_recipe: str, tiny_folders: Path, tiny_pictures: Pictures, tmp_path: Path
) -> None:
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(tiny_recipe)
    folder = tmp_path / "killed"
    command = [sys.executable, "-m", "derain", "train", str(recipe), "--out", str(folder), "--device", "cpu"]
    command += ["--rainy", str(tiny_folders / "rainy"), "--clean", str(tiny_folders / "clean"), "--workers", "0"]
    command += ["--pairs", str(tiny_folders / "pairs"), "--split", str(tiny_folders / "split.json"), "--threads", "1"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 600
        while not (folder / "last.ckpt").exists() and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.005)
        process.kill()
        _, errors = process.communicate()
    assert (folder / "last.ckpt").exists(), errors
    assert read_checkpoint(folder / "last.ckpt")["step"] in (3, 6, 9, 12)

    Trainer(tiny_recipe, tiny_pictures, folder, MACHINE, resume=True).run()
    assert_same(weights(folder / "last.ckpt"), weights(uninterrupted))


def test_an_existing_run_is_not_overwritten(uninterrupted: Path, tiny_recipe: str, tiny_pictures: Pictures) -> None:
    with pytest.raises(CheckpointError, match=r"exists already.*--resume"):
        Trainer(tiny_recipe, tiny_pictures, uninterrupted.parent, MACHINE).run()


def test_a_changed_recipe_does_not_resume(uninterrupted: Path, tiny_recipe: str, tiny_pictures: Pictures) -> None:
    changed = tiny_recipe.replace("learning_rate = 2e-3", "learning_rate = 1e-3")
    with pytest.raises(CheckpointError, match="another recipe"):
        Trainer(changed, tiny_pictures, uninterrupted.parent, MACHINE, resume=True).run()


def test_weights_of_another_network_are_refused(uninterrupted: Path, tmp_path: Path) -> None:
    state = read_checkpoint(uninterrupted)
    state["recipe"] = state["recipe"].replace("generator_width = 8", "generator_width = 16")
    torch.save(state, tmp_path / "other.ckpt")
    with pytest.raises(CheckpointError, match="do not fit the network"):
        load_deployable(tmp_path / "other.ckpt")


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 cut off"])
def test_a_damaged_checkpoint_is_one_clear_error(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "bad.ckpt"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"bad\.ckpt"):
        load_deployable(path)


def test_a_checkpoint_cannot_run_code(tmp_path: Path) -> None:
    path = tmp_path / "hostile.ckpt"
    flag = tmp_path / "ran"

    class Hostile:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (flag,))

    torch.save({"format": 1, "recipe": Hostile()}, path)
    with pytest.raises(CheckpointError):
        load_deployable(path)
    assert not flag.exists()


def test_a_newer_checkpoint_is_refused(uninterrupted: Path, tmp_path: Path) -> None:
    state = read_checkpoint(uninterrupted)
    torch.save({**state, "format": 99}, tmp_path / "new.ckpt")
    with pytest.raises(CheckpointError, match="format 99"):
        read_checkpoint(tmp_path / "new.ckpt")


def test_not_a_number_stops_the_run_and_keeps_the_checkpoint(
    tiny_recipe: str, tiny_pictures: Pictures, tmp_path: Path
) -> None:
    trainer = Trainer(tiny_recipe.replace("2e-3", "1e-3"), tiny_pictures, tmp_path / "nan", MACHINE)
    plain = trainer._train_step

    def poison(batch: Any) -> dict[str, float]:
        if trainer._step == 4:
            with torch.no_grad():
                next(trainer.system.derainer.parameters()).fill_(float("nan"))
        return plain(batch)

    trainer._train_step = poison  # type: ignore[method-assign]
    with pytest.raises(TrainingError, match="is nan at step 4"):
        trainer.run()
    kept = read_checkpoint(tmp_path / "nan" / "last.ckpt")
    assert kept["step"] == 3
    assert all(torch.isfinite(value).all() for value in kept["derainer"].values())


def test_the_schedule_warms_up_holds_and_falls() -> None:
    config = OptimizerConfig(learning_rate=1.0, warmup=10, schedule="cosine", hold=0.5, final=0.1)
    assert learning_rate(config, 1.0, 0, 100) == pytest.approx(0.1)
    assert learning_rate(config, 1.0, 10, 100) == pytest.approx(1.0)
    assert learning_rate(config, 1.0, 50, 100) == pytest.approx(1.0)
    assert learning_rate(config, 1.0, 75, 100) == pytest.approx(0.55)
    assert learning_rate(config, 1.0, 100, 100) == pytest.approx(0.1)
    linear = OptimizerConfig(warmup=0, schedule="linear", final=0.0)
    assert learning_rate(linear, 2.0, 25, 100) == pytest.approx(1.5)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seed = 3", "sead = 3", "sead"),
        ("pool = 3", "poool = 3", "poool"),
        ("steps = 12", "steps = 0", "steps"),
        ('system = "acgf"', 'system = "agcf"', "agcf.*one of"),
        ("crop = 32", "crop = 33", "crop"),
        ("seed = 3", "seed = = 3", "not TOML"),
    ],
)
def test_a_wrong_recipe_names_the_key(old: str, new: str, message: str, tiny_recipe: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_recipe(tiny_recipe.replace(old, new, 1), "tiny")


def test_nothing_to_learn_from_is_said(tiny_recipe: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="takes no crops"):
        Trainer(tiny_recipe, Pictures(), tmp_path / "empty", MACHINE).run()
