"""The command `derain run`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from derain.runtime.job import Job, JobResult
    from derain.runtime.model import Model


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("run")(run)


def run(
    model: Annotated[str, typer.Argument(help="A shipped model (see: derain models) or an .onnx file.")],
    source: Annotated[Path, typer.Argument(help="A picture, a folder of pictures, or a video file.")],
    *,
    output: Annotated[
        Path, typer.Option("-o", "--output", help="A picture, a folder, or a .mp4, .mkv or .mov file, like the source.")
    ],
    side_by_side: Annotated[bool, typer.Option("--compare", help="Write original and result side by side.")] = False,
    attention: Annotated[bool, typer.Option("--attention", help="Also write the rain map, as NAME.rain.*")] = False,
    backend: Annotated[str, typer.Option(help="Inference engine: auto, onnxruntime or openvino.")] = "auto",
    threads: Annotated[
        int | None, typer.Option(help="CPU threads for inference.", show_default="the physical cores")
    ] = None,
    crf: Annotated[int, typer.Option(help="x264 quality of a video: 0 lossless, 18 transparent, 51 coarse.")] = 18,
    force: Annotated[bool, typer.Option("--force", help="Overwrite outputs that exist.")] = False,
) -> None:
    """Derain a picture, a folder of pictures, or a video with its sound and timestamps.

    Ctrl-C finishes what was read: the file holds the part so far and plays.
    """
    from derain.runtime.job import Job
    from derain.runtime.model import load

    with load(model, backend, threads) as opened:
        run_with_progress(Job(source, output, side_by_side, attention, crf, force), opened)


def run_with_progress(job: Job, model: Model) -> JobResult:
    """Run a job with a progress bar, and print its summary.

    Raises:
        typer.Exit: interrupted (128 + signal number), or pictures could not be read (1), after the summary.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from derain.runtime.interrupt import stop_on_signals
    from derain.runtime.job import run_job

    errors = Console(stderr=True, markup=False, highlight=False, soft_wrap=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with (
        stop_on_signals() as stop,
        Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal) as bar,
    ):
        task = bar.add_task(job.source.name.replace("[", "("), total=None, rate="")

        def advance(done: int) -> None:
            speed = bar.tasks[task].speed
            bar.update(task, completed=done, rate=f"{speed:.1f} frames/s" if speed else "")

        result = run_job(job, model, stop=stop, begin=lambda total: bar.update(task, total=total), progress=advance)
    for warning in result.warnings:
        errors.print(f"Warning: {warning}", style="yellow")
    _print_summary(model, result)
    if result.stats.stopped:
        errors.print("Interrupted: the output holds the part up to here.", style="yellow")
        raise typer.Exit(128 + (stop.signal_number or 0))
    if result.failed:
        raise typer.Exit(1)
    return result


def _print_summary(model: Model, result: JobResult) -> None:
    from rich.console import Console

    console = Console(markup=False, highlight=False, soft_wrap=True)
    stats = result.stats
    times = ", ".join(f"{name} {stage.median:.1f} (p99 {stage.p99:.1f})" for name, stage in stats.stages.items())
    console.print(f"{stats.frames} frames in {stats.seconds:.1f} s: {stats.fps:.1f} frames/s; ms per frame: {times}")
    console.print(f"{model.card.name} with {model.device} ({model.backend_reason})")
    for output in result.outputs:
        console.print(f"Wrote {output}")
