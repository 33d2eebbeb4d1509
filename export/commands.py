"""``derain export`` and ``derain inspect``. Only light imports here: the command line lists them without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from derain.errors import MissingDependencyError, UsageError
from derain.export.sizes import DEFAULT_MAX, make_profile
from derain.sizes import parse_size

_TRITON_BATCH = 8
_CAPABILITIES = ("SM75", "SM86", "SM89", "SM120")


def register(app: typer.Typer) -> None:
    """Add this stage's commands to the command line."""
    app.command("export")(export)
    app.command("inspect")(inspect)


def export(
    checkpoint: Annotated[Path, typer.Argument(help="A .ckpt file written by derain train.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The .onnx file to write.")],
    frames: Annotated[
        str, typer.Option(help="Frames in and out: bgr or rgb (uint8 NHWC), float (float32 NCHW RGB), nv12 (in only).")
    ] = "bgr",
    yuv: Annotated[str, typer.Option(help="Of NV12: bt709 or bt601, -limited or -full.")] = "bt709-limited",
    size: Annotated[str | None, typer.Option(help="Fix the size: WIDTHxHEIGHT or WIDTHxHEIGHTxBATCH.")] = None,
    minimum: Annotated[str | None, typer.Option("--min", help="Smallest size of engines: WxH or WxHxB.")] = None,
    optimum: Annotated[str | None, typer.Option("--opt", help="Size engines are tuned for: WxH or WxHxB.")] = None,
    maximum: Annotated[str | None, typer.Option("--max", help="Largest size of engines: WxH or WxHxB.")] = None,
    part: Annotated[str, typer.Option(help="whole, or attention: the extractor alone.")] = "whole",
    tiled: Annotated[
        bool, typer.Option("--tiled", help="Two files: for tiles, and for the context of the whole frame.")
    ] = False,
    companions: Annotated[
        bool, typer.Option("--companions", help="Also NAME.attention.onnx for the rain gate, NAME.tile.* for tiles.")
    ] = False,
    fp16: Annotated[bool, typer.Option("--fp16", help="Compute in float16 where it is safe.")] = False,
    name: Annotated[str | None, typer.Option(help="Name in the model card. Default: the recipe's.")] = None,
    pictures: Annotated[Path | None, typer.Option(help="Folder of pictures to compare with PyTorch on.")] = None,
    figures: Annotated[
        list[Path] | None, typer.Option(help="Report of derain eval --json, for the model card. Repeatable.")
    ] = None,
    verify: Annotated[str | None, typer.Option(help="tensorrt: also parse and build with TensorRT-RTX.")] = None,
    sm: Annotated[
        list[str] | None, typer.Option(help="Compute capability to build for; may be repeated. Default: all four.")
    ] = None,
    triton: Annotated[
        Path | None,
        typer.Option(help="Also write a Triton model repository into this folder; batches up to 8 unless --max says."),
    ] = None,
    triton_backend: Annotated[str, typer.Option(help="onnxruntime, or tensorrt: an engine built on the server.")] = (
        "onnxruntime"
    ),
) -> None:
    """Turn a checkpoint into one ONNX file, compared with PyTorch on pictures before it is written."""
    _need_export()
    from rich.console import Console

    from derain.export.contract import Contract
    from derain.export.exporter import export_checkpoint, export_tiled, export_with_companions
    from derain.export.options import ExportOptions

    matrix, _, colour_range = yuv.partition("-")
    contract: Any = Contract(
        frames=_choice("--frames", frames, ("bgr", "rgb", "float", "nv12")),
        matrix=_choice("--yuv", matrix, ("bt601", "bt709")),
        colour_range=_choice("--yuv", colour_range, ("limited", "full")),
    )
    sizes = {"size": size, "minimum": minimum, "optimum": optimum, "maximum": maximum}
    flags = {"size": "--size", "minimum": "--min", "optimum": "--opt", "maximum": "--max"}
    shapes = {key: parse_size(text, flags[key]) for key, text in sizes.items() if text is not None}
    if triton is not None and not {"size", "maximum"} & set(shapes):
        shapes["maximum"] = (_TRITON_BATCH, *DEFAULT_MAX[1:])
    if triton is not None and name is not None:
        from derain.export.triton import require_folder_name

        require_folder_name(name)
    backend: Any = _choice("--triton-backend", triton_backend, ("onnxruntime", "tensorrt"))
    if verify is not None:
        _choice("--verify", verify, ("tensorrt",))
    elif sm:
        raise UsageError("--sm was given without --verify tensorrt", fix="Add --verify tensorrt")
    options = ExportOptions(
        profile=make_profile(**shapes),
        contract=contract,
        half=fp16,
        name=name,
        pictures=pictures,
        figures=tuple(figures or ()),
        tensorrt=tuple(name.upper() for name in sm or _CAPABILITIES) if verify else (),
    )
    console = Console(stderr=True, highlight=False)
    chosen: Any = _choice("--part", part, ("whole", "attention"))
    if tiled and (chosen != "whole" or triton is not None):
        raise UsageError("--tiled makes two files of the whole network", expected="neither --part nor --triton with it")
    if companions and (tiled or chosen != "whole"):
        raise UsageError("--companions goes with the whole network", expected="neither --part nor --tiled with it")
    with console.status("reading") as status:
        if tiled:
            written: tuple[Path, ...] = export_tiled(checkpoint, output, options, say=status.update)
        elif companions:
            written = export_with_companions(checkpoint, output, options, say=status.update)
        else:
            export_checkpoint(checkpoint, output, options, part=chosen, say=status.update)
            written = (output,)
        if triton is not None:
            from derain.export.triton import write_repository

            status.update("writing the Triton repository")
            place = write_repository(output, triton, backend)
    for path in written:
        _summarise(path)
    if triton is not None:
        typer.echo(f"Triton model: {place}")
        if backend == "tensorrt":
            typer.echo(f"  on the server: derain build {place}/1/model.onnx -o {place}/1/model.plan")


