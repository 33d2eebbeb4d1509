"""What a run tells while it trains: a progress bar, TensorBoard curves and strips, and a log file that ships."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch.utils.tensorboard.writer import SummaryWriter

from derain.images import write_image
from derain.train.recipe import Recipe
from derain.train.validation import Report

_EVERY = 50
_LINE_EVERY = 500
_LINE_SECONDS = 120


class Journal:
    """Context manager; silent on every process but the first.

    On a terminal there is a progress bar; elsewhere a line every 500 steps or two minutes, whichever comes first.
    In the run's folder: ``tensorboard/``, ``log.jsonl`` (one JSON object per validation, with the mean losses since
    the one before), and ``strips/`` with the latest pictures.
    """

    def __init__(self, folder: Path, recipe: Recipe, active: bool, first_step: int) -> None:
        self._folder = folder
        self._recipe = recipe
        self._active = active
        self._first = first_step
        self._sums: dict[str, float] = {}
        self._counts: dict[str, int] = {}
        self._console = Console(stderr=True)

    def __enter__(self) -> Journal:
        if not self._active:
            return self
        self._folder.mkdir(parents=True, exist_ok=True)
        # purge_step hides the curve of steps that a killed run made after its last checkpoint.
        self._writer = SummaryWriter(self._folder / "tensorboard", purge_step=self._first)
        self._progress = Progress(
            TextColumn(f"[bold]{self._recipe.name}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._progress.start()
        self._began = self._told = time.monotonic()
        self._task = self._progress.add_task("train", total=self._recipe.steps, completed=self._first, note="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._active:
            self._progress.stop()
            self._writer.close()

    def step(self, step: int, losses: dict[str, float], rates: dict[str, float]) -> None:
        if not self._active:
            return
        for name, value in losses.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
            self._counts[name] = self._counts.get(name, 0) + 1
        self._progress.advance(self._task)
        self._line(step, losses)
        if step % _EVERY == 0:
            for name, value in losses.items():
                self._writer.add_scalar(f"loss/{name}", value, step)
            for name, value in rates.items():
                self._writer.add_scalar(f"rate/{name}", value, step)

    def _line(self, step: int, losses: dict[str, float]) -> None:
        now = time.monotonic()
        if self._console.is_terminal or (step % _LINE_EVERY and now - self._told < _LINE_SECONDS):
            return
        self._told = now
        rate = (step - self._first) / max(now - self._began, 1e-6)
        left = (self._recipe.steps - step) / rate / 60
        loss = losses.get("generator", math.nan)
        self.message(
            f"step {step} of {self._recipe.steps}: loss {loss:.4f}, {rate:.2f} steps a second, {left:.0f} minutes left"
        )

    def validation(self, step: int, minutes: float, report: Report) -> None:
        if not self._active:
            return
        means = {name: round(total / self._counts[name], 6) for name, total in self._sums.items()}
        self._sums, self._counts = {}, {}
        entry = {
            "step": step,
            "minutes": round(minutes, 2),
            "psnr": report.psnr,
            "ssim": report.ssim,
            "input_psnr": report.input_psnr,
            "change": report.change,
            "drift": report.drift,
            "losses": means,
        }
        with (self._folder / "log.jsonl").open("a") as log:
            log.write(json.dumps(entry) + "\n")
        for name in ("psnr", "ssim", "change", "drift"):
            value = getattr(report, name)
            if value is not None:
                self._writer.add_scalar(f"validation/{name}", value, step)
        for index, strip in enumerate(report.strips):
            write_image(self._folder / "strips" / f"{index}.png", strip)
            self._writer.add_image(f"strip/{index}", strip[:, :, ::-1], step, dataformats="HWC")
        if report.psnr is not None:
            note = f"PSNR {report.psnr:.2f} dB (input {report.input_psnr:.2f})"
            self._progress.update(self._task, note=note)
            self.message(f"step {step}: {note}, SSIM {report.ssim:.4f}")

    def message(self, text: str) -> None:
        """A line with the time, on stderr; never broken, so that it can be searched for."""
        if self._active:
            stamp = time.strftime("%H:%M:%S")
            self._console.print(f"{stamp}  {text}", soft_wrap=True, highlight=False, markup=False)
