"""Does the ONNX file compute what the PyTorch module computes? Asked on pictures, before anything is written."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from derain.card import Parity, Profile
from derain.errors import ExportError, MissingDependencyError
from derain.export.graph import CameraGraph
from derain.export.pictures import Frame, batch_of, to_contract
from derain.sizes import Shape, size_text

if TYPE_CHECKING:
    import onnx

# (batch, height, width): one plain, one odd in both sides, one batch of two that is upright.
DYNAMIC_SIZES: tuple[Shape, ...] = ((1, 240, 320), (1, 181, 275), (2, 200, 136))
MAX_LEVELS = 1.0
DIFFERING_LIMIT = {"edge": 0.001, "full": 0.01}
ATTENTION_LIMIT = 1e-3
HALF_PSNR_LIMIT = 40.0

Array = NDArray[np.generic]


@dataclass
class Difference:
    """Sums over all compared pictures. Frames count in levels of 255."""

    values: int = 0
    differing: int = 0
    max_levels: float = 0.0
    squares: float = 0.0
    vector: float = field(default=0.0)

    def add_frames(self, found: Array, expected: Array) -> None:
        """Add frames, uint8 or float in [0, 1]; floats are compared as the levels they would round to."""
        difference = np.abs(_levels(found) - _levels(expected))
        self.values += difference.size
        self.differing += int(np.count_nonzero(difference))
        self.max_levels = max(self.max_levels, float(difference.max()))
        self.squares += float(np.square(difference).sum())

    def add_vector(self, found: Array, expected: Array) -> None:
        """Add an attention map or context vector."""
        if not np.isfinite(found.astype(np.float64)).all():
            self.vector = float(np.finfo(np.float32).max)
            return
        self.vector = max(self.vector, float(np.abs(found.astype(np.float64) - expected.astype(np.float64)).max()))

    @property
    def fraction(self) -> float:
        return self.differing / self.values if self.values else 0.0

    @property
    def psnr(self) -> float | None:
        """In dB; None when all frames are equal."""
        if not self.squares:
            return None
        return float(10 * np.log10(255.0**2 * self.values / self.squares))


def _levels(frames: Array) -> NDArray[np.float64]:
    values = frames.astype(np.float64)
    if frames.dtype != np.uint8:
        if not np.isfinite(values).all():
            return np.full(values.shape, np.finfo(np.float32).max, np.float64)
        values = np.round(values * 255)
    return values


def parity_sizes(profile: Profile, *, even: bool) -> list[Shape]:
    """The sizes to compare at: the fixed one, or three that do not depend on the profile."""
    if profile.fixed:
        return [profile.opt]
    return [(b, h // 2 * 2, w // 2 * 2) if even else (b, h, w) for b, h, w in DYNAMIC_SIZES]


def compare(graph: CameraGraph, model: onnx.ModelProto, pictures: list[Frame], profile: Profile) -> Parity:
    """Run both on pictures and state how far they differ.

    Args:
        graph: the PyTorch module, evaluation mode, float32.
        model: what was made of it.
        pictures: at least one, uint8 (H, W, 3) BGR; a fixed size takes each in turn.
        profile: tells whether the model's size is fixed.

    Returns:
        The difference as the card carries it; it is not judged here.

    Raises:
        ExportError: ONNX Runtime refuses the model, or gives other shapes.
        MissingDependencyError: onnxruntime is not installed.
    """
    try:
        import onnx as onnx_package
        import onnxruntime
    except ImportError as error:
        raise MissingDependencyError(error.name or "onnxruntime", needed_for="derain export", extra="export") from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ExportError(f"ONNX Runtime refuses the exported graph: {error}", fix="Report this as a bug") from error
    difference = Difference()
    sizes = parity_sizes(profile, even=graph.contract.frames == "nv12")
    rounds = len(pictures) if profile.fixed else 1
    for size in sizes:
        for first in range(rounds):
            chosen = pictures[first:] + pictures[:first]
            _compare_once(graph, session, batch_of(chosen, size), difference)
    return Parity(
        pictures=len(pictures),
        sizes=[size_text(size) for size in sizes],
        max_level_difference=difference.max_levels,
        differing_fraction=difference.fraction,
        attention_max_difference=difference.vector,
        psnr=difference.psnr,
        verified_with=[
            f"onnx.checker {onnx_package.__version__}",
            f"onnxruntime {onnxruntime.__version__} (CPU) against torch {torch.__version__}",
        ],
    )


def _compare_once(graph: CameraGraph, session: object, frames: Frame, difference: Difference) -> None:
    inputs: list[Array] = list(to_contract(frames, graph.contract))
    with torch.no_grad():
        tensors = [torch.from_numpy(array) for array in inputs]
        if graph.part == "tile":
            context = CameraGraph(graph.network, graph.contract, "context").eval()(*tensors)[0]
            tensors.append(context)
            inputs.append(context.numpy())
        expected = [tensor.numpy() for tensor in graph(*tensors)]
    ports = graph.contract.inputs(graph.part)
    feed = {port.name: array for port, array in zip(ports, inputs, strict=True)}
    try:
        found = session.run(None, feed)  # type: ignore[attr-defined]
    except Exception as error:
        size = size_text((frames.shape[0], frames.shape[1], frames.shape[2]))
        raise ExportError(f"The exported graph fails at {size}: {error}", fix="Report this as a bug") from error
    for port, ours, theirs in zip(graph.contract.outputs(graph.part), found, expected, strict=True):
        if ours.shape != theirs.shape:
            raise ExportError(f"Output '{port.name}' has shape {ours.shape}", expected=f"{theirs.shape}")
        if port.channels in ("attention", "context"):
            difference.add_vector(ours, theirs)
        else:
            difference.add_frames(ours, theirs)


def judge(parity: Parity, variant: str, *, half: bool, what: str) -> None:
    """Let an export pass or fail on its difference from PyTorch.

    float32 must agree to one level on all but 0.1 % of values (``edge`` networks) or 1 % (``full``). float16 is not
    the same arithmetic: it must stay within 40 dB, which a wrong or overflowing graph does not.

    Raises:
        ExportError: with the difference and the limit.
    """
    if half:
        if parity.psnr is not None and parity.psnr < HALF_PSNR_LIMIT:
            raise ExportError(
                f"The float16 form of {what} is only {parity.psnr:.1f} dB close to float32",
                expected=f"at least {HALF_PSNR_LIMIT:.0f} dB",
                fix="Export in float32, and let TensorRT use TF32, or find the overflowing layer with derain inspect",
            )
        return
    limit = DIFFERING_LIMIT.get(variant, DIFFERING_LIMIT["full"])
    if parity.max_level_difference > MAX_LEVELS or parity.differing_fraction > limit:
        raise ExportError(
            f"The exported graph of {what} differs from PyTorch by up to {parity.max_level_difference:.0f} levels, on "
            f"{100 * parity.differing_fraction:.3f} % of values",
            expected=f"at most {MAX_LEVELS:.0f} level on at most {100 * limit:g} %",
            fix="Nothing was written. Report this as a bug, with the recipe",
        )
    if parity.attention_max_difference > ATTENTION_LIMIT:
        raise ExportError(
            f"The attention or context of {what} differs from PyTorch by up to {parity.attention_max_difference:.2g}",
            expected=f"at most {ATTENTION_LIMIT:g}",
            fix="Nothing was written. Report this as a bug, with the recipe",
        )
