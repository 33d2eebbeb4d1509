"""How near the models come to their convolutions alone, and how they stand against PyTorch and PReNet: in one run.

    python docs/benchmarks/ratios.py [--prenet DIR] [--data DIR] [--rounds N] [--seconds S]

Frames of 1280x720, two threads, all in turns in one process; ``make bench`` runs it too. DIR of --prenet is a checkout
of github.com/csdwren/PReNet, which is not part of this project; without it PReNet keeps its last PSNR and has no time.
--data is the folder Rain100L/test: with it PReNet's PSNR is measured anew.
"""

from __future__ import annotations

import argparse
import hashlib
import time
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
from peers import (
    ENGINES,
    PRENET_WEIGHTS,
    Run,
    eager_run,
    load_prenet,
    model_run,
    prenet_derain,
    prenet_quality,
    stack,
    stack_run,
)
from pydantic import BaseModel, ConfigDict

from derain.files import atomic_path
from derain.runtime.bench.machine import CpuUse, describe_machine, look
from derain.runtime.bench.report import warnings
from derain.runtime.bench.schema import Conditions, Machine
from derain.runtime.bench.sequence import interleave
from derain.runtime.doctor_system import System

FILE = Path(__file__).resolve().parent / "results" / "ratios" / "ratios.json"
HEIGHT, WIDTH, THREADS = 720, 1280, 2
MODELS = ("nano", "edge")
WARM_UP = 6  # OpenVINO compiles for the size after three frames
_SELDOM = 10  # PReNet takes seconds: once in so many rounds


class Row(BaseModel):
    """Durations of one subject; ``scale`` is what a stack's must be multiplied by to have the model's operations."""

    model_config = ConfigDict(extra="forbid")

    model: str
    kind: str
    samples_ms: list[float]
    scale: float = 1.0

    @property
    def median(self) -> float:
        """Milliseconds."""
        return self.scale * float(np.median(self.samples_ms))


class Peer(BaseModel):
    """PReNet's quality, and the weights it belongs to."""

    model_config = ConfigDict(extra="forbid")

    sha256: str
    psnr: float
    ssim: float
    pictures: int


class Ratios(BaseModel):
    """One run."""

    model_config = ConfigDict(extra="forbid")

    date: str
    command: str
    machine: Machine
    before: Conditions
    after: Conditions
    warnings: list[str]
    rows: list[Row]
    prenet: Peer | None = None

    def find(self, model: str, kind: str) -> Row | None:
        """The row of that subject."""
        return next((row for row in self.rows if (row.model, row.kind) == (model, kind)), None)


def read_ratios() -> Ratios | None:
    """What the last run wrote; None without one."""
    return Ratios.model_validate_json(FILE.read_text(encoding="utf-8")) if FILE.exists() else None


def subjects(prenet: Path | None) -> list[tuple[Row, Run]]:
    """Everything that is compared, opened."""
    frame = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    found: list[tuple[Row, Run]] = []
    for name in MODELS:
        data, features, scale = stack(name, HEIGHT, WIDTH)
        for engine in ENGINES:
            found.append((Row(model=name, kind=engine, samples_ms=[]), model_run(name, engine, THREADS, frame)))
            row = Row(model=name, kind=f"stack, {engine}", samples_ms=[], scale=scale)
            found.append((row, stack_run(data, features, engine, THREADS)))
        found.append((Row(model=name, kind="PyTorch, eager", samples_ms=[]), eager_run(name, THREADS, frame)))
    if prenet is not None:
        network = load_prenet(prenet)
        row = Row(model="PReNet", kind="PyTorch, eager", samples_ms=[])
        found.append((row, lambda: prenet_derain(network, frame)))
    return found


def measure(prenet: Path | None, rounds: int, seconds: float, command: str) -> Ratios:
    """Interleave all; whole rounds, until there are enough or the time is over."""
    system = System()
    use = CpuUse(system)
    time.sleep(1)
    before = look(system, use.others(0.0))
    found = subjects(prenet)
    for row, run in found:
        for _ in range(1 if row.model == "PReNet" else WARM_UP):
            run()
    use, own, begun = CpuUse(system), time.process_time(), time.perf_counter()
    for number in range(rounds):
        due = [(row, run) for row, run in found if row.model != "PReNet" or number % _SELDOM == 0]
        for (row, _), times in zip(due, interleave([timed(run) for _, run in due], 1, number), strict=True):
            row.samples_ms += times
        if time.perf_counter() - begun > seconds:
            break
    after = look(system, use.others(time.process_time() - own))
    machine = describe_machine(system)
    return Ratios(
        date=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        command=command,
        machine=machine,
        before=before,
        after=after,
        warnings=warnings(len(found[0][0].samples_ms), machine, before, after),
        rows=[row for row, _ in found],
    )


def timed(run: Run) -> Run:
    """The same, returning its duration in milliseconds."""

    def timed_run() -> float:
        begun = time.perf_counter()
        run()
        return round(1e3 * (time.perf_counter() - begun), 3)

    return timed_run


def quality(prenet: Path, data: Path | None, known: Peer | None) -> Peer | None:
    """PReNet's PSNR: measured where there are pictures, else what is known of the same weights."""
    digest = hashlib.sha256((prenet / PRENET_WEIGHTS).read_bytes()).hexdigest()
    if data is not None:
        found = prenet_quality(load_prenet(prenet), data / "rainy", data / "clean")
        return Peer(sha256=digest, psnr=found[0], ssim=found[1], pictures=found[2])
    return known if known is not None and known.sha256 == digest else None


def write(ratios: Ratios) -> None:
    """Replace the file of the last run."""
    FILE.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(FILE) as temporary:
        temporary.write_text(ratios.model_dump_json(indent=1) + "\n", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prenet", type=Path, metavar="DIR")
    parser.add_argument("--data", type=Path, metavar="DIR")
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=600.0, help="end after the round in which these are over")
    options = parser.parse_args(arguments)
    last = read_ratios()
    known = None if last is None else last.prenet
    command = "python docs/benchmarks/ratios.py" + (" --prenet DIR" if options.prenet else "")
    ratios = measure(options.prenet, options.rounds, options.seconds, command)
    ratios.prenet = known if options.prenet is None else quality(options.prenet, options.data, known)
    for row in ratios.rows:
        print(f"{row.model:8} {row.kind:22} {len(row.samples_ms):4} frames, median {row.median:8.1f} ms")
    write(ratios)


if __name__ == "__main__":
    main()
