"""The record of a calibration: figures as JSON, the worst frame as a picture, sensitivity as a plot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from derain.errors import MissingDependencyError
from derain.files import atomic_path
from derain.runtime.ports import Picture

AMPLIFIED = 16
_SHOWN = 40


def comparison(before: Picture, after: Picture) -> Picture:
    """The float32 model's frame, the other's, and their difference about middle grey, 16 times as strong, side by side.

    All uint8 (H, W, 3) BGR; the result is (H, 3 W + 16, 3).
    """
    difference = 128 + AMPLIFIED * (after.astype(np.int32) - before.astype(np.int32))
    gap = np.full((before.shape[0], 8, 3), 255, np.uint8)
    return np.hstack([before, gap, after, gap, np.clip(difference, 0, 255).astype(np.uint8)])


def need_plots() -> None:
    """Make sure that plots can be drawn, before work begins.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError("matplotlib", needed_for="derain calibrate", extra="export") from error


def plot_sensitivity(path: Path, sensitivity: dict[str, float], kept: frozenset[str], precision: str) -> None:
    """Bars of the drop that each layer causes alone, the most sensitive first; kept layers in another colour."""
    from matplotlib.figure import Figure

    order = sorted(sensitivity, key=lambda layer: -sensitivity[layer])[:_SHOWN]
    figure = Figure(figsize=(9, 1.2 + 0.27 * len(order)), layout="constrained")
    axes = figure.add_subplot()
    colours = ["#d1495b" if layer in kept else "#30638e" for layer in order]
    axes.barh(range(len(order)), [sensitivity[layer] for layer in order], color=colours)
    axes.set_yticks(range(len(order)), order, fontsize=8)
    axes.invert_yaxis()
    axes.axvline(0, color="black", linewidth=0.8)
    axes.grid(axis="x", alpha=0.3)
    axes.set_xlabel("loss of PSNR (dB) with only this layer in " + precision)
    more = f", the {_SHOWN} most sensitive of {len(sensitivity)}" if len(sensitivity) > _SHOWN else ""
    axes.set_title(f"Sensitivity of layers{more}; red: kept in higher precision", fontsize=10)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110)


def write_json(path: Path, document: dict[str, Any]) -> None:
    """Write the figures."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
