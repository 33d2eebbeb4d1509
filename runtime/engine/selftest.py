"""Is a newly built engine the network it was built from? A fixed picture through both tells.

An engine that builds can still be wrong: a kernel with a defect, a layer out of range in float16, a wrong profile. Its
result is compared with ONNX Runtime's on the CPU, and an engine that differs is refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from derain.card import ModelCard, Port, Profile
from derain.errors import BackendError, DerainError
from derain.runtime.backends.base import Buffers, dtype_of
from derain.runtime.engine.options import input_shape
from derain.runtime.engine.record import SelfTest
from derain.sizes import size_text

# dB of the engine's picture against ONNX Runtime's. TF32 and other orders of summation stay above 60, float16 above 50;
# INT8 rounds values that lie between two steps to either one.
LEAST_PSNR = {"float32": 50.0, "float16": 42.0, "float8": 30.0, "int8": 30.0}
_USUAL = (256, 384)
_SHIFT = 2
_SHIFT_MARGIN = 3.0


class Runs(Protocol):
    """Something that runs the graph; :class:`derain.runtime.backends.base.Backend` does."""

    def infer(self, inputs: Buffers, outputs: Buffers) -> None:
        """As :meth:`derain.runtime.backends.base.Backend.infer`."""


def picture_size(profile: Profile) -> tuple[int, int, int]:
    """(batch, height, width) of the picture: small enough for a Jetson's CPU, and what the engine takes."""
    wanted = (1, *_USUAL)
    batch, height, width = (
        min(max(side, low), high) for side, low, high in zip(wanted, profile.min, profile.max, strict=True)
    )
    return batch, height, width


def fixed_inputs(card: ModelCard, size: tuple[int, int, int]) -> Buffers:
    """The fixed picture as the graph's inputs: smooth colours, edges, and slanted bright streaks."""
    inputs: Buffers = {}
    for port in card.inputs:
        shape = input_shape(port, size, card.context_size)
        inputs[port.name] = _fill(port, shape)
    return inputs


def self_test(
    engine: Runs, card: ModelCard, profile: Profile, onnx: Path | None, toolkit: str, strict: bool = True
) -> SelfTest:
    """Run the fixed picture through an engine and compare.

    Args:
        profile: sizes the engine takes.
        onnx: the model file for the reference; None, or where ONNX Runtime is not installed: only the engine's own
            result is looked at.
        toolkit: name for messages.
        strict: raise what ONNX Runtime raises; otherwise go on without a reference.

    Raises:
        BackendError: the result is not finite, is black, is shifted, has its colours swapped, or differs too much.
    """
    size = picture_size(profile)
    inputs = fixed_inputs(card, size)
    found = _run(engine, card, inputs, size)
    _require_sane(found, card, toolkit)
    reference, name = _reference(onnx, card, inputs, size, strict)
    if reference is None:
        return SelfTest(reference=name, psnr=None, size=size)
    _require_sane(reference, card, name)
    worst = None
    for port in card.outputs:
        level = _compare(found[port.name], reference[port.name], port, card, toolkit)
        if level is not None and (worst is None or level < worst):
            worst = level
    return SelfTest(reference=name, psnr=None if worst is None else round(worst, 2), size=size)


def _run(engine: Runs, card: ModelCard, inputs: Buffers, size: tuple[int, int, int]) -> Buffers:
    outputs = {port.name: np.zeros(input_shape(port, size, card.context_size), dtype_of(port)) for port in card.outputs}
    engine.infer(inputs, outputs)
    return outputs


def _reference(
    onnx: Path | None, card: ModelCard, inputs: Buffers, size: tuple[int, int, int], strict: bool
) -> tuple[Buffers | None, str]:
    if onnx is None:
        return None, "none: the model file is not beside the engine"
    from derain.runtime.backends.onnxruntime_cpu import OnnxRuntimeCpu

    problem = OnnxRuntimeCpu.unavailable()
    if problem is not None:
        return None, f"none: {problem}"
    try:
        with OnnxRuntimeCpu(onnx, card) as backend:
            return _run(backend, card, inputs, size), backend.device
    except DerainError as error:
        if strict:
            raise
        return None, f"none: {error}"


def _require_sane(outputs: Buffers, card: ModelCard, name: str) -> None:
    for port in card.outputs:
        values = outputs[port.name]
        if not np.isfinite(values).all():
            count = int((~np.isfinite(values)).sum())
            raise BackendError(f"{name} gives {count} values in '{port.name}' that are no numbers (NaN or infinite)")
        if port.channels in ("BGR", "RGB") and float(values.max()) == float(values.min()):
            colour = "black" if float(values.max()) == 0 else "of one colour"
            raise BackendError(f"{name} gives a picture that is all {colour} for the self-test")


