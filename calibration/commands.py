"""``derain calibrate``. Heavy packages are imported where the command runs."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from derain.errors import UsageError

if TYPE_CHECKING:
    from derain.calibration.calibrate import Calibrated
    from derain.calibration.frames import Kind

_KINDS: dict[str, Kind] = {"int8": "int8", "fp8": "float8", "fp16": "float16"}


def register(app: typer.Typer) -> None:
    """Add this stage's command to the command line."""
    app.command("calibrate")(calibrate)


def calibrate(
    model: Annotated[str, typer.Argument(help="A float32 .onnx file of derain export, or a shipped model's name.")],
    frames: Annotated[
        list[Path],
        typer.Option(help="Folder of pictures or pairs, picture, or video to calibrate with. Repeatable."),
    ],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="File to write. Default: NAME.int8.onnx, NAME.fp8.onnx or NAME.fp16.onnx."),
    ] = None,
    precision: Annotated[str, typer.Option(help="int8, fp16, or fp8 for Ada, Hopper, Blackwell and Thor.")] = "int8",
    max_drop: Annotated[
        str,
        typer.Option(help="Largest mean loss of PSNR, of the held-out frames of any source, as 0.2 or 0.2dB."),
    ] = "0.2",
    check: Annotated[
        list[Path] | None,
        typer.Option(
            help="Held-out folder, picture or video to judge by; pairs count with their truth, dry frames as their "
            "own. Repeatable. Default: every fifth of --frames."
        ),
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(
            metavar="ONNX",
            help="Float32 model to judge by. Default: MODEL. One of derain train --qat needs the one it began as.",
        ),
    ] = None,
    split: Annotated[Path | None, typer.Option(help="JSON file of held-out pictures: {folder: \\[names]}.")] = None,
    count: Annotated[int, typer.Option(min=1, max=1024, help="How many frames to calibrate with.")] = 64,
    report: Annotated[
        Path | None, typer.Option(help="Folder for figures and pictures. Default: beside the output.")
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(help="Also write the ranges as a calibration cache for trtexec --calib.")
    ] = None,
    cache_for: Annotated[str, typer.Option(help="TensorRT version that will read the cache, 8.x or 10.x.")] = "10.3.0",
) -> None:
    """Make an INT8 or float16 model that loses no more quality than you allow, or none at all."""
    from rich.console import Console

    from derain.calibration.calibrate import calibrate as run
    from derain.calibration.calibrate import write
    from derain.calibration.frames import Options
    from derain.calibration.legacy import cache_header, write_cache
    from derain.models import resolve

    if precision not in _KINDS:
        raise UsageError(f"--precision is '{precision}'", expected="int8, fp8 or fp16")
    if cache is not None and precision != "int8":
        raise UsageError(f"--cache was given with --precision {precision}", expected="--precision int8")
    if cache is not None:
        cache_header(cache_for)  # refuses a version before hours of work
    path = resolve(model)
    target = output or Path(f"{path.stem}.{precision}.onnx")
    if target.suffix.lower() != ".onnx":
        raise UsageError(f"The output is '{target}'", expected="a file name ending in .onnx")
    if target.exists() and target.samefile(path):
        raise UsageError(f"The output '{target}' is the model itself", fix="Give another --output")
    options = Options(
        frames=tuple(frames),
        kind=_KINDS[precision],
        max_drop=_decibels(max_drop),
        check=tuple(check or ()),
        split=split,
        against=against,
        count=count,
    )
    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    with console.status("reading") as status:
        done = run(path, options, say=status.update)
    folder = report or target.with_name(f"{target.stem}.report")
    write(done, target, folder)
    if cache is not None and done.ranges is not None:
        write_cache(cache, done.ranges, cache_for)
    for warning in done.selection.warnings:
        console.print(f"Warning: {warning}", style="yellow")
    _summarise(done, target, folder)


def _decibels(text: str) -> float:
    match = re.fullmatch(r"([0-9.]+)\s*(?:dB)?", text.strip(), re.IGNORECASE)
    try:
        value = float(match.group(1)) if match else math.nan
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UsageError(f"--max-drop is '{text}'", expected="decibels, such as 0.2 or 0.2dB")
    return value


def _summarise(done: Calibrated, target: Path, folder: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    change, selection = done.change, done.selection
    record = done.card.calibration
    assert record is not None
    console = Console(highlight=False, markup=False, soft_wrap=True)
    chosen = "Ranges of quantization-aware training" if record.ranges == "trained" else "float16 needs no ranges"
    if selection.names:
        dropped = f"{selection.duplicates} duplicates, {selection.flat} constant"
        chosen = f"{len(selection.names)} of {selection.seen} frames ({dropped})"
    truth = f"{record.paired} of them with ground truth, {record.dry} without rain, which are their own"
    console.print(f"{chosen}; {record.checked} held out, {truth}")
    if record.compared:
        drops = ", ".join(f"{method} {drop:+.3f} dB" for method, drop in record.compared.items())
        console.print(f"Loss by method of ranges: {drops}; taken: {record.ranges}")
    table = Table("", "before", "after", "change")
    if change.psnr is not None and change.ssim is not None:
        (before, after), (ssim_before, ssim_after) = change.psnr, change.ssim
        table.add_row("PSNR (Y), dB", f"{before:.3f}", f"{after:.3f}", f"{after - before:+.3f}")
        table.add_row("SSIM (Y)", f"{ssim_before:.4f}", f"{ssim_after:.4f}", f"{ssim_after - ssim_before:+.4f}")
    for group, drop in change.groups.items():
        table.add_row(f"loss of PSNR, mean of {group}, dB", "", "", f"{drop:.3f}")
    table.add_row(f"  worst frame, {Path(change.worst.name).name}", "", "", f"{change.worst.drop:.3f}")
    table.add_row("PSNR against float32, dB", "", f"{change.closeness:.2f}", "")
    table.add_row("mean level (worst frame)", "", "", f"{change.mean_shift:+.3f} ({change.worst_shift:+.3f})")
    table.add_row("new steps in smooth areas", "", f"{100 * change.banding:.4f} %", "")
    table.add_row("values at 0", "", "", f"{100 * change.clipped_low:+.4f} %")
    table.add_row("values at 255", "", "", f"{100 * change.clipped_high:+.4f} %")
    console.print(table)
    layers = f"{len(record.int8)} in INT8, " if record.int8 else ""
    layers = f"{len(record.float8)} in FP8, " if record.float8 else layers
    sums = f"; {len(record.additions)} residual additions in INT8" if record.int8 else ""
    console.print(f"Layers: {layers}{len(record.float16)} in float16, {len(record.float32)} in float32{sums}")
    for name in sorted(done.found.kept):
        console.print(f"  kept in higher precision: {name} ({done.found.sensitivity[name]:+.3f} dB alone)")
    console.print(f"Wrote {target} ({target.stat().st_size / 1024:.0f} KiB) and {folder}/")
