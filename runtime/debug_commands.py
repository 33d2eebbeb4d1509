"""``derain debug``: find the layer in which an engine goes wrong, by calling NVIDIA's Polygraphy."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from derain.errors import BackendError, MissingDependencyError, UsageError

if TYPE_CHECKING:
    from derain.card import ModelCard
    from derain.runtime.engine.toolkit import Toolkit

Shape = tuple[int, int, int]
_MAIN = "import sys; from polygraphy.tools import main; sys.argv[0] = 'polygraphy'; sys.exit(main())"
_PACKAGES = {"polygraphy": "polygraphy", "onnx_graphsurgeon": "onnx-graphsurgeon", "onnxslim": "onnxslim"}


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    group = typer.Typer(no_args_is_help=True, help="Find the layer in which an engine goes wrong, with Polygraphy.")
    group.command("compare")(compare)
    group.command("reduce")(reduce)
    app.add_typer(group, name="debug")


def compare(
    model: Annotated[str, typer.Argument(help="An .onnx file, or the name of a shipped model.")],
    *,
    size: Annotated[str | None, typer.Option(help="WIDTHxHEIGHT. Default: that of the self-test.")] = None,
    tolerance: Annotated[
        float | None, typer.Option(help="Largest median error of a tensor.", show_default="by the model's precision")
    ] = None,
    builder: Annotated[str, typer.Option(help="auto, tensorrt, or tensorrt-rtx.")] = "auto",
) -> None:
    """Compare every layer's result of TensorRT with ONNX Runtime's, on the self-test's picture. Needs a GPU.

    Exits with 1 when a layer differs; the first one listed as failed is where to look.
    """
    from derain.card import read_card
    from derain.models import resolve
    from derain.runtime.engine.driver import probe_driver
    from derain.runtime.engine.toolkit import choose_toolkit

    _need("polygraphy")
    path = resolve(model)
    card = read_card(path)
    driver = probe_driver()
    if not driver.usable:
        raise BackendError(
            f"derain debug compare runs the engine, and {driver.problem}", fix="Run it on the machine with the GPU"
        )
    toolkit = choose_toolkit(builder, driver)
    with tempfile.TemporaryDirectory(prefix="derain-debug-") as folder:
        loader = Path(folder, "picture.py")
        loader.write_text(loader_script(path, _size(size, card)), encoding="utf-8")
        arguments = compare_arguments(path, card, _size(size, card), loader, tolerance)
        code, _ = run_polygraphy(arguments, toolkit, Path(folder))
    if code:
        raise typer.Exit(1)


def reduce(
    model: Annotated[str, typer.Argument(help="An .onnx file, or the name of a shipped model.")],
    *,
    output: Annotated[Path, typer.Option("-o", "--output", help="The reduced .onnx file.")],
    size: Annotated[str | None, typer.Option(help="WIDTHxHEIGHT. Default: that of the self-test.")] = None,
    builder: Annotated[str, typer.Option(help="auto, tensorrt, or tensorrt-rtx.")] = "auto",
    capability: Annotated[
        str | None, typer.Option("--for", metavar="SM", help="Compute capability, for tensorrt-rtx without a GPU.")
    ] = None,
) -> None:
    """Cut a model that TensorRT refuses down to the few nodes that it refuses, for a report or a closer look."""
    from derain.card import read_card
    from derain.models import resolve
    from derain.runtime.engine.driver import probe_driver
    from derain.runtime.engine.toolkit import choose_toolkit

    for package in _PACKAGES:
        _need(package)
    path = resolve(model)
    card = read_card(path)
    driver = probe_driver()
    toolkit = choose_toolkit("tensorrt-rtx" if capability and builder == "auto" else builder, driver)
    if toolkit.ahead_of_time and not driver.usable and capability is None:
        raise UsageError(
            f"{toolkit} must be told what to build for, as {driver.problem}", expected="for example --for SM86"
        )
    output = output.resolve()
    if output == path.resolve():
        raise UsageError(f"The output '{output}' is the model itself", expected="another name")
    reason = refusal(path, card, toolkit, capability)
    if not reason:
        raise UsageError(
            f"'{path}' builds with {toolkit}: there is nothing to reduce",
            fix="If its results are wrong, use derain debug compare",
        )
    typer.echo(f"{reason}\nCutting the model down ...", err=True)
    with tempfile.TemporaryDirectory(prefix="derain-debug-") as folder:
        here = Path(folder)
        fixed = here / "fixed.onnx"
        fixed.write_bytes(fixed_model(path, card, _size(size, card)))
        if run_polygraphy(convert_arguments(fixed, capability), toolkit, here, quiet=True)[0] == 0:
            raise UsageError(
                f"'{path}' builds with {toolkit} for one size, and not for the sizes of its card",
                expected="a model that is refused at one size, too: parts of a dynamic one have no sizes to build for",
                fix="Try another size with --size, or build for one size: derain build --size WxH",
            )
        check = convert_arguments(here / "polygraphy_debug.onnx", capability)
        reduced = here / "reduced.onnx"
        command = ["debug", "reduce", str(fixed), "-o", str(reduced), "--mode", "bisect", "--check"]
        code, printed = run_polygraphy([*command, sys.executable, "-c", _MAIN, *check], toolkit, here, quiet=True)
        if code:
            typer.echo(printed, err=True)
            raise BackendError("Polygraphy could not reduce the model; its messages are above")
        _keep(reduced, output)


def refusal(path: Path, card: ModelCard, toolkit: Toolkit, capability: str | None) -> str:
    """Why TensorRT does not build a model for the sizes of its card; empty when it does."""
    from derain.runtime.engine.build import build_plan
    from derain.runtime.engine.options import BuildOptions

    capabilities = (capability.upper(),) if capability else ()
    try:
        build_plan(path.read_bytes(), card, BuildOptions(profile=card.profile, capabilities=capabilities), toolkit)
    except BackendError as error:
        return error.found
    return ""


def fixed_model(path: Path, card: ModelCard, size: Shape) -> bytes:
    """The model for one size, its constants folded: parts of a dynamic model have no profile.

    Not with ``polygraphy surgeon sanitize``: onnx-graphsurgeon 0.6 folds a ``Shape`` with ``start`` wrongly.
    """
    import onnx

    from derain.folding import fold

    fixed: bytes = fold(onnx.load(str(path)), card.inputs, size).SerializeToString()
    return fixed


def compare_arguments(path: Path, card: ModelCard, size: Shape, loader: Path, tolerance: float | None) -> list[str]:
    """Arguments of ``polygraphy run`` that compare all layers of TensorRT with ONNX Runtime.

    Args:
        loader: a script that gives the inputs, see :func:`loader_script`.
        tolerance: largest median absolute error; None for one that fits the card's precision.
    """
    limits = {"float32": 1e-3, "float16": 2e-2, "float8": 1e-1, "int8": 5e-2}
    allowed = limits[card.precision.kind] if tolerance is None else tolerance
    shapes = _shapes(card, size)
    return [
        *("run", str(path), "--trt", "--onnxrt", "--strongly-typed"),
        *("--trt-min-shapes", *shapes, "--trt-opt-shapes", *shapes, "--trt-max-shapes", *shapes),
        *("--data-loader-script", str(loader)),
        *("--onnx-outputs", "mark", "all", "--trt-outputs", "mark", "all"),
        *("--atol", str(allowed), "--rtol", str(allowed), "--check-error-stat", "median"),
    ]


def convert_arguments(path: Path, capability: str | None) -> list[str]:
    """Arguments of ``polygraphy convert`` that build an engine and throw it away."""
    arguments = ["convert", str(path), "--convert-to", "trt", "--strongly-typed", "-o", str(path.with_suffix(".plan"))]
    if capability is not None:
        digits = capability.upper().removeprefix("SM")
        if not digits.isdigit() or len(digits) < 2:
            raise UsageError(f"--for is '{capability}'", expected="a compute capability such as SM86")
        arguments += ["--compute-capabilities", f"{digits[:-1]}.{digits[-1]}"]
    return arguments


def loader_script(path: Path, size: Shape) -> str:
    """A Python script for Polygraphy that gives the self-test's picture."""
    return (
        "from derain.card import read_card\n"
        "from derain.runtime.engine.selftest import fixed_inputs\n\n\n"
        "def load_data():\n"
        f"    yield fixed_inputs(read_card({str(path.resolve())!r}), {size!r})\n"
    )


