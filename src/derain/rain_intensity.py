"""One number for how hard it rains, from a rain map; and the scale of that number, which is each model's own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

USUAL_HALF = 0.006
"""The scale of a model of which nobody measured its own."""

# Rain falls everywhere, while what only looks like rain (grass, railings, noise in the dark) is somewhere: the median
# over a grid of cells tells them apart better than the mean of the map does (docs/pipelines.md).
_CELLS = 6
_WET_SHARE = 2.0  # the intensity that parts rain from dry weather is 1 / (1 + this), a third
_MISSED_COUNTS = 2.0  # a missed shower leaves rain in the picture, a false alarm only costs time


def typical_cell(rain: NDArray[np.float32]) -> float:
    """Mean attention of the median of 6x6 cells of a map float32 (H, W) in [0, 1]."""
    height, width = rain.shape
    rows = np.linspace(0, height, min(_CELLS, height) + 1).astype(int)[:-1]
    columns = np.linspace(0, width, min(_CELLS, width) + 1).astype(int)[:-1]
    sums = np.add.reduceat(np.add.reduceat(rain, rows, axis=0, dtype=np.float64), columns, axis=1)
    counts = np.outer(np.diff([*rows, height]), np.diff([*columns, width]))
    return float(np.median(sums / counts))


def intensity(rain: NDArray[np.float32], half: float = USUAL_HALF) -> float:
    """How hard it rains: 0 dry, a third where rain begins, 0.5 an ordinary shower, towards 1 a downpour.

    Args:
        rain: a model's map, float32 (H, W) in [0, 1].
        half: the typical cell at which the intensity is one half: ``rain_half`` of the model's card.
    """
    signal = typical_cell(rain)
    return signal / (signal + half) if signal > 0 else 0.0


def half_between(rainy: Sequence[float], dry: Sequence[float]) -> float | None:
    """The scale at which an intensity of one third tells a model's rainy pictures from its dry ones best.

    That is where twice the share of rainy pictures below and the share of dry ones above have the smallest sum
    (Youden's index, but that a missed picture counts twice); where several do, their middle on a logarithmic scale.

    Args:
        rainy, dry: typical cells of pictures of either kind.

    Returns:
        None where there is nothing to tell: too few pictures of one kind (under eight), or maps that are all zero.
    """
    if min(len(rainy), len(dry)) < 8 or max(rainy) <= 0:
        return None
    least = max(rainy) * 1e-6
    values = np.unique(np.maximum([*rainy, *dry], least))
    if len(values) < 2:
        return None
    between = np.sqrt(values[1:] * values[:-1])
    missed = (np.asarray(rainy) < between[:, None]).mean(axis=1)
    wrong = _MISSED_COUNTS * missed + (np.asarray(dry) >= between[:, None]).mean(axis=1)
    if wrong.min() >= 1:
        return None
    best = np.flatnonzero(wrong <= wrong.min() + 1e-12)
    return float(np.sqrt(values[best[0]] * values[best[-1] + 1]) * _WET_SHARE)