def _compare(found: NDArray[Any], wanted: NDArray[Any], port: Port, card: ModelCard, toolkit: str) -> float | None:
    """PSNR in dB, None for equal; raises where it is too low, with what looks like the cause."""
    peak = port.value_range[1] - port.value_range[0] if port.channels != "context" else float(np.abs(wanted).max() or 1)
    level = _psnr(found, wanted, peak)
    least = LEAST_PSNR[card.precision.kind]
    if level is None or level >= least:
        return level
    raise BackendError(
        f"{toolkit} built an engine whose '{port.name}' is {_looks(found, wanted, port, peak, level)} "
        f"against ONNX Runtime",
        expected=f"at least {least:g} dB for {card.precision.kind}; the engine was not kept",
        fix="Build it again with another --level; if it stays, find the layer with derain debug compare",
    )


def _looks(found: NDArray[Any], wanted: NDArray[Any], port: Port, peak: float, level: float) -> str:
    text = f"{level:.1f} dB"
    if port.channels in ("BGR", "RGB"):
        axis = 3 if port.layout == "NHWC" else 1
        swapped = _psnr(np.flip(found, axis), wanted, peak)
        if swapped is None or swapped > level + _SHIFT_MARGIN:
            return f"{text}, with red and blue swapped,"
    if port.channels == "context":
        return text
    rows, columns = (2, 3) if port.layout == "NCHW" else (1, 2)
    inner = _cut(wanted, rows, columns, 0, 0)
    best, place = level + _SHIFT_MARGIN, (0, 0)
    for down in range(-_SHIFT, _SHIFT + 1):
        for right in range(-_SHIFT, _SHIFT + 1):
            moved = _psnr(_cut(found, rows, columns, down, right), inner, peak)
            if moved is None or moved > best:
                best, place = (float("inf") if moved is None else moved), (down, right)
    down, right = place
    if down or right:
        return f"{text}, shifted by {right} pixels to the right and {down} down,"
    return text


def _cut(values: NDArray[Any], rows: int, columns: int, down: int, right: int) -> NDArray[Any]:
    index: list[slice] = [slice(None)] * values.ndim
    index[rows] = slice(_SHIFT + down, values.shape[rows] - _SHIFT + down)
    index[columns] = slice(_SHIFT + right, values.shape[columns] - _SHIFT + right)
    return values[tuple(index)]


def _psnr(found: NDArray[Any], wanted: NDArray[Any], peak: float) -> float | None:
    error = float(np.mean((found.astype(np.float64) - wanted.astype(np.float64)) ** 2))
    return None if error == 0 else float(10 * np.log10(peak**2 / error))


def _fill(port: Port, shape: tuple[int, ...]) -> NDArray[Any]:
    if port.layout == "NC":
        return np.linspace(-0.5, 0.5, int(np.prod(shape)), dtype=dtype_of(port)).reshape(shape)
    batch, *rest = shape
    rows_axis = 1 if port.layout == "NCHW" else 0
    height, width = rest[rows_axis], rest[rows_axis + 1]
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float64)
    scene = np.stack(
        [
            0.35 + 0.23 * np.sin(columns / 19),
            0.43 + 0.2 * np.cos(rows / 13),
            0.3 + 0.2 * rows / height + 0.1 * columns / width,
        ],
        axis=-1,
    )
    scene[height // 3 : height // 2, width // 4 : width // 2] *= 0.5
    along = columns + 0.35 * rows
    scene = np.clip(scene + (0.28 * (np.sin(along * 0.9) > 0.97) * (np.sin(rows / 5 + along) > 0))[..., None], 0, 1)
    if port.channels == "RGB":
        scene = scene[..., ::-1]
    planes = {"Y": scene.mean(-1), "UV": 0.5 + 0.2 * (scene[..., :2] - 0.5)}.get(port.channels, scene)
    low, high = port.value_range
    values = low + (high - low) * planes
    if port.layout == "NCHW":
        values = values.transpose(2, 0, 1)
    if port.dtype == "uint8":
        values = np.rint(values)
    return np.ascontiguousarray(np.broadcast_to(values, (batch, *values.shape)).astype(dtype_of(port)))


def describe(result: SelfTest) -> str:
    """A result in words."""
    if result.reference.startswith("none"):
        return f"self-test on {size_text(result.size)}: finite and not black; no reference ({result.reference[6:]})"
    close = "equal to" if result.psnr is None else f"{result.psnr:g} dB against"
    return f"self-test on {size_text(result.size)}: {close} {result.reference}"