def run_polygraphy(arguments: list[str], toolkit: Toolkit, folder: Path, quiet: bool = False) -> tuple[int, str]:
    """Run Polygraphy in a process of its own, in ``folder``.

    Args:
        quiet: do not show what it prints, but return it.

    Returns:
        Its exit code, and what it printed.
    """
    environment = dict(os.environ)
    if toolkit.ahead_of_time:
        environment["POLYGRAPHY_USE_TENSORRT_RTX"] = "1"
    command = [sys.executable, "-c", _MAIN, *arguments]
    result = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE if quiet else None,
        stderr=subprocess.STDOUT if quiet else None,
        text=True,
        check=False,
    )
    return result.returncode, result.stdout or ""


def _size(text: str | None, card: ModelCard) -> Shape:
    from derain.runtime.engine.selftest import picture_size
    from derain.sizes import parse_size

    return parse_size(text, "--size") if text else picture_size(card.profile)


def _shapes(card: ModelCard, size: Shape) -> list[str]:
    """``frame:[1,720,1280,3]``, as Polygraphy wants them."""
    from derain.runtime.engine.options import input_shape

    return [f"{port.name}:[{','.join(map(str, input_shape(port, size, card.context_size)))}]" for port in card.inputs]


def _keep(reduced: Path, output: Path) -> None:
    from derain.files import atomic_path

    with atomic_path(output) as temporary:
        temporary.write_bytes(reduced.read_bytes())
    try:
        import onnx

        nodes = [f"{node.name or '?'} ({node.op_type})" for node in onnx.load(str(output)).graph.node]
        typer.echo(f"Wrote {output}: {', '.join(nodes[:10])}" + (" ..." if len(nodes) > 10 else ""))
    except ImportError:
        typer.echo(f"Wrote {output}")


def _need(package: str) -> None:
    import importlib.util

    if importlib.util.find_spec(package) is None:
        raise MissingDependencyError(_PACKAGES[package], needed_for="derain debug")
