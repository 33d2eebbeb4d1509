"""The command `derain run`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Callable

    from derain.runtime.job import Job, JobResult
    from derain.runtime.media.items import Frame
    from derain.runtime.model import Derainer
    from derain.runtime.pipeline import Derained


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("run")(run)


def run(
    model: Annotated[str, typer.Argument(help="A shipped model (see: derain models), an .onnx file or an engine.")],
    source: Annotated[
        list[str],
        typer.Argument(
            help="A picture, a folder, a video file; or live: v4l2:///dev/video0, csi://0, rtsp://..., http://..., a "
            "GStreamer pipeline ('v4l2src ! videoconvert'). Several streams run at once, several files one after the "
            "other; NAME=SOURCE names one."
        ),
    ],
    *,
    output: Annotated[
        str | None,
        typer.Option(
            "-o",
            "--output",
            help="A picture, a folder, a .mp4, .mkv or .mov file, or numbered pictures (out/%06d.png). Live also: "
            "rtmp://..., rtsp://..., a GStreamer pipeline ('gst:autovideosink' is a window), jetson:FILE (its hardware "
            "encoder), null: (nothing). With several sources a folder, or a name that holds {name}.",
        ),
    ] = None,
    side_by_side: Annotated[bool, typer.Option("--compare", help="Write original and result side by side.")] = False,
    attention: Annotated[
        bool, typer.Option("--attention", help="Also write the rain map of a file, as NAME.rain.*")
    ] = False,
    gate: Annotated[
        str | None,
        typer.Option(
            help="auto: dry frames pass untouched; always: derain and measure; off: derain.",
            show_default="off; always with --preview",
        ),
    ] = None,
    rain_log: Annotated[
        Path | None,
        typer.Option(help="Rain intensity of each frame: a .csv, or lines of JSON (- for the terminal). Needs --gate."),
    ] = None,
    tile: Annotated[
        int | None, typer.Option(help="Cut frames into tiles of this side: large frames, less memory.")
    ] = None,
    steady: Annotated[
        float, typer.Option(help="Calm the flicker of a video: 0 (off) to below 1, for example 0.6.")
    ] = 0.0,
    policy: Annotated[
        str | None,
        typer.Option(
            help="A live frame that comes while one waits: drop-oldest, drop-newest or block.",
            show_default="drop-oldest; block for what has an end",
        ),
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="A live source that ends in order is not opened again.")] = False,
    preview: Annotated[
        bool, typer.Option("--preview", help="Serve a page with before and after. A file then plays like a camera.")
    ] = False,
    preview_address: Annotated[
        str, typer.Option(help="HOST:PORT of the page. Any other host than localhost needs the token that is printed.")
    ] = "127.0.0.1:8270",
    preview_token: Annotated[
        str | None, typer.Option(envvar="DERAIN_PREVIEW_TOKEN", help="The token.", show_default="a new one")
    ] = None,
    backend: Annotated[str, typer.Option(help="Inference engine: auto, or a name from derain doctor.")] = "auto",
    threads: Annotated[
        int | None, typer.Option(help="CPU threads for inference.", show_default="the physical cores")
    ] = None,
    codec: Annotated[str, typer.Option(help="Of a video: h264, h265 or av1.")] = "h264",
    crf: Annotated[int, typer.Option(help="Quality of a video: 0 finest, 18 transparent, 51 coarse (AV1: 63).")] = 18,
    force: Annotated[bool, typer.Option("--force", help="Overwrite outputs that exist.")] = False,
) -> None:
    """Derain pictures, folders, videos with their sound and timestamps, or live streams.

    Ctrl-C finishes what was read: the file holds the part so far and plays.
    """
    from derain.runtime.launch import launch
    from derain.runtime.run_options import RunOptions

    launch(
        RunOptions(
            model=model,
            sources=source,
            output=output,
            side_by_side=side_by_side,
            attention=attention,
            gate=gate,
            rain_log=rain_log,
            tile=tile,
            steady=steady,
            policy=policy,
            preview=preview,
            preview_address=preview_address,
            preview_token=preview_token,
            backend=backend,
            threads=threads,
            codec=codec,
            crf=crf,
            force=force,
            once=once,
        )
    )


def run_with_progress(
    job: Job,
    model: Derainer,
    infer: Callable[[Frame], Derained] | None = None,
    seen: Callable[[Derained], None] | None = None,
) -> JobResult:
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

        result = run_job(
            job,
            model,
            infer=infer,
            seen=seen,
            stop=stop,
            begin=lambda total: bar.update(task, total=total),
            progress=advance,
        )
    for warning in result.warnings:
        errors.print(f"Warning: {warning}", style="yellow")
    _print_summary(model, result)
    if result.stats.stopped:
        errors.print("Interrupted: the output holds the part up to here.", style="yellow")
        raise typer.Exit(128 + (stop.signal_number or 0))
    if result.failed:
        raise typer.Exit(1)
    return result


def _print_summary(model: Derainer, result: JobResult) -> None:
    from rich.console import Console

    console = Console(markup=False, highlight=False, soft_wrap=True)
    stats = result.stats
    at_once = {"infer": f", {stats.at_once} at once"} if stats.at_once > 1 else {}
    times = ", ".join(
        f"{name} {stage.median:.1f} (p99 {stage.p99:.1f}{at_once.get(name, '')})"
        for name, stage in stats.stages.items()
    )
    console.print(f"{stats.frames} frames in {stats.seconds:.1f} s: {stats.fps:.1f} frames/s; ms per frame: {times}")
    console.print(f"{model.card.name} with {model.device} ({model.backend_reason})")
    for output in result.outputs:
        console.print(f"Wrote {output}")
