"""``derain plan``: which model should keep up on a device, as an estimate with its arithmetic."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from derain.errors import ModelFileError, UsageError

if TYPE_CHECKING:
    from derain.devices import Device
    from derain.runtime.planning import Correction, Model, Option


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("plan")(plan)


def plan(
    models: Annotated[
        list[str] | None, typer.Argument(metavar="[MODEL]...", help=".onnx files or names. Default: all that ship.")
    ] = None,
    *,
    device: Annotated[str, typer.Option(help="A device of the table, such as orin-nano; list shows it.")],
    size: Annotated[str, typer.Option(help="WIDTHxHEIGHT of the frames.")] = "1280x720",
    fps: Annotated[float, typer.Option(help="Frames a second to keep up with.")] = 30.0,
    measured: Annotated[
        list[Path] | None, typer.Option(help="A result of derain bench --json from that device; may be repeated.")
    ] = None,
) -> None:
    """Estimate which model and precision keep up with a camera on a device, and with what margin.

    Nothing is measured: peak rates against the network's operations and bytes, corrected by --measured runs.
    """
    from derain.devices import find_device
    from derain.models import resolve, shipped
    from derain.runtime.bench.schema import read_result
    from derain.runtime.engine.record import is_engine
    from derain.runtime.planning import corrections_from, open_model
    from derain.runtime.planning import plan as estimated
    from derain.sizes import parse_size

    if device == "list":
        _print_devices()
        return
    chosen = find_device(device)
    shape = parse_size(size, "--size")
    if shape[0] != 1:
        raise UsageError(f"--size is '{size}'", expected="WIDTHxHEIGHT: a camera's frames come one by one")
    opened = []
    for name in models or shipped():
        path = resolve(name)
        if is_engine(path):
            raise ModelFileError(f"'{path}' is an engine", expected="the .onnx file that it was built from")
        opened.append(open_model(path.stem, path))
    corrections = [
        correction
        for path in measured or ()
        for correction in corrections_from(read_result(path), path.name, opened, chosen)
    ]
    options = estimated(opened, chosen, shape, fps, corrections)
    _print(options, corrections, chosen, opened, f"{shape[2]}x{shape[1]} at {fps:g} frames/s")


def _print_devices() -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from derain.devices import DEVICES

    table = Table("--device", "name", "float16 TFLOP/s", "INT8 TOP/s", "GB/s", box=box.SIMPLE_HEAD, pad_edge=False)
    for device in DEVICES:
        int8 = "-" if device.int8_tops is None else f"{device.int8_tops:g}"
        table.add_row(device.key, device.name, f"{device.fp16_tflops:g}", int8, f"{device.gigabytes_per_second:g}")
    console = Console(highlight=False, markup=False, soft_wrap=True)
    console.print(table)
    console.print("Dense peak rates as the manufacturers publish them; two operations for a multiply-add.")


def _print(
    options: list[Option], corrections: list[Correction], device: Device, models: list[Model], wanted: str
) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from derain.devices import ACHIEVED, ACHIEVED_RANGE, ESTIMATE_NOTE, estimate_row
    from derain.runtime.planning import best

    console = Console(highlight=False, markup=False, soft_wrap=True)
    console.print(f"ESTIMATE for {device.name}, {wanted}: {options[0].budget:.1f} ms for a frame")
    low, high = ACHIEVED_RANGE
    arithmetic = Table(title="arithmetic", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("", "kMAC/pixel", "GOP / TOP/s = ms", "MB / GB/s = ms", "floor ms"):
        arithmetic.add_column(column, justify="right" if column else "left", no_wrap=True)
    verdicts = Table(title="estimate", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("", f"at {ACHIEVED:.0%} ms", f"{high:.0%} to {low:.0%} ms", "corrected by", "margin", "verdict"):
        verdicts.add_column(column, justify="right" if column else "left", no_wrap=True)
    for option in options:
        label = f"{option.model} {option.estimate.precision}"
        cells = estimate_row(option.estimate)
        arithmetic.add_row(label, f"{option.kmac_per_pixel:.2f}", *cells[2:5])
        corrected = "-" if option.basis == "none" else f"{option.factor:.2f} ({option.basis})"
        fastest, slowest = option.span
        verdicts.add_row(
            label,
            f"{option.expected:.1f}",
            f"{fastest:.1f} to {slowest:.1f}",
            corrected,
            f"{option.margin:.2f}",
            option.verdict,
        )
    console.print(arithmetic)
    console.print(verdicts)
    for correction in corrections:
        console.print(f"measured / estimated = {correction.factor:.2f}: {correction.source}")
    chosen = best(options)
    if chosen is None:
        console.print("ESTIMATE: none fits surely. A smaller --size, fewer --fps, or a larger device.")
    else:
        quality = _quality(next(model for model in models if model.name == chosen.model))
        label = f"{chosen.model} {chosen.estimate.precision}"
        console.print(f"ESTIMATE: the largest that fits is {label}, margin {chosen.margin:.2f}{quality}")
    console.print(ESTIMATE_NOTE)
    console.print("Measure on the device: derain build MODEL --script, then derain bench; add it here with --measured.")


def _quality(model: Model) -> str:
    """The first figure of the card; of the file as it is, before it is made float16 or INT8."""
    figure = next((item for item in model.card.quality if item.protocol == "y_matlab"), None)
    if figure is None:
        return ""
    return f" ({figure.dataset}: {figure.psnr:.2f} dB in {model.card.precision.kind}, as the card says)"
