"""``derain build``: an engine for this machine, or the trtexec script for another."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from derain.errors import ModelFileError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

    from derain.card import ModelCard
    from derain.runtime.engine.driver import Driver
    from derain.runtime.engine.options import BuildOptions
    from derain.runtime.engine.record import SelfTest
    from derain.runtime.engine.store import Engine
    from derain.runtime.engine.toolkit import Toolkit


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("build")(build)


def build(
    model: Annotated[str, typer.Argument(help="An .onnx file, or the name of a shipped model.")],
    *,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The engine. Default: the model's name with .engine, here.")
    ] = None,
    builder: Annotated[str, typer.Option(help="auto, tensorrt, or tensorrt-rtx.")] = "auto",
    capabilities: Annotated[
        list[str] | None,
        typer.Option("--for", metavar="SM", help="Without a GPU: compute capability, such as SM86; may be repeated."),
    ] = None,
    size: Annotated[str | None, typer.Option(help="One size only: WIDTHxHEIGHT or WIDTHxHEIGHTxBATCH.")] = None,
    minimum: Annotated[str | None, typer.Option("--min", help="Smallest size. Default: the model card's.")] = None,
    optimum: Annotated[str | None, typer.Option("--opt", help="Size to be fastest at.")] = None,
    maximum: Annotated[str | None, typer.Option("--max", help="Largest size.")] = None,
    workspace: Annotated[int | None, typer.Option(help="Limit of scratch memory, MiB.", show_default="none")] = None,
    level: Annotated[int, typer.Option(min=0, max=5, help="0 builds fast, 5 searches longest.")] = 3,
    dla: Annotated[int | None, typer.Option(help="Deep learning accelerator of an Orin, 0 or 1.")] = None,
    hardware_compatible: Annotated[
        bool, typer.Option("--hardware-compatible", help="For every GPU from Ampere on.")
    ] = False,
    version_compatible: Annotated[
        bool, typer.Option("--version-compatible", help="Also for later TensorRT of the same major version.")
    ] = False,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Build even when the engine is up to date.")] = False,
    script: Annotated[
        bool, typer.Option("--script", help="Write a trtexec shell script for another machine instead.")
    ] = False,
    adopt: Annotated[
        Path | None, typer.Option(help="Instead: the record of an engine of MODEL that trtexec built by hand.")
    ] = None,
) -> None:
    """Build a TensorRT engine, check it against ONNX Runtime, and record what it is for.

    Precision is the model's own. Without a GPU, TensorRT-RTX builds for the compute capabilities given.
    """
    from pydantic import ValidationError
    from rich.console import Console

    from derain.card import read_card
    from derain.models import resolve
    from derain.runtime.engine.options import BuildOptions, narrowed_profile
    from derain.runtime.engine.record import is_engine

    path = resolve(model)
    if is_engine(path):
        raise ModelFileError(f"'{path}' is an engine already", expected="an .onnx file written by derain export")
    card = read_card(path)
    try:
        options = BuildOptions(
            profile=narrowed_profile(card.profile, size, minimum, optimum, maximum),
            capabilities=tuple(name.upper() for name in capabilities or ()),
            workspace_mib=workspace,
            optimization_level=level,
            dla_core=dla,
            hardware_compatible=hardware_compatible,
            version_compatible=version_compatible,
        )
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageError(f"{first['loc'][0]} is {first['input']}: {first['msg']}") from error
    console = Console(highlight=False, markup=False, soft_wrap=True)
    if adopt is not None:
        if script or options.capabilities or output is not None:
            raise UsageError("--adopt was given with --script, --for or -o", expected="--adopt ENGINE and sizes alone")
        _adopt(path, card, options, adopt, console)
    elif script:
        if options.capabilities:
            raise UsageError("--for was given with --script", expected="no --for: the script builds on the device")
        _write_script(path, card, options, output, console)
    else:
        target = output or Path(path.with_suffix(".engine").name)
        _build(path, card, options, target, builder, rebuild, console)


def _adopt(path: Path, card: ModelCard, options: BuildOptions, engine: Path, console: Console) -> None:
    from derain.runtime.engine.record import ENGINE_SUFFIXES, adopted, is_engine, record_path, write_record

    if not is_engine(engine):
        raise UsageError(f"--adopt is '{engine}'", expected=f"a file ending in {', '.join(ENGINE_SUFFIXES)}")
    write_record(engine, adopted(engine, path, card.model_copy(update={"profile": options.profile})))
    console.print(f"Wrote {record_path(engine)}")
    console.print(f"The engine is tested when it is first opened, against '{path}' if that lies beside it")


def _write_script(path: Path, card: ModelCard, options: BuildOptions, output: Path | None, console: Console) -> None:
    from derain.runtime.engine.options import require_dla_fits
    from derain.runtime.engine.script import write_scripts

    require_dla_fits(card, options)
    target = output or Path(f"{path.stem}-build.sh")
    for written in write_scripts(path, card, options, target):
        console.print(f"Wrote {written}")
    console.print(f"Copy them and '{path}' to one folder of the device, and run there: bash {target.name}")


def _build(
    path: Path, card: ModelCard, options: BuildOptions, target: Path, builder: str, rebuild: bool, console: Console
) -> None:
    import contextlib
    import sys

    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from derain.runtime.engine.driver import probe_driver
    from derain.runtime.engine.store import Build, obtain
    from derain.runtime.engine.toolkit import choose_toolkit
    from derain.runtime.interrupt import stop_on_signals

    driver = probe_driver()
    toolkit = choose_toolkit("tensorrt-rtx" if options.capabilities and builder == "auto" else builder, driver)
    if toolkit.ahead_of_time and not options.capabilities and not driver.usable:
        raise UsageError(
            f"{toolkit} must be told what to build for, as {driver.problem}",
            expected="one or more compute capabilities, for example --for SM86 --for SM120",
            fix="For a Jetson write a script with --script",
        )
    errors = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[phase]}"), TimeElapsedColumn())
    bar = Progress(*columns, console=errors, transient=True, disable=not sys.stderr.isatty())
    with stop_on_signals() as stop, contextlib.ExitStack() as stack:
        task = bar.add_task("building", total=1.0, phase="")
        stack.enter_context(bar)
        engine = obtain(
            Build(
                path,
                card,
                options,
                toolkit,
                driver,
                test=_self_test(path, card, options, toolkit, driver),
                report=lambda phase, share: bar.update(task, completed=share, phase=phase[:40].replace("[", "(")),
                say=lambda text: errors.print(text, style="yellow"),
                cancelled=stop.is_set,
            ),
            target,
            rebuild=rebuild,
        )
    _tell(engine, target, str(toolkit), driver.problem, console, errors)


def _self_test(
    path: Path, card: ModelCard, options: BuildOptions, toolkit: Toolkit, driver: Driver
) -> Callable[[bytes], SelfTest] | None:
    """What runs a new engine here; None where it cannot run."""
    if not driver.usable or (options.capabilities and driver.gpus[0].sm not in options.capabilities):
        return None
    from derain.runtime.backends.cuda_python import CudaPython
    from derain.runtime.backends.tensorrt_gpu import opened
    from derain.runtime.engine.find import run_self_test

    cuda = CudaPython()
    return lambda plan: run_self_test(plan, card, options, path, toolkit, lambda bytes_: opened(toolkit, cuda, bytes_))


def _tell(engine: Engine, target: Path, toolkit: str, problem: str, console: Console, errors: Console) -> None:
    from derain.runtime.engine.selftest import describe
    from derain.sizes import size_text

    record = engine.record
    for note in engine.notes:
        errors.print(f"Note: {note}", style="yellow")
    if engine.path is None:
        raise UsageError(f"'{target}' could not be written", fix="Choose another place with -o")
    if not engine.built:
        console.print(f"{target} is up to date")
        return
    sizes = record.key.options.profile if record.key else None
    made_for = ", ".join(record.key.options.capabilities) if record.key else ""
    console.print(f"Built {target} with {toolkit} in {record.seconds:g} s: {record.plan_bytes / 2**20:.1f} MiB")
    if sizes is not None:
        ends = [size_text(shape) for shape in (sizes.min, sizes.opt, sizes.max)]
        text = ends[1] if sizes.fixed else f"{ends[0]} to {ends[2]}, fastest at {ends[1]}"
        console.print(
            f"{record.card.precision.kind if record.card else ''}, frames of {text}"
            + (f"; {made_for}" if made_for else "")
        )
    if record.self_test is not None:
        console.print(describe(record.self_test))
    else:
        console.print(
            f"Not run here ({problem or 'built for other machines'}): it is tested when it is first opened on its GPU"
        )
