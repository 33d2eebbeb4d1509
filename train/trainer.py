"""The training loop: one for every system, on a CPU, one GPU or several.

A step depends on the recipe, the seed and the step's number alone, and a checkpoint holds the rest, so a run that is
killed and resumed ends with exactly the weights of one that was not.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from derain.card import TrainedRanges
from derain.errors import CheckpointError, DerainError
from derain.train.alarms import Alarms
from derain.train.checkpoint import load_weights, read_checkpoint, save_checkpoint
from derain.train.data.batches import StepBatches
from derain.train.data.fit import check_pictures, unused_pictures
from derain.train.data.folders import Pictures
from derain.train.data.loading import load
from derain.train.data.overlap import overlap_of, tell
from derain.train.distil import Distiller
from derain.train.journal import Journal
from derain.train.machine import Machine
from derain.train.optimisers import Optimisers
from derain.train.qat import fake_quantize
from derain.train.recipe import Recipe, parse_recipe
from derain.train.systems import find_system
from derain.train.systems.base import Batch, Losses, StepContext, System
from derain.train.validation import Validation
from derain.train.warm_start import warm_start

CHECKPOINT_NAME = "last.ckpt"


class Trainer:
    """Trains one recipe into one folder.

    Args:
        resume: go on from the folder's checkpoint, exactly.
        begin_from: checkpoint whose weights a new run starts with; a resumed run has them already.
        quantization: the derainer and its average compute as an INT8 file of these ranges does.

    Raises:
        CheckpointError: the folder's checkpoint cannot be resumed, or exists and ``resume`` is off; or ``begin_from``
            is of another network.
    """

    def __init__(
        self,
        recipe_toml: str,
        pictures: Pictures,
        folder: Path,
        machine: Machine,
        *,
        resume: bool = False,
        begin_from: Path | None = None,
        quantization: TrainedRanges | None = None,
    ) -> None:
        self.recipe: Recipe = parse_recipe(recipe_toml, "the recipe")
        self._toml = recipe_toml
        self._pictures = pictures
        self._folder = folder
        self._machine = machine
        self._resume = resume
        self._begin_from = begin_from
        self._quantization = quantization
        self._begun_from: dict[str, str] = {}
        self._asked = False  # by a signal, in this process
        self._stop = False  # agreed by all processes
        self._step = 0
        self._minutes = 0.0
        self._quality: list[dict[str, Any]] = []
        self._alarms = Alarms()
        machine.prepare()

    @property
    def checkpoint(self) -> Path:
        return self._folder / CHECKPOINT_NAME

    def run(self) -> Path:
        """Train to the recipe's last step, or to an interruption; return the checkpoint.

        Ctrl-C and SIGTERM finish the step, write the checkpoint and stop.

        Raises:
            TrainingError: an alarm; the last checkpoint stays as it was.
            UsageError, DataError, CheckpointError: the machine, the pictures or a file do not fit the recipe.
            SystemExit: the same error in one of several processes but the first, which tells it.
        """
        self.fabric = self._machine.launch()
        self.fabric.seed_everything(self.recipe.seed, verbose=False)
        try:
            self._run()
        except DerainError as error:
            if self.first_process:
                raise
            raise SystemExit(error.exit_code) from error
        return self.checkpoint

    def _run(self) -> None:
        self._build()
        if self.checkpoint.exists():
            if not self._resume:
                raise CheckpointError(
                    f"'{self.checkpoint}' exists already", fix="Go on with --resume, or choose another --out folder"
                )
            self._restore()
        elif self._begin_from is not None:
            self._begun_from = warm_start(self.system, self._begin_from)
            self.averaged.load_state_dict(self.system.derainer.state_dict())
        check_pictures(self._pictures, self.system.needs(self._step))
        # The first batch before the journal: what is wrong with the pictures leaves no folder behind.
        made = self._batches()
        batches = chain(list(islice(made, self.recipe.optimizer.accumulate)), made)
        with Journal(self._folder, self.recipe, self.first_process, self._step) as journal, self._signals():
            if self.first_process:
                for note in self._notes():
                    journal.message(note)
            validation = Validation(self._pictures)
            began = time.monotonic()
            before = self._minutes
            while parts := list(islice(batches, self.recipe.optimizer.accumulate)):
                with self._machine.running():
                    losses = self._train_step(parts)
                self._step += 1
                self._minutes = before + (time.monotonic() - began) / 60
                journal.step(self._step, losses, self._optimisers.rates)
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

    def _notes(self) -> Iterator[str]:
        """What the log says before the first step."""
        yield from self.system.notes()
        if self._distiller is not None:
            yield f"Teacher: '{self._distiller.name}', SHA-256 {self._distiller.sha256[:16]}"
        if self._begun_from:
            new = f"; new: {self._begun_from['new']}" if "new" in self._begun_from else ""
            yield f"Begun from '{self._begun_from['name']}', SHA-256 {self._begun_from['sha256'][:16]}{new}"
        steps = range(self.recipe.steps)
        yield from unused_pictures(self._pictures, {self.system.needs(step) for step in steps})
        overlap = overlap_of(self._pictures)
        if overlap:
            yield f"Warning: {tell(overlap)}. The figures of this run are not of unseen scenes."

    @property
    def averaged(self) -> nn.Module:
        module: nn.Module = self._ema.module
        return module

    @property
    def first_process(self) -> bool:
        """Whether this is the one process, or the first of several: the one that writes and prints."""
        return bool(self.fabric.is_global_zero)

    @property
    def stopped_early(self) -> bool:
        return self._step < self.recipe.steps

    def _build(self) -> None:
        optimizer = self.recipe.optimizer
        system_type = find_system(self.recipe.system)
        system: System = system_type(self.recipe.system_config())
        self._dtype = torch.float64 if self._machine.precision == "64-true" else torch.float32
        self.system = system.to(self.fabric.device, self._dtype)
        self.system.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch takes it, its stub does not
        average = get_ema_multi_avg_fn(optimizer.ema)  # type: ignore[no-untyped-call]
        self._ema = AveragedModel(self.system.derainer, multi_avg_fn=average)
        self._ema.eval()
        self._distiller = None
        if self.recipe.distil is not None:
            crop, device = self.recipe.data.crop, self.fabric.device
            self._distiller = Distiller(self.recipe.distil, self.system.derainer, crop, device)
        beside = self._distiller.parameters() if self._distiller is not None else []
        self._optimisers = Optimisers(self.system, optimizer, self.fabric, beside_generator=beside)
        if self._quantization is not None:
            fake_quantize(self.system.derainer, self._quantization)
            fake_quantize(self.averaged, self._quantization)  # type: ignore[arg-type]  # a copy of the derainer
        self._machine.compile_networks(self.system)

    def _batches(self) -> Iterator[Batch]:
        accumulate = self.recipe.optimizer.accumulate
        made = StepBatches(
            self._pictures,
            self.recipe.data,
            self.recipe.seed,
            self.recipe.steps,
            self.system.needs,
            accumulate=accumulate,
            rank=self.fabric.global_rank,
            world=self.fabric.world_size,
        )
        return load(made, self._step * accumulate, self._machine.workers, pin=self.fabric.device.type == "cuda")

    def _train_step(self, parts: list[Batch]) -> dict[str, float]:
        """One step on the batches whose gradients it accumulates; the means of their losses over all processes."""
        self._optimisers.set_rates(self._step, self.recipe.steps)
        device = self.fabric.device
        losses = [self._train_part(part, batch.to(device, self._dtype)) for part, batch in enumerate(parts)]
        self._ema.update_parameters(self.system.derainer)
        values = torch.stack([torch.stack([value.float() for value in part.values()]) for part in losses]).mean(0)
        # One message and one transfer for all the numbers of the step. All processes stop when any was asked to.
        asked = torch.full((1,), float(self._asked), device=device)
        reduced = self.fabric.all_reduce(torch.cat([values, asked]), reduce_op="mean")
        assert isinstance(reduced, Tensor)
        *means, stop = reduced.tolist()
        self._stop = stop > 0
        named = dict(zip(losses[0], means, strict=True))
        self._alarms.check_losses(self._step, named)
        return named

    def _train_part(self, part: int, batch: Batch) -> Losses:
        extra: Losses = {}

        def optimise(group: str, loss: Tensor) -> None:
            if self._distiller is not None and group == "generator":
                terms = self._distiller.losses(self.system.derainer, batch)
                loss = loss + torch.stack(list(terms.values())).sum()
                extra.update({name: value.detach() for name, value in terms.items()})
            self._optimisers.optimise(group, loss, part)

        seed = self.recipe.seed * 1_000_003 + self._step + (part << 40)
        context = StepContext(self._step, torch.Generator().manual_seed(seed), optimise)
        with self.fabric.autocast():
            return {**self.system.training_step(batch, context), **extra}

    def _save(self) -> None:
        if not self.first_process:
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
                "optimizers": self._optimisers.state(),
                "alarms": self._alarms.state(),
                "teacher": self._teacher(),
                "distil": self._distiller.state() if self._distiller is not None else {},
                "begun_from": self._begun_from,
                "quantization": self._ranges(),
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
        if state.get("teacher", {}) != self._teacher():
            raise CheckpointError(
                f"'{self.checkpoint}' was taught by another teacher than '{self._teacher().get('name')}' is now",
                expected=f"the file with SHA-256 {state.get('teacher', {}).get('sha256')}",
                fix="Put the first teacher back, or choose another --out folder",
            )
        if state.get("quantization") != self._ranges():
            fix = "Give --ranges the very INT8 file that it began with, or choose another --out folder"
            raise CheckpointError(f"'{self.checkpoint}' was trained with other ranges", fix=fix)
        origin = str(self.checkpoint)
        load_weights(self.system, state["system"], origin)
        load_weights(self.averaged, state["derainer"], origin)
        if self._distiller is not None:
            self._distiller.restore(state["distil"], origin)
        self._ema.n_averaged.fill_(state["averages"])
        self._optimisers.restore(state["optimizers"])
        self._alarms.restore(state["alarms"])
        self._begun_from = state.get("begun_from", {})
        self._step, self._minutes, self._quality = state["step"], state["minutes"], state["quality"]

    def _teacher(self) -> dict[str, str]:
        teacher = self._distiller
        return {} if teacher is None else {"name": teacher.name, "sha256": teacher.sha256}

    def _ranges(self) -> dict[str, Any] | None:
        return None if self._quantization is None else self._quantization.model_dump(mode="json")

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Ctrl-C and SIGTERM ask the loop to stop after this step; a second one stops at once."""

        def ask(number: int, frame: object) -> None:
            if self._asked:
                raise KeyboardInterrupt
            self._asked = True

        old = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)
