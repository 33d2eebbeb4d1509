"""What an engine is built for: sizes, memory, compatibility."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from derain.card import ModelCard, Port, Profile
from derain.errors import ModelFileError, UsageError
from derain.sizes import parse_size, size_text


class BuildOptions(BaseModel):
    """Everything that changes the engine that comes out, besides the model and the machine.

    Attributes:
        profile: sizes (batch, height, width) the engine takes, and the one it is fastest at.
        capabilities: compute capabilities such as ``SM86`` to build for without a GPU (TensorRT-RTX only).
        workspace_mib: scratch memory a kernel may use, MiB; None for TensorRT's default, all of the device.
        optimization_level: 0 builds fast, 5 searches longest.
        dla_core: run on this deep learning accelerator of an Orin, with the GPU for what it cannot do; None: GPU only.
        hardware_compatible: the engine runs on every GPU from Ampere on, a little slower.
        version_compatible: the engine runs with later TensorRT of the same major version.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    profile: Profile
    capabilities: tuple[Annotated[str, Field(max_length=16)], ...] = ()
    workspace_mib: Annotated[int, Field(ge=1, le=1 << 20)] | None = None
    optimization_level: Annotated[int, Field(ge=0, le=5)] = 3
    dla_core: Annotated[int, Field(ge=0, le=7)] | None = None
    hardware_compatible: bool = False
    version_compatible: bool = False


def narrowed_profile(
    card: Profile,
    size: str | None = None,
    minimum: str | None = None,
    optimum: str | None = None,
    maximum: str | None = None,
) -> Profile:
    """The card's profile with what the user asks for in its place. ``size`` fixes all three.

    Raises:
        UsageError: a size that is none, that the file was not exported for, or min > opt or opt > max.
    """
    if size is not None and (minimum or optimum or maximum):
        raise UsageError("--size was given with --min, --opt or --max", expected="--size alone, or the others")
    if size is not None:
        ends = dict.fromkeys(("min", "opt", "max"), parse_size(size, "--size"))
    else:
        ends = {
            "min": parse_size(minimum, "--min") if minimum else card.min,
            "opt": parse_size(optimum, "--opt") if optimum else card.opt,
            "max": parse_size(maximum, "--max") if maximum else card.max,
        }
    if card.fixed and any(shape != card.opt for shape in ends.values()):
        raise UsageError(
            f"The model was exported for the one size {size_text(card.opt)}",
            expected=f"{size_text(card.opt)}",
            fix="Export a dynamic model with derain export, without --size",
        )
    if minimum and not (optimum or maximum):
        ends["opt"] = _at_least(ends["opt"], ends["min"])
    if maximum and not (optimum or minimum):
        ends["opt"] = _at_most(ends["opt"], ends["max"])
    for low, middle, high in zip(ends["min"], ends["opt"], ends["max"], strict=True):
        if not low <= middle <= high:
            sizes = ", ".join(f"{name} {size_text(shape)}" for name, shape in ends.items())
            raise UsageError(f"The sizes are {sizes}", expected="min <= opt <= max in width, height and batch")
    return Profile(min=ends["min"], opt=ends["opt"], max=ends["max"])


def require_dla_fits(card: ModelCard, options: BuildOptions) -> None:
    """Refuse what a deep learning accelerator cannot take, before TensorRT builds for minutes and falls back.

    Source: "Working with DLA" in NVIDIA's TensorRT documentation: float16 and INT8 only, one size only.

    Raises:
        UsageError: a float32 or FP8 model, or several sizes, for an accelerator.
    """
    if options.dla_core is None:
        return
    if card.precision.kind not in ("float16", "int8"):
        raise UsageError(
            f"--dla was given with a model in {card.precision.kind}",
            expected="float16 or INT8: the accelerator computes in nothing else",
            fix="Export with derain export --fp16, or calibrate",
        )
    if not options.profile.fixed:
        raise UsageError(
            "--dla was given with several sizes", expected="one size", fix="Add for example --size 1280x720"
        )


def input_shape(port: Port, size: tuple[int, int, int], context: int | None = None) -> tuple[int, ...]:
    """Shape of an input tensor for pictures of (batch, height, width).

    Args:
        context: length of a context vector, for the port that carries one.

    Raises:
        ModelFileError: a context port of unknown length.
    """
    batch, height, width = size
    if port.channels == "UV":
        height, width = height // 2, width // 2
    if port.layout == "NC":
        if context is None:
            raise ModelFileError(f"The length of the input '{port.name}' is not known", fix="Build a whole model")
        return (batch, context)
    if port.layout == "NHW":
        return (batch, height, width)
    channels = 2 if port.channels == "UV" else 3
    return (batch, height, width, channels) if port.layout == "NHWC" else (batch, channels, height, width)


def _at_least(shape: tuple[int, int, int], low: tuple[int, int, int]) -> tuple[int, int, int]:
    return (max(shape[0], low[0]), max(shape[1], low[1]), max(shape[2], low[2]))


def _at_most(shape: tuple[int, int, int], high: tuple[int, int, int]) -> tuple[int, int, int]:
    return (min(shape[0], high[0]), min(shape[1], high[1]), min(shape[2], high[2]))
