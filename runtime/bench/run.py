"""One benchmark from its options to its result."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

from derain import __version__
from derain.errors import UsageError
from derain.images import MAX_PIXELS
from derain.models import resolve
from derain.runtime.backends import choose
from derain.runtime.bench.energy import Meter, find_meters
from derain.runtime.bench.machine import CpuUse, describe_machine, look
from derain.runtime.bench.report import LEAST_FRAMES, Answers, candidate, runs_on_gpu, warnings
from derain.runtime.bench.schema import BenchResult, Energy
from derain.runtime.bench.sequence import WarmUp, interleave, time_is_up, warm_up
from derain.runtime.bench.subject import Opened, Spec, Steps, Timing, Usage
from derain.runtime.bench.sweeps import BatchTime, StreamsTime, VideoTime
from derain.runtime.bench.worker import Remote
from derain.runtime.doctor_system import System
from derain.runtime.engine.record import is_engine, read_model_card
from derain.runtime.media.video_reader import VideoReader
from derain.runtime.parts import require_tiles
from derain.runtime.ports import require_whole
from derain.runtime.tiling import plan

DEFAULT_SIZE = (1280, 720)
_ENERGY_SECONDS = 5.0
_LOOK_SECONDS = 1.0
_STEP_FRAMES = 100
T = TypeVar("T")


@dataclass(frozen=True)
class BenchOptions:
    """What to measure.

    Attributes:
        models: shipped names or files; each is measured with every backend and every number of threads.
        backends: names, or ``auto``.
        threads: None for the physical cores.
        size: width and height; None for 1280 x 720, or for the video's.
        seconds: frames, batches and streams are each ended after so long, with fewer frames then; None for no limit.
        warm_up: least frames before the first that counts.
        tile: largest side of tiles; None for whole frames.
        batches, streams: sizes of the sweeps; empty for none.
        video: a file whose frames are used, and which is derained from end to end.
        command: for the record.
    """

    models: Sequence[str]
    backends: Sequence[str] = ("auto",)
    threads: Sequence[int | None] = (None,)
    size: tuple[int, int] | None = None
    frames: int = LEAST_FRAMES
    seconds: float | None = None
    warm_up: int = 20
    tile: int | None = None
    batches: Sequence[int] = ()
    streams: Sequence[int] = ()
    video: Path | None = None
    seed: int = 0
    command: str = ""


class Measured(Protocol):
    """A candidate; see :class:`derain.runtime.bench.subject.Subject`."""

    spec: Spec

    def open(self) -> Opened: ...

    def run(self) -> Timing: ...

    def run_steps(self) -> Steps | None: ...

    def run_for(self, seconds: float) -> tuple[int, float]: ...

    def run_batch(self, size: int) -> BatchTime: ...

    def run_streams(self, streams: int, frames: int, seconds: float | None) -> StreamsTime: ...

    def run_video(self, path: Path) -> VideoTime: ...

    def usage(self) -> Usage: ...

    def close(self) -> None: ...


def run_bench(
    options: BenchOptions,
    *,
    make: Callable[[Spec], Measured] = Remote,
    system: System | None = None,
    progress: Callable[[str, int, int], None] = lambda phase, done, total: None,
) -> BenchResult:
    """Measure, and describe the machine before and after.

    Args:
        make: starts a candidate.
        system: the machine to describe.
        progress: called with the phase, and how many of how many steps of it are done.

    Raises:
        UsageError: options that make no sense; no such backend.
        ModelFileError, MediaError, BackendError, MissingDependencyError: something of that cannot be used here.
    """
    specs = plan_candidates(options)
    system = system or System()
    date = datetime.now(timezone.utc).isoformat(timespec="seconds")
    progress("looking at the machine", 0, 1)
    machine = describe_machine(system)
    use = CpuUse(system)
    time.sleep(_LOOK_SECONDS)
    before = look(system, use.others(0.0))
    meters, no_meter = find_meters(system)
    with ExitStack() as stack:
        subjects: list[Measured] = []
        for spec in specs:
            subjects.append(make(spec))
            stack.callback(subjects[-1].close)
        opened = [_step(progress, "loading", place, specs, s.open) for place, s in enumerate(subjects)]
        warm = [
            _step(progress, "warming up", place, specs, partial(_warm_up, s, options.warm_up))
            for place, s in enumerate(subjects)
        ]
        own, use = _cpu_seconds(subjects), CpuUse(system)
        timings = _interleaved(subjects, options, progress)
        usages = [subject.usage() for subject in subjects]
        after = look(system, use.others(_cpu_seconds(subjects) - own))
        answers = [Answers(*told) for told in zip(opened, warm, timings, usages, strict=True)]
        for place, (subject, answer) in enumerate(zip(subjects, answers, strict=True)):
            answer.steps = _step(progress, "copies", place, specs, partial(_steps, subject, len(answer.timings)))
            answer.energy = _step(progress, "energy", place, specs, partial(_energy, subject, meters))
        _sweep(subjects, answers, options, progress)
    width, height = specs[0].width, specs[0].height
    return BenchResult(
        source="derain",
        derain_version=__version__,
        date=date,
        command=options.command,
        width=width,
        height=height,
        seed=options.seed,
        machine=machine,
        before=before,
        after=after,
        warnings=warnings(len(timings[0]), machine, before, after),
        candidates=[candidate(spec, answer, no_meter) for spec, answer in zip(specs, answers, strict=True)],
    )


def plan_candidates(options: BenchOptions) -> list[Spec]:
    """Every model with every backend and number of threads; all that can be refused is refused here.

    Raises:
        UsageError, ModelFileError, MediaError, BackendError, MissingDependencyError: see :func:`run_bench`.
    """
    if options.frames < 1:
        raise UsageError(
            f"--frames is {options.frames}", expected=f"1 or more; {LEAST_FRAMES} tell the 99th percentile"
        )
    if options.seconds is not None and not options.seconds > 0:
        raise UsageError(f"--seconds is {options.seconds:g}", expected="above 0")
    if options.warm_up < 0:
        raise UsageError(f"--warmup is {options.warm_up}", expected="0 or more")
    for name, counts in (("--threads", options.threads), ("--batch", options.batches), ("--streams", options.streams)):
        wrong = [count for count in counts if count is not None and count < 1]
        if wrong:
            raise UsageError(f"{name} is {wrong[0]}", expected="1 or more")
    width, height = _size(options)
    files = list(dict.fromkeys(resolve(model) for model in options.models))
    specs: list[Spec] = []
    for path in files:
        alike = [other for other in files if other.stem == path.stem]
        name = path.stem if len(alike) == 1 else f"{path.absolute().parent.name}/{path.name}"
        card = read_model_card(path)
        if options.tile is None:
            require_whole(card, path)
        else:
            require_tiles(path, card)
            plan(options.tile + 1, options.tile, card.geometry)
        chosen = dict(choose(wanted, card, engine=is_engine(path)) for wanted in options.backends)
        specs += [
            Spec(name, path, card, backend.name, reason, threads, width, height, options.tile, options.video)
            for backend, reason in chosen.items()
            for threads in dict.fromkeys(options.threads)
        ]
    return specs


def _size(options: BenchOptions) -> tuple[int, int]:
    if options.video is not None:
        if options.size is not None:
            raise UsageError("--size was given with --input", expected="one of the two: a video has its own size")
        with VideoReader(options.video) as reader:
            return reader.info.width, reader.info.height
    width, height = options.size or DEFAULT_SIZE
    if width * height > MAX_PIXELS:
        raise UsageError(
            f"--size is {width}x{height}, {width * height / 1e6:.0f} megapixels",
            expected=f"at most {MAX_PIXELS // 10**6}",
        )
    return width, height


def _step(
    progress: Callable[[str, int, int], None], phase: str, place: int, specs: list[Spec], work: Callable[[], T]
) -> T:
    progress(f"{phase} {specs[place].name}, {specs[place].backend}", place, len(specs))
    return work()


def _warm_up(subject: Measured, least: int) -> WarmUp:
    return warm_up(lambda: subject.run().total, least)


def _interleaved(
    subjects: list[Measured], options: BenchOptions, progress: Callable[[str, int, int], None]
) -> list[list[Timing]]:
    done, total = 0, options.frames * len(subjects)

    def advance() -> None:
        nonlocal done
        done += 1
        progress("measuring", done, total)

    enough = time_is_up(options.seconds)
    return interleave(
        [subject.run for subject in subjects], options.frames, options.seed, advance=advance, enough=enough
    )


def _steps(subject: Measured, frames: int) -> list[Steps]:
    """As many as there were frames, but no more than a few; empty where copies cannot be told apart."""
    found: list[Steps] = []
    while len(found) < min(frames, _STEP_FRAMES) and (steps := subject.run_steps()) is not None:
        found.append(steps)
    return found


def _energy(subject: Measured, meters: list[Meter]) -> list[Energy]:
    found = []
    for meter in meters:
        if meter.gpu_only and not runs_on_gpu(subject.spec.backend):
            continue
        meter.start()
        frames, seconds = subject.run_for(_ENERGY_SECONDS)
        joules = meter.stop()
        if joules is not None:
            found.append(
                Energy(
                    source=meter.source,
                    watts=joules / seconds,
                    joules_per_frame=joules / frames,
                    frames=frames,
                    seconds=seconds,
                )
            )
    return found


def _sweep(
    subjects: list[Measured],
    answers: list[Answers],
    options: BenchOptions,
    progress: Callable[[str, int, int], None],
) -> None:
    """Batches interleaved like frames; streams and the video one after the other, since each fills the machine."""
    calls = [partial(subject.run_batch, size) for subject in subjects for size in options.batches]
    if calls:
        progress("batches", 0, 1)
        interleave(calls, 2, options.seed)  # to warm up
        # As many frames as before, at least 20 calls of each size.
        rounds = max(20, options.frames // max(options.batches)) if options.frames >= LEAST_FRAMES else options.frames
        times = interleave(calls, rounds, options.seed, enough=time_is_up(options.seconds))
        for place, answer in enumerate(answers):
            own = times[place * len(options.batches) : (place + 1) * len(options.batches)]
            answer.batches = dict(zip(options.batches, own, strict=True))
    limit = None if options.seconds is None else options.seconds / max(1, len(options.streams) * len(subjects))
    for number, streams in enumerate(options.streams):
        progress(f"{streams} streams", number, len(options.streams))
        for subject, answer in zip(subjects, answers, strict=True):
            answer.streams.append(subject.run_streams(streams, options.frames, limit))
    if options.video is not None:
        for place, (subject, answer) in enumerate(zip(subjects, answers, strict=True)):
            progress("end to end", place, len(subjects))
            answer.video = subject.run_video(options.video)


def _cpu_seconds(subjects: list[Measured]) -> float:
    return time.process_time() + sum(subject.usage().cpu_seconds for subject in subjects)
