"""``derain bench``: what a camera will see, measured."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from derain.errors import DataError, UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from derain.runtime.bench.run import BenchOptions
    from derain.runtime.bench.schema import BenchResult


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("bench")(bench)


def bench(
    models: Annotated[
        list[str] | None,
        typer.Argument(metavar="MODEL...", help="Shipped models (derain models), files, engines."),
    ] = None,
    *,
    backend: Annotated[
        list[str] | None, typer.Option(help="auto, or a name from derain doctor; may be repeated.", show_default="auto")
    ] = None,
    threads: Annotated[
        list[int] | None, typer.Option(help="CPU threads; may be repeated.", show_default="the physical cores")
    ] = None,
    size: Annotated[str | None, typer.Option(help="WIDTHxHEIGHT of the frames.", show_default="1280x720")] = None,
    frames: Annotated[int, typer.Option(help="Frames to time, of each model and backend.")] = 200,
    seconds: Annotated[
        float | None, typer.Option(help="End each part after so long, with fewer frames then.", show_default="no limit")
    ] = None,
    warmup: Annotated[int, typer.Option(help="Least frames before them; goes on until times are steady.")] = 20,
    batch: Annotated[str | None, typer.Option(help="Also time inference alone in batches, such as 1,2,4.")] = None,
    streams: Annotated[str | None, typer.Option(help="Also run several streams at once, such as 1,2,4,8.")] = None,
    video: Annotated[
        Path | None, typer.Option("--input", help="A video: its frames are used, and it is derained from end to end.")
    ] = None,
    tile: Annotated[int | None, typer.Option(help="Cut frames into tiles of this side.")] = None,
    seed: Annotated[int, typer.Option(help="Of the order within the rounds.")] = 0,
    json: Annotated[Path | None, typer.Option("--json", help="Write the result, every frame's time included.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw the result, as .png, .svg or .pdf.")] = None,
    compare: Annotated[
        tuple[Path, Path] | None, typer.Option(help="Instead: what changed between two results of --json.")
    ] = None,
    fail_if_slower: Annotated[
        str | None, typer.Option(metavar="PERCENT", help="With --compare: exit with 1 if slower by more, beyond noise.")
    ] = None,
    from_trtexec: Annotated[
        Path | None, typer.Option(help="Instead: show a file of trtexec --exportTimes; MODEL tells what it timed.")
    ] = None,
) -> None:
    """Measure models: latency and its tail, throughput, memory, start-up, energy, with the machine's state beside it.

    Several models and backends take turns, frame by frame in a random order, each in a process of its own.
    """
    from rich.console import Console

    from derain.runtime.bench.run import BenchOptions
    from derain.sizes import parse_size

    console = Console(highlight=False, markup=False, soft_wrap=True)
    if bool(compare) + bool(from_trtexec or models) != 1 or (from_trtexec and len(models or ()) > 1):
        raise UsageError(
            "More was named than can be shown at once" if models else "Nothing to measure was named",
            expected="models (derain bench nano edge), or --compare A B, or --from-trtexec FILE and its model",
        )
    if fail_if_slower is not None and not compare:
        raise UsageError("--fail-if-slower was given without --compare")
    if compare:
        _compare(*compare, None if fail_if_slower is None else _percent(fail_if_slower), console)
        return
    shape = parse_size(size, "--size") if size else None
    if shape is not None and shape[0] != 1:
        raise UsageError(f"--size is '{size}'", expected="WIDTHxHEIGHT; batches are measured with --batch")
    options = BenchOptions(
        models=models or (),
        backends=backend or ("auto",),
        threads=threads or (None,),
        size=None if shape is None else (shape[2], shape[1]),
        frames=frames,
        seconds=seconds,
        warm_up=warmup,
        tile=tile,
        batches=_counts(batch, "--batch"),
        streams=_counts(streams, "--streams"),
        video=video,
        seed=seed,
        command=_command(),
    )
    _measure_and_tell(options, from_trtexec, json, plot, console)


def _measure_and_tell(
    options: BenchOptions, from_trtexec: Path | None, json: Path | None, plot: Path | None, console: Console
) -> None:
    from derain.models import resolve
    from derain.runtime.bench.plot import need_plots, plot_result
    from derain.runtime.bench.schema import write_result
    from derain.runtime.bench.tables import print_result
    from derain.runtime.bench.trtexec import from_trtexec as read
    from derain.runtime.engine.record import read_model_card

    for target in (json, plot):
        if target is not None and target.is_dir():
            raise UsageError(f"Output '{target}' is a folder", expected="the name of a file to write")
    if plot is not None:
        need_plots()
        if plot.suffix.lower() not in (".png", ".svg", ".pdf"):
            raise UsageError(f"--plot is '{plot}'", expected="a .png, .svg or .pdf file")
    if from_trtexec is None:
        result = _measure(options)
    else:
        paths = [resolve(name) for name in options.models]
        named = next(((path.stem, read_model_card(path)) for path in paths), None)
        result = read(from_trtexec, options.size, options.command, named)
    print_result(result, console)  # before anything is written: a full disk must not lose it
    if json is not None:
        write_result(result, json)
        console.print(f"Wrote {json}")
    if plot is not None:
        plot_result(result, plot)
        console.print(f"Wrote {plot}")


def _measure(options: BenchOptions) -> BenchResult:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    from derain.runtime.bench.run import run_bench

    errors = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    # Drawn twice a second: the bar must not take part in the measurement.
    with Progress(
        *columns, console=errors, transient=True, disable=not errors.is_terminal, refresh_per_second=2
    ) as bar:
        task = bar.add_task("")

        def progress(phase: str, done: int, total: int) -> None:
            bar.update(task, description=phase.replace("[", "("), completed=done, total=total)

        return run_bench(options, progress=progress)


def _compare(first: Path, second: Path, limit: float | None, console: Console) -> None:
    from derain.runtime.bench.compare import compare, differences, slower_than
    from derain.runtime.bench.schema import read_result
    from derain.runtime.bench.tables import print_comparison

    results = read_result(first), read_result(second)
    compared = compare(*results)
    forbidding, explaining = differences(*results)
    warned = [
        f"{path}: {text}" for path, result in zip((first, second), results, strict=True) for text in result.warnings
    ]
    print_comparison(compared, forbidding, explaining, warned, console)
    if limit is None:
        return
    if forbidding:
        raise DataError(
            f"'{first}' and '{second}' are not of one machine and size: {'; '.join(forbidding)}",
            fix="Measure both on the same machine, or compare without --fail-if-slower",
        )
    slower = slower_than(compared, limit)
    for item in slower:
        assert item.change is not None
        console.print(f"{item.first.label} is {item.change.ratio:.1%} slower, more than {limit:.1%}", style="red")
    if slower:
        raise typer.Exit(1)


def _counts(text: str | None, option: str) -> tuple[int, ...]:
    """``1,2,4`` as numbers, each once, in order."""
    if text is None:
        return ()
    if not re.fullmatch(r"[1-9]\d{0,3}(,[1-9]\d{0,3})*", text.replace(" ", "")):
        raise UsageError(f"{option} is '{text}'", expected="numbers from 1 on, such as 1,2,4")
    return tuple(sorted({int(number) for number in text.split(",")}))


def _percent(text: str) -> float:
    match = re.fullmatch(r"(\d{1,3}(?:\.\d+)?)\s*%?", text.strip())
    if match is None:
        raise UsageError(f"--fail-if-slower is '{text}'", expected="per cent, such as 5%")
    return float(match[1]) / 100


def _command() -> str:
    """The command as it was typed, for the record."""
    import shlex
    import sys

    return shlex.join(["derain", *sys.argv[1:]])
