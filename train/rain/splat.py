"""Opacity of many small moving discs: each is a row of points along its path, spread by the disc it shows.

Opacity adds up like light in a long exposure: a drop's projected area in square pixels is shared among the pixels it
passes, so a drop thinner than a pixel dims and a longer path dims, with no separate rule for either.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

_CLASSES = ((0.0, 1), (1.3, 1), (2.5, 1), (5.0, 2), (10.0, 4), (20.0, 8), (40.0, 16))
"""Least diameter in pixels of each class of discs, and by how much its canvas is shrunk."""

_MOST_POINTS = 400
"""Points along one path; a longer path gets wider gaps, which only the closest drops of a long exposure reach."""

_CHUNK = 8192
"""Points drawn at once: few enough for the arrays between to stay in the cache."""


@dataclass(frozen=True)
class Paths:
    """N discs moving in straight lines during the exposure; all arrays are float64 of shape (N,), lengths in pixels.

    Attributes:
        x: horizontal position when the shutter opens.
        y: vertical position then, downwards.
        dx: horizontal way until it closes.
        dy: vertical way until it closes.
        area: projected area of what is sharp, square pixels.
        diameter: diameter of the disc it shows, blur included.
        beads: bright-dark cycles along the way, from the drop's oscillation.
        phase: of those cycles, radians.
    """

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    dx: NDArray[np.float64]
    dy: NDArray[np.float64]
    area: NDArray[np.float64]
    diameter: NDArray[np.float64]
    beads: NDArray[np.float64]
    phase: NDArray[np.float64]

    def chosen(self, index: NDArray[np.intp]) -> Paths:
        """The paths at ``index``."""
        return Paths(*(getattr(self, name)[index] for name in self.__dataclass_fields__))


def draw_opacity(shape: tuple[int, int], paths: Paths, bead_depth: float = 0.35) -> NDArray[np.float32]:
    """Share of the exposure during which each pixel is covered, (H, W) float32 in [0, 1].

    Args:
        shape: (H, W).
        paths: what moves.
        bead_depth: how strongly oscillation modulates the light along a streak, [0, 1].
    """
    opacity = np.zeros(shape, dtype=np.float32)
    kind = np.searchsorted([least for least, _ in _CLASSES], paths.diameter, side="right") - 1
    for number, (least, shrink) in enumerate(_CLASSES):
        members = np.flatnonzero(kind == number)
        if members.size == 0:
            continue
        small = (max(2, math.ceil(shape[0] / shrink)), max(2, math.ceil(shape[1] / shrink)))
        canvas = _splat(small, paths.chosen(members), 1.0 / shrink, bead_depth)
        disc = _disc(max(1.0, float(np.sqrt(least * paths.diameter[members].max()))) / shrink)
        canvas = cv2.filter2D(canvas, cv2.CV_32F, disc, borderType=cv2.BORDER_CONSTANT)
        if shrink > 1:
            enlarged = cv2.resize(canvas, (small[1] * shrink, small[0] * shrink), interpolation=cv2.INTER_LINEAR)
            canvas = enlarged[: shape[0], : shape[1]]
        opacity += canvas
    return np.minimum(opacity, 1.0, out=opacity)


def _splat(shape: tuple[int, int], paths: Paths, scale: float, bead_depth: float) -> NDArray[np.float32]:
    """Areas shared bilinearly among the pixels around the points of each path, on a canvas shrunk by ``scale``."""
    height, width = shape
    length = np.hypot(paths.dx, paths.dy) * scale
    points = np.clip(np.ceil(length), 1, _MOST_POINTS).astype(np.int64)
    canvas = np.zeros((height + 2) * (width + 2), dtype=np.float32)  # the margin of one pixel takes what falls outside
    bounds = np.searchsorted(np.cumsum(points), np.arange(0, points.sum(), _CHUNK))
    for first, last in zip(bounds, [*bounds[1:], points.size], strict=True):
        if first < last:
            _splat_some(
                canvas,
                shape,
                paths.chosen(np.arange(first, last)),
                points[first:last],
                scale=scale,
                bead_depth=bead_depth,
            )
    return np.ascontiguousarray(canvas.reshape(height + 2, width + 2)[1:-1, 1:-1])


def _splat_some(
    canvas: NDArray[np.float32],
    shape: tuple[int, int],
    paths: Paths,
    points: NDArray[np.int64],
    *,
    scale: float,
    bead_depth: float,
) -> None:
    """Add some paths, each of its number of points, to the flat canvas of ``shape`` and its margin."""
    height, width = shape
    owner = np.repeat(np.arange(points.size), points)
    number = np.arange(owner.size) - np.repeat(np.cumsum(points) - points, points)
    along = (number + 0.5) / points[owner]  # share of the way, (0, 1)
    x = ((paths.x + 0.5) * scale + 0.5)[owner] + (paths.dx * scale)[owner] * along
    y = ((paths.y + 0.5) * scale + 0.5)[owner] + (paths.dy * scale)[owner] * along
    inside = np.flatnonzero((x > 0.0) & (x < width + 1) & (y > 0.0) & (y < height + 1))
    x, y, along, owner = x[inside], y[inside], along[inside], owner[inside]
    beads = 1.0 + bead_depth * np.sin(paths.phase[owner] + (2.0 * math.pi * paths.beads)[owner] * along)
    weight = (paths.area * scale**2 / points)[owner] * beads

    column, row = x.astype(np.int64), y.astype(np.int64)
    right, lower = x - column, y - row
    corner = row * (width + 2) + column
    below, upper = weight * lower, weight * (1.0 - lower)
    for offset, share in (
        (0, upper * (1.0 - right)),
        (1, upper * right),
        (width + 2, below * (1.0 - right)),
        (width + 3, below * right),
    ):
        np.add.at(canvas, corner + offset, share.astype(np.float32))


def _disc(diameter: float) -> NDArray[np.float32]:
    """A disc that sums to one, antialiased by 5 x 5 samples a pixel."""
    radius = max(0, math.ceil(diameter / 2 - 0.5))
    fine = (np.arange((2 * radius + 1) * 5) + 0.5) / 5 - radius - 0.5
    covered = (fine[:, None] ** 2 + fine[None, :] ** 2 <= (diameter / 2) ** 2).astype(np.float32)
    size = 2 * radius + 1
    disc: NDArray[np.float32] = covered.reshape(size, 5, size, 5).sum(axis=(1, 3))
    disc /= disc.sum()
    return disc
