"""The training loop: one for every system, on a CPU, one GPU or several.

A step depends on the recipe, the seed and the step's number alone, and a checkpoint holds the rest, so a run that is
killed and resumed ends with exactly the weights of one that was not.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from derain.errors import CheckpointError
from derain.train.alarms import Alarms
from derain.train.checkpoint import load_weights, read_checkpoint, save_checkpoint
from derain.train.data.batches import StepBatches, seed_worker
from derain.train.data.folders import Pictures
from derain.train.journal import Journal
from derain.train.recipe import OptimizerConfig, Recipe, parse_recipe
from derain.train.systems import find_system
from derain.train.systems.base import Batch, StepContext, System
from derain.train.validation import Validation

CHECKPOINT_NAME = "last.ckpt"


@dataclass(frozen=True)
class Machine:
    """Where and how to run; none of it belongs to the recipe.

    Attributes:
        precision: ``bf16-mixed`` is two to four times faster on CPUs with AMX and on GPUs since Ampere.
        workers: processes that make batches; 0 makes them in the training process.
    """

    accelerator: str = "auto"
    devices: int = 1
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    threads: int | None = None
    workers: int = 1


def learning_rate(config: OptimizerConfig, base: float, step: int, steps: int) -> float:
    """The rate at ``step``: linear warm-up, then held, then cosine or linear down to ``final * base``."""
    if step < config.warmup:
        return base * (step + 1) / config.warmup
    if config.schedule == "constant":
        return base
    start = max(config.warmup, int(config.hold * steps))
    done = min(1.0, max(0.0, (step - start) / max(1, steps - start)))
    shape = 0.5 * (1 + math.cos(math.pi * done)) if config.schedule == "cosine" else 1 - done
    return base * (config.final + (1 - config.final) * shape)


class Trainer:
    """Trains one recipe into one folder.

    Raises:
        CheckpointError: the folder's checkpoint cannot be resumed, or exists and ``resume`` is off.
    """

    def __init__(
        self, recipe_toml: str, pictures: Pictures, folder: Path, machine: Machine, *, resume: bool = False
    ) -> None:
        self.recipe: Recipe = parse_recipe(recipe_toml, "the recipe")
        self._toml = recipe_toml
        self._pictures = pictures
        self._folder = folder
        self._machine = machine
        self._resume = resume
        self._stop = False
        self._step = 0
        self._minutes = 0.0
        self._quality: list[dict[str, Any]] = []
        self._alarms = Alarms()
        # Subnormal numbers made one run 15 times slower on a CPU.
        torch.set_flush_denormal(True)
        if machine.threads:
            torch.set_num_threads(machine.threads)

    @property
    def checkpoint(self) -> Path:
        return self._folder / CHECKPOINT_NAME

    def run(self) -> Path:
        """Train to the recipe's last step, or to an interruption; return the checkpoint.

        Ctrl-C and SIGTERM finish the step, write the checkpoint and stop.

        Raises:
            TrainingError: an alarm; the last checkpoint stays as it was.
        """
        machine = self._machine
        self.fabric = Fabric(accelerator=machine.accelerator, devices=machine.devices, precision=machine.precision)
        self.fabric.launch()
        self.fabric.seed_everything(self.recipe.seed, verbose=False)
        self._build()
        if self.checkpoint.exists():
            if not self._resume:
                raise CheckpointError(
                    f"'{self.checkpoint}' exists already", fix="Go on with --resume, or choose another --out folder"
                )
            self._restore()
        batches = self._loader()
        with Journal(self._folder, self.recipe, self.fabric.is_global_zero, self._step) as journal, self._signals():
            validation = Validation(self._pictures)
            began = time.monotonic()
            before = self._minutes
            for batch in batches:
                losses = self._train_step(batch)
                self._step += 1
                self._minutes = before + (time.monotonic() - began) / 60
                journal.step(self._step, losses, self._rates())
                last = self._step == self.recipe.steps
                if self._step % self.recipe.validate_every == 0 or last:
                    report = validation.run(self.averaged, self.fabric.device, final=last)
                    journal.validation(self._step, self._minutes, report)
                    self._alarms.check_pictures(self._step, report.change, report.drift)
                    self._quality = report.quality
                if self._step % self.recipe.checkpoint_every == 0 or last or self._stop:
                    self._save()
                if self._stop:
                    journal.message(f"Stopped at step {self._step}. Go on with --resume.")
                    break
        return self.checkpoint

    @property
    def averaged(self) -> nn.Module:
        module: nn.Module = self._ema.module
        return module

    @property
    def stopped_early(self) -> bool:
        return self._step < self.recipe.steps

    def _build(self) -> None:
        optimizer = self.recipe.optimizer
        system_type = find_system(self.recipe.system)
        system: System = system_type(self.recipe.system_config())
        self.system = system.to(self.fabric.device)
        self.system.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch takes it, its stub does not
        average = get_ema_multi_avg_fn(optimizer.ema)  # type: ignore[no-untyped-call]
        self._ema = AveragedModel(self.system.derainer, multi_avg_fn=average)
        self._ema.eval()
        self._optimizers: dict[str, torch.optim.Adam] = {}
        self._base_rates: dict[str, float] = {}
        for name, parameters in self.system.parameter_groups().items():
            judge = name == "discriminator"
            self._base_rates[name] = optimizer.discriminator_learning_rate if judge else optimizer.learning_rate
            self._optimizers[name] = torch.optim.Adam(
                parameters,
                lr=self._base_rates[name],
                betas=optimizer.discriminator_betas if judge else optimizer.betas,
                weight_decay=optimizer.weight_decay,
                fused=True,
            )

    def _loader(self) -> Iterator[Batch]:
        dataset = StepBatches(
            self._pictures,
            self.recipe.data,
            self.recipe.seed,
            self.recipe.steps,
            self.system.needs,
            rank=self.fabric.global_rank,
            world=self.fabric.world_size,
        )
        workers = self._machine.workers
        return iter(
            DataLoader(
                dataset,
                batch_size=None,
                sampler=range(self._step, self.recipe.steps),
                num_workers=workers,
                prefetch_factor=4 if workers else None,
                worker_init_fn=seed_worker,
                pin_memory=self.fabric.device.type == "cuda",
            )
        )

    def _train_step(self, batch: Batch) -> dict[str, float]:
        for name, optimizer in self._optimizers.items():
            rate = learning_rate(self.recipe.optimizer, self._base_rates[name], self._step, self.recipe.steps)
            for group in optimizer.param_groups:
                group["lr"] = rate
        generator = torch.Generator().manual_seed(self.recipe.seed * 1_000_003 + self._step)
        context = StepContext(self._step, generator, self._optimise)
        with self.fabric.autocast():
            losses = self.system.training_step(batch.to(self.fabric.device), context)
        self._ema.update_parameters(self.system.derainer)
        # One transfer for all the numbers of the step.
        values = torch.stack([value.float() for value in losses.values()]).tolist()
        named = dict(zip(losses, values, strict=True))
        self._alarms.check_losses(self._step, named)
        return named

    def _optimise(self, group: str, loss: Tensor) -> None:
        optimizer = self._optimizers[group]
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        parameters = [p for g in optimizer.param_groups for p in g["params"] if p.grad is not None]
        if self.fabric.world_size > 1:
            for parameter in parameters:
                parameter.grad = self.fabric.all_reduce(parameter.grad, reduce_op="mean")
        nn.utils.clip_grad_norm_(parameters, self.recipe.optimizer.clip)
        optimizer.step()

    def _rates(self) -> dict[str, float]:
        return {name: optimizer.param_groups[0]["lr"] for name, optimizer in self._optimizers.items()}

    def _save(self) -> None:
        if not self.fabric.is_global_zero:
            return
        save_checkpoint(
            self.checkpoint,
            {
                "recipe": self._toml,
                "step": self._step,
                "minutes": self._minutes,
                "data": self._pictures.origins,
                "quality": self._quality,
                "system": self.system.state_dict(),
                "derainer": self.averaged.state_dict(),
                "averages": int(self._ema.n_averaged),
                "optimizers": {name: optimizer.state_dict() for name, optimizer in self._optimizers.items()},
                "alarms": self._alarms.state(),
            },
        )

    def _restore(self) -> None:
        state = read_checkpoint(self.checkpoint)
        if state["recipe"] != self._toml:
            raise CheckpointError(
                f"'{self.checkpoint}' was made with another recipe",
                expected="the very recipe it began with",
                fix="Choose another --out folder to train the changed recipe",
            )
        origin = str(self.checkpoint)
        load_weights(self.system, state["system"], origin)
        load_weights(self.averaged, state["derainer"], origin)
        self._ema.n_averaged.fill_(state["averages"])
        for name, optimizer in self._optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        self._alarms.restore(state["alarms"])
        self._step, self._minutes, self._quality = state["step"], state["minutes"], state["quality"]

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Ctrl-C and SIGTERM ask the loop to stop after this step; a second one stops at once."""

        def ask(number: int, frame: object) -> None:
            if self._stop:
                raise KeyboardInterrupt
            self._stop = True

        old = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)
