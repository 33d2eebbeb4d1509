"""Two processes that share a batch end where one process with the whole batch ends."""

from __future__ import annotations

import multiprocessing
import os
import socket
import time
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import CONFIGS, tiny_recipe

from derain.errors import UsageError
from derain.train import parallel
from derain.train.checkpoint import read_checkpoint
from derain.train.data.folders import gather
from derain.train.machine import Machine
from derain.train.pool import ImagePool
from derain.train.systems.base import StepContext
from derain.train.trainer import Trainer

TOLERANCE = 1e-9


def train(recipe: str, data: str, out: str, rank: int, world: int, port: int) -> None:
    """One process of a run; the environment is what torchrun would set."""
    torch.set_num_threads(1)
    if world > 1:
        os.environ.update(
            RANK=str(rank),
            LOCAL_RANK=str(rank),
            GROUP_RANK="0",
            WORLD_SIZE=str(world),
            LOCAL_WORLD_SIZE=str(world),
            MASTER_ADDR="127.0.0.1",
            MASTER_PORT=str(port),
            TORCHELASTIC_RUN_ID="test",
        )
    folder = Path(data)
    pictures = gather([folder / "rainy"], [folder / "clean"], [folder / "pairs"])
    machine = Machine(accelerator="cpu", precision="64-true", workers=0, threads=1)
    Trainer(recipe, pictures, Path(out), machine).run()


def start(recipe: str, data: Path, out: Path, world: int) -> list[BaseProcess]:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["derain.train.trainer", "derain.train.systems"])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = [
        context.Process(target=train, args=(recipe, str(data), str(out), rank, world, port)) for rank in range(world)
    ]
    for process in started:
        process.start()
    return list(started)


def finish(started: list[BaseProcess], out: Path) -> dict[str, Any]:
    for process in started:
        process.join()
    assert [process.exitcode for process in started] == [0] * len(started)
    return read_checkpoint(out / "last.ckpt")


def run(recipe: str, data: Path, out: Path, world: int) -> dict[str, Any]:
    return finish(start(recipe, data, out, world), out)


def largest_difference(a: Any, b: Any, where: str = "") -> tuple[float, str]:
    if isinstance(a, torch.Tensor):
        return (float((a.double() - b.double()).abs().max()) if a.numel() else 0.0), where
    if isinstance(a, dict):
        assert a.keys() == b.keys(), where
        return max([largest_difference(a[key], b[key], f"{where}/{key}") for key in a], default=(0.0, where))
    if isinstance(a, list | tuple):
        assert len(a) == len(b), where
        pairs = enumerate(zip(a, b, strict=True))
        return max([largest_difference(one, two, f"{where}/{i}") for i, (one, two) in pairs], default=(0.0, where))
    assert a == b, where
    return 0.0, where


@pytest.mark.parametrize("system", list(CONFIGS))
def test_two_processes_follow_one(system: str, tiny_folders: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(system, validate_every=100, checkpoint_every=100)
    one, two = (run(recipe, tiny_folders, tmp_path / str(world), world) for world in (1, 2))
    assert one["step"] == two["step"] == 10
    assert any(value.dtype == torch.float64 for value in one["system"].values())
    for part in ("system", "derainer", "optimizers"):
        difference, where = largest_difference(one[part], two[part])
        assert difference < TOLERANCE, f"{part}{where} differs by {difference}"


def test_all_processes_stop_when_one_is_asked_to(tiny_folders: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe("remaen", steps=100_000, validate_every=100_000, checkpoint_every=5)
    started = start(recipe, tiny_folders, tmp_path, 2)
    deadline = time.monotonic() + 120
    while not (tmp_path / "last.ckpt").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    started[1].terminate()
    assert 5 <= finish(started, tmp_path)["step"] < 100_000


def test_another_number_than_that_of_torchrun_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"TORCHELASTIC_RUN_ID": "test", "LOCAL_WORLD_SIZE": "2", "WORLD_SIZE": "4"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match="started 2 processes on this machine, and --devices says 3"):
        Machine("cpu", devices=3).launch()


def pretend(monkeypatch: pytest.MonkeyPatch, rank: int, count: int) -> None:
    monkeypatch.setattr(parallel, "world", lambda: (rank, count))


def test_noise_is_drawn_for_the_whole_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = StepContext(0, torch.Generator().manual_seed(1), lambda group, loss: None).randn(4, 3, 2)
    parts = []
    for rank in range(2):
        pretend(monkeypatch, rank, 2)
        context = StepContext(0, torch.Generator().manual_seed(1), lambda group, loss: None)
        parts.append(context.randn(2, 3, 2))
        after = torch.rand(1, generator=context.generator)
    assert torch.equal(whole, torch.cat(parts))
    generator = torch.Generator().manual_seed(1)
    torch.randn(4, 3, 2, generator=generator)
    assert torch.equal(after, torch.rand(1, generator=generator)), "later draws must stay in step"


def test_a_pool_is_indexed_globally(monkeypatch: pytest.MonkeyPatch) -> None:
    rounds = [torch.full((4, 1, 1, 1), float(i)) + torch.arange(4).view(4, 1, 1, 1) / 10 for i in range(6)]
    whole = ImagePool(5, (1, 1, 1))
    expected = [whole.exchange(fakes, torch.Generator().manual_seed(i)) for i, fakes in enumerate(rounds)]
    assert not torch.equal(expected[-1], rounds[-1])
    for rank in range(2):
        pretend(monkeypatch, rank, 2)
        pool = ImagePool(5, (1, 1, 1))
        for i, fakes in enumerate(rounds):
            monkeypatch.setattr("derain.train.pool.gather", lambda rows, fakes=fakes: fakes)
            own = pool.exchange(fakes[2 * rank : 2 * rank + 2], torch.Generator().manual_seed(i))
            assert torch.equal(own, expected[i][2 * rank : 2 * rank + 2])
        assert torch.equal(pool.images, whole.images)