def _summarise(path: Path) -> None:
    from derain.card import read_card

    card = read_card(path)
    typer.echo(
        f"{path}: {card.name}, {card.precision.kind}, {path.stat().st_size / 1024:.0f} KiB, "
        f"{card.cost.kmac_per_pixel:.2f} kMAC/pixel, {card.cost.parameters:,} parameters"
    )
    if card.parity:
        for line in card.parity.verified_with:
            typer.echo(f"  verified with {line}")
        close = "" if card.parity.psnr is None else f" ({card.parity.psnr:.1f} dB)"
        typer.echo(
            f"  differs from PyTorch by at most {card.parity.max_level_difference:g} levels of 255 on "
            f"{100 * card.parity.differing_fraction:.4f} % of values{close}"
        )


def inspect(
    model: Annotated[str, typer.Argument(help="An .onnx file, or the name of a shipped model.")],
    size: Annotated[str | None, typer.Option(help="Count at this size: WIDTHxHEIGHT or WIDTHxHEIGHTxBATCH.")] = None,
    html: Annotated[Path | None, typer.Option(help="Also write the report, with a picture of the parts.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show a model's card, its operators and parts, what it costs, and what a device may take for it."""
    import json as json_package

    from rich.console import Console

    from derain.export.inspection import as_json, print_report
    from derain.export.inspection import inspect as look
    from derain.models import resolve

    found = look(resolve(model), parse_size(size, "--size") if size else None)
    if html is not None:
        from derain.export.report import write_html

        write_html(found, html)
    if json:
        typer.echo(json_package.dumps(as_json(found), indent=2))
    else:
        print_report(found, Console(highlight=False))


def _choice(option: str, value: str, allowed: tuple[str, ...]) -> Any:
    if value not in allowed:
        raise UsageError(f"{option} is '{value}'", expected=" or ".join(allowed))
    return value


def _need_export() -> None:
    for package in ("torch", "onnx", "onnxscript", "onnxslim", "onnxruntime", "cv2"):
        try:
            __import__(package)
        except ImportError as error:
            raise MissingDependencyError(package, needed_for="derain export", extra="export") from error
