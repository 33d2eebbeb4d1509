"""trtexec shell scripts for another machine: those of ``runtime/scripts`` with the model card's values filled in."""

from __future__ import annotations

import shlex
from importlib.resources import files
from pathlib import Path

from derain.card import ModelCard
from derain.errors import UsageError
from derain.files import atomic_path
from derain.runtime.engine.options import BuildOptions, input_shape

_BEGIN, _END = "# >>> settings\n", "# <<< settings\n"


def write_scripts(model: Path, card: ModelCard, options: BuildOptions, target: Path) -> tuple[Path, Path]:
    """Write a build script and, beside it, a benchmark script.

    Args:
        model: the ONNX file; the scripts look for its name beside themselves or in the current folder.
        options: sizes and builder options; capabilities have no meaning here.
        target: the build script, such as ``edge-build.sh``; the other one is then ``edge-bench.sh``.

    Returns:
        Both paths.

    Raises:
        UsageError: ``target`` does not end in ``.sh``.
    """
    if target.suffix != ".sh":
        raise UsageError(f"The script '{target}' does not end in .sh", expected="a name such as edge-build.sh")
    stem = target.stem.removesuffix("-build")
    bench = target.with_name(f"{stem}-bench.sh")
    for path, text in (
        (target, build_script(model.name, card, options)),
        (bench, bench_script(model.name, card, options)),
    ):
        with atomic_path(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
            temporary.chmod(0o755)
    return target, bench


def build_script(model: str, card: ModelCard, options: BuildOptions) -> str:
    """The build script for a model file of that name; its card travels in it, to be recorded beside the engine."""
    dynamic = not card.profile.fixed
    profile = options.profile
    shapes = [_shapes(card, size) if dynamic else "" for size in (profile.min, profile.opt, profile.max)]
    engine_card = card.model_copy(update={"profile": profile})
    settings = [
        f"# {card.name}, {card.precision.kind}; written by derain build --script",
        _setting("ONNX", model, "1:-"),
        'ENGINE="${2:-${ONNX%.onnx}.engine}"',
        *(_setting(name, text) for name, text in zip(("MIN_SHAPES", "OPT_SHAPES", "MAX_SHAPES"), shapes, strict=True)),
        _setting("WORKSPACE_MIB", str(options.workspace_mib or "")),
        _setting("LEVEL", str(options.optimization_level)),
        _setting("DLA_CORE", "" if options.dla_core is None else str(options.dla_core)),
        _setting("HARDWARE_COMPATIBLE", "1" if options.hardware_compatible else ""),
        _setting("VERSION_COMPATIBLE", "1" if options.version_compatible else ""),
        _setting("CARD", engine_card.to_json()),
    ]
    return _filled("trtexec-build.sh", settings)


def bench_script(model: str, card: ModelCard, options: BuildOptions) -> str:
    """The benchmark script for the engine that the build script makes of that model."""
    settings = [
        f"# {card.name}, {card.precision.kind}; written by derain build --script",
        _setting("ENGINE", str(Path(model).with_suffix(".engine")), "1:-"),
        _setting("SHAPES", _shapes(card, options.profile.opt) if not card.profile.fixed else ""),
        _setting("DLA_CORE", "" if options.dla_core is None else str(options.dla_core)),
    ]
    return _filled("trtexec-bench.sh", settings)


def _filled(name: str, settings: list[str]) -> str:
    template = files("derain.runtime").joinpath("scripts").joinpath(name).read_text(encoding="utf-8")
    head, rest = template.split(_BEGIN)
    _, tail = rest.split(_END)
    return head + _BEGIN + "\n".join(settings) + "\n" + _END + tail


def _setting(name: str, value: str, argument: str = "") -> str:
    """A shell assignment; with ``argument``, such as ``1:-``, the script's own argument goes first."""
    quoted = shlex.quote(value)
    if not argument:
        return f"{name}={quoted}"
    number = argument.removesuffix(":-")
    return f'{name}={quoted}\n[[ -z "${{{number}:-}}" ]] || {name}="${number}"'


def _shapes(card: ModelCard, size: tuple[int, int, int]) -> str:
    """``frame:1x720x1280x3``, inputs separated by commas, as trtexec wants them."""
    return ",".join(
        f"{port.name}:{'x'.join(map(str, input_shape(port, size, card.context_size)))}" for port in card.inputs
    )
